"""Releases that tests make up; whether there are files behind one is the test's affair."""

from __future__ import annotations

from pathlib import Path

from model_serving.catalog import Release


def release(name: str, version: str) -> Release:
    """A scikit-learn model without a contract."""
    folder = Path("models", name, version)
    return Release(
        name=name,
        version=version,
        folder=folder,
        implementation="mlserver_sklearn.SKLearnModel",
        lock=folder / "requirements.lock",
        request=None,
        response=None,
    )
