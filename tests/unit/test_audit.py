"""Known vulnerabilities of locked packages: the real pip-audit, and a source on loopback with recorded answers."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from model_serving.__main__ import main
from model_serving.pipelines import audit
from model_serving.problems import Failure

HASH = f"--hash=sha256:{'0' * 64}"
# As OSV answers POST /v1/query, shortened: https://google.github.io/osv.dev/post-v1-query/
STARLETTE = {
    "id": "GHSA-2c2j-9gv5-cj73",
    "aliases": ["CVE-2025-54121"],
    "summary": "Starlette has possible denial-of-service vector when parsing large files in multipart forms",
    "published": "2025-07-21T14:08:05Z",
    "schema_version": "1.7.0",
    "affected": [
        {
            "package": {"name": "starlette", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "0.47.2"}]}],
        }
    ],
}


class Source(ThreadingHTTPServer):
    """Knows one vulnerability of one version of Starlette, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []

    def answer(self, query: Mapping[str, Any]) -> Mapping[str, Any]:
        package = query["package"]["name"], query["version"]
        self.asked.append(package)
        return {"vulns": [STARLETTE]} if package == ("starlette", "0.46.2") else {}


class Handler(BaseHTTPRequestHandler):
    server: Source

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = json.dumps(self.server.answer(query)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Source]:
    with Source() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}/v1/query")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield server
        server.shutdown()


def lock(path: Path, *pins: str) -> Path:
    path.write_text("".join(f"{each} \\\n    {HASH}\n    # via mlserver\n" for each in pins), encoding="utf-8")
    return path


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Path]:
    """Two releases with a vulnerable package, one of them with a newer lock as well, and the program's lock."""
    old = lock(tmp_path / "old.lock", "starlette==0.46.2", "uvicorn[standard]==0.54.0")
    new = lock(tmp_path / "new.lock", "Starlette==1.10.0", "colorama==0.4.6 ; sys_platform == 'win32'")
    found = {"iris-dtc 1.0": old, "iris-dtc 1.1": new, "wine-lgbm 1.0": old, "requirements.txt": new}
    monkeypatch.setattr(audit, "locks", lambda names: found)
    return found


def test_each_package_is_asked_for_once_in_each_version_and_what_it_concerns_is_told(
    source: Source, locks: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit"]) == 1
    assert sorted(source.asked) == [
        ("colorama", "0.4.6"),
        ("starlette", "0.46.2"),
        ("starlette", "1.10.0"),
        ("uvicorn", "0.54.0"),
    ]
    head, row, _, remedy = capsys.readouterr().out.splitlines()[1:]
    assert head.split("  ")[0] == "PACKAGE"
    assert " ".join(row.split()) == "starlette 0.46.2 CVE-2025-54121 0.47.2 iris-dtc 1.0, wine-lgbm 1.0"
    assert remedy == audit.REMEDY


def test_without_known_vulnerabilities_it_ends_well(
    source: Source, locks: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lock(locks["iris-dtc 1.0"], "starlette==1.10.0")
    assert main(["audit"]) == 0
    assert "no known vulnerabilities" in capsys.readouterr().out


def test_a_source_that_cannot_be_reached_is_no_good_news(
    monkeypatch: pytest.MonkeyPatch, source: Source, locks: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:9/v1/query")
    assert main(["audit"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("the advisories about the locked packages are not known: ")
    assert "Connection refused" in told
    assert "PIP_AUDIT_VULNERABILITY_SERVICE" in told


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for pip-audit; returns the file whose content it prints, as recorded with an index as the source."""
    answers = tmp_path / "answers.json"
    (tmp_path / "pip_audit.py").write_text(f"print(open({str(answers)!r}).read())")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return answers


def skipped(name: str, version: str) -> Mapping[str, str]:
    why = f"Dependency not found on PyPI and could not be audited: {name} ({version})"
    return {"name": name, "skip_reason": why}


@pytest.mark.parametrize("printed", ["", "<html>", "[]", "{}"])
def test_an_answer_of_another_shape_is_no_good_news(
    printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], 1, stdout=printed, stderr="it failed\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    (tmp_path / "lock.txt").write_text("starlette==0.46.2 --hash=sha256:00\n")
    with pytest.raises(Failure, match="are not known: it failed"):
        audit.advisories({"own": tmp_path / "lock.txt"})


def test_an_index_without_advisories_is_no_good_news(index: Path, tmp_path: Path) -> None:
    """pip-audit itself says that nothing was found, and ends with 0."""
    index.write_text(json.dumps({"dependencies": [skipped("starlette", "0.46.2")], "fixes": []}), encoding="utf-8")
    with pytest.raises(Failure, match=r"the source knows none of them, such as starlette 0\.46\.2"):
        audit.advisories({"iris-dtc 1.0": lock(tmp_path / "lock", "starlette==0.46.2")})


def test_packages_that_the_index_does_not_know_are_named(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"name": "starlette", "version": "1.10.0", "vulns": []}
    index.write_text(json.dumps({"dependencies": [skipped("ours", "1.0"), known], "fixes": []}), encoding="utf-8")
    assert audit.advisories({"iris-dtc 1.0": lock(tmp_path / "lock", "ours==1.0", "starlette==1.10.0")}) == []
    assert capsys.readouterr().err == "nothing is known of ours 1.0\n"


def test_a_vulnerability_without_a_fix_says_so(index: Path, tmp_path: Path) -> None:
    vulnerable = {"id": "PYSEC-2026-1", "aliases": [], "fix_versions": []}
    answer = {"name": "ours", "version": "1.0", "vulns": [vulnerable]}
    index.write_text(json.dumps({"dependencies": [answer], "fixes": []}), encoding="utf-8")
    (found,) = audit.advisories({"iris-dtc 1.0": lock(tmp_path / "lock", "ours==1.0")})
    assert (found.name, found.fixed_in) == ("PYSEC-2026-1", "none yet")


def test_live_releases_templates_and_the_program_are_audited() -> None:
    locks = audit.locks(["local"])
    for what in (
        *("iris-dtc 1.0", "wine-lgbm 1.0", "requirements.txt", "requirements-dev.txt", "requirements-bootstrap.txt"),
        *("templates/runtimes/mlflow/requirements.lock", "templates/model-repository/locks/dvc.txt"),
    ):
        assert locks[what].is_file()
