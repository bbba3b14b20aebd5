"""What the command refuses by its options alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_serving.__main__ import main


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--tag", "v1.0.1"], "--tag goes with --dry-run only"),
        (["--out", "folder"], "--out goes with --dry-run only"),
        (["--dry-run", "--out", "full"], "Name a folder that does not exist."),
        (["--dry-run"], "release.yaml: is missing"),
    ],
)
def test_options_that_would_not_do_what_they_seem_to_do_are_refused(
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    told: str,
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["publish", *options]) == 1
    assert told in capsys.readouterr().err
