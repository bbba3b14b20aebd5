"""The model is good enough to be released: each metric reaches what quality.yaml says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LEAST: dict[str, float] = yaml.safe_load((ROOT / "quality.yaml").read_text())


@pytest.mark.parametrize("metric", LEAST)
def test_a_metric_reaches_what_it_has_to(metric: str) -> None:
    metrics = json.loads((ROOT / "metrics.json").read_text())
    assert metrics[metric] >= LEAST[metric]
