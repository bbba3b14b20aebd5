"""The definitions of GKE's kinds come from the pinned modules of their publisher, or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from local.tools import definitions
from local.tools.recipe import BuildError


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Go that has downloaded both modules, and notes what it is asked for."""
    folder, path = tmp_path / "modules", tmp_path / "path"
    for pattern in definitions.FILES.values():
        file = folder / pattern.replace("*", "of")
        file.parent.mkdir(parents=True)
        file.write_text(file.name)
    path.mkdir()
    answer = json.dumps({"Dir": str(folder)})
    (path / "go").write_text(
        f'#!/bin/sh\n[ "$1" = env ] && echo go1.26.8 && exit\necho "$@" >> {tmp_path}/asked\necho \'{answer}\'\n'
    )
    (path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")
    return folder


def test_each_module_is_pinned_with_its_sum() -> None:
    required = (definitions.MODULE / "go.mod").read_text()
    sums = (definitions.MODULE / "go.sum").read_text()
    for module in definitions.FILES:
        found = re.search(rf"^\t{re.escape(module)} (v\S+)$", required, re.MULTILINE)
        assert found
        assert re.search(rf"^{re.escape(module)} {re.escape(found[1])} h1:\S+$", sums, re.MULTILINE)


def test_they_are_fetched_once(modules: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "tools").mkdir(parents=True)
    folder = definitions.provide(cache)
    assert sorted(path.name for path in folder.iterdir()) == ["of.yaml", "of_podmonitorings.yaml"]
    assert definitions.provide(cache) == folder
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [
        "mod download -json github.com/GoogleCloudPlatform/gke-gateway-api@v1.3.0",
        "mod download -json github.com/GoogleCloudPlatform/prometheus-engine@v0.17.2",
    ]


@pytest.mark.parametrize("what", ["the sum is another", "the files moved"])
def test_nothing_is_kept_of_what_is_not_as_pinned(what: str, modules: Path, tmp_path: Path) -> None:
    if what == "the sum is another":
        (tmp_path / "path" / "go").write_text(
            '#!/bin/sh\n[ "$1" = env ] && echo go1.26.8 && exit\necho "checksum mismatch"; exit 1\n'
        )
        told = "could not be fetched.\nchecksum mismatch"
    else:
        (modules / "config" / "crd" / "of.yaml").unlink()
        told = "has no files config/crd"
    cache = tmp_path / "cache"
    (cache / "tools").mkdir(parents=True)
    with pytest.raises(BuildError, match=told):
        definitions.provide(cache)
    assert list((cache / "tools").glob("gke-*")) == []
