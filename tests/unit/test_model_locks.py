"""The locks that models are served with hold what templates/ asks for, and what replaces the packages' own wishes."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from model_serving.catalog.requirements import locked

PROJECT = Path(__file__).resolve().parents[2]
TEMPLATE = PROJECT / "templates" / "model-repository"
OVERRIDES = TEMPLATE / "template" / "requirements-overrides.txt"
SERVING = sorted(
    path
    for folder in ("models", "templates")
    for path in (PROJECT / folder).rglob("*.lock")
    if "mlserver" in locked(path.read_text())
)
REPLACED = [Requirement(line) for line in OVERRIDES.read_text().splitlines() if line and not line.startswith("#")]
# The last of the advisories about the version that MLServer 1.7.1 leads to is fixed here.
STARLETTE = Requirement("starlette>=1.3.1")


def test_there_are_locks_that_serve_and_versions_that_are_replaced() -> None:
    assert len(SERVING) >= 10
    assert {requirement.name for requirement in REPLACED} == {"fastapi", "pandas"}


@pytest.mark.parametrize("lock", SERVING, ids=lambda path: str(path.relative_to(PROJECT)))
@pytest.mark.parametrize("requirement", [*REPLACED, STARLETTE], ids=lambda requirement: requirement.name)
def test_what_replaces_a_packages_wish_is_locked(lock: Path, requirement: Requirement) -> None:
    (version,) = locked(lock.read_text(encoding="utf-8"))[requirement.name].versions
    assert Version(version) in requirement.specifier


@pytest.mark.parametrize("lock", SERVING, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_package_is_pinned_by_hash_and_no_index_is_named(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert all(package.hashed and len(package.versions) == 1 for package in locked(text).values())
    assert "://" not in text
    assert "--index-url" not in text


@pytest.mark.parametrize("library", ["scikit-learn", "lightgbm"])
def test_the_template_and_the_example_of_a_runtime_have_one_lock(library: str) -> None:
    """`make lock-models` copies it; with one lock, both are trained and served in one environment."""
    example = PROJECT / "templates" / "runtimes" / library / "requirements.lock"
    assert (TEMPLATE / "locks" / f"{library}.lock").read_bytes() == example.read_bytes()
