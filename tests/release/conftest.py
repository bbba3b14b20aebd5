"""A serving repository, and a model's that releases into it, for each test its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release.repositories import ModelRepository, ServingRepository, model_repository, serving_repository


@pytest.fixture
def serving(tmp_path: Path) -> ServingRepository:
    return serving_repository(tmp_path)


@pytest.fixture
def model(tmp_path: Path, serving: ServingRepository) -> ModelRepository:
    return model_repository(tmp_path / "model", serving.url)
