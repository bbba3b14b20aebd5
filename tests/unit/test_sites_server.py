"""The stand-in refuses what the sites refuse, and serves jobs in other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import requests

from model_serving.hosts.marked import PREVIEW
from tests.hosts import Server, github, gitlab, serving

PROJECT = Path(__file__).resolve().parents[2]
GITLAB = {"PRIVATE-TOKEN": gitlab.TOKEN}
GITHUB = {
    "Authorization": f"Bearer {github.TOKEN}",
    "Accept": "application/vnd.github+json",
    "X-GitHub-Api-Version": "2022-11-28",
}
NOTES = "/api/v4/projects/7/merge_requests/3/notes"
COMMENTS = "/api/v3/repos/owner/models/issues/5/comments"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("GET", NOTES, {}, None, 401),
        ("GET", f"{NOTES}?private_token={gitlab.TOKEN}", {}, None, 401),
        ("GET", NOTES, {"Authorization": f"Bearer {github.TOKEN}"}, None, 401),
        ("GET", "/api/v4/projects/8/merge_requests/3/notes", GITLAB, None, 404),
        ("GET", "/api/v4/projects/7/merge_requests/4/notes", GITLAB, None, 404),
        ("POST", NOTES, GITLAB, {}, 400),
        ("POST", NOTES, GITLAB, "body=text", 415),
        ("PATCH", NOTES, GITLAB, {"body": "text"}, 405),
        ("PUT", f"{NOTES}/9", GITLAB, {"body": "text"}, 404),
        ("POST", "/api/v4/projects/7/issues", GITLAB, {"description": "text"}, 400),
        ("GET", COMMENTS, {}, None, 401),
        ("GET", COMMENTS, {**GITHUB, "Accept": "text/html"}, None, 415),
        ("GET", COMMENTS, {**GITHUB, "X-GitHub-Api-Version": "2000-01-01"}, None, 400),
        ("POST", COMMENTS, GITHUB, {}, 422),
        ("POST", COMMENTS, GITHUB, "body=text", 415),
        ("PATCH", "/api/v3/repos/owner/models/issues/comments/9", GITHUB, {"body": "text"}, 404),
        ("POST", "/api/v3/repos/owner/models/issues", GITHUB, {"body": "text"}, 422),
    ],
)
def test_it_refuses_what_the_sites_refuse(
    *, server: Server, method: str, path: str, headers: Mapping[str, str], content: object, status: int
) -> None:
    sent = {"data": content} if isinstance(content, str) else {"json": content}
    answer = requests.request(method, f"{server.url}{path}", headers=headers, timeout=5, **sent)
    assert answer.status_code == status


def test_nobody_elses_note_can_be_changed_on_gitlab(server: Server) -> None:
    note = server.gitlab.write("theirs", author=gitlab.SOMEBODY)
    url = f"{server.url}{NOTES}/{note['id']}"
    assert requests.put(url, headers=GITLAB, json={"body": "ours"}, timeout=5).status_code == 403


@pytest.mark.parametrize(("asked", "size"), [("", 20), ("?per_page=100", 100), ("?per_page=500", 100)])
def test_a_page_has_at_most_a_hundred_notes(server: Server, asked: str, size: int) -> None:
    for number in range(120):
        server.gitlab.write(str(number))
    answer = requests.get(f"{server.url}{NOTES}{asked}", headers=GITLAB, timeout=5)
    assert len(answer.json()) == size
    assert "page=2>" in answer.headers["Link"]


def test_a_fault_is_used_up_and_the_next_one_follows(server: Server) -> None:
    server.fail("GET", "/notes$", 500, 502)
    statuses = [requests.get(f"{server.url}{NOTES}", headers=GITLAB, timeout=5).status_code for _ in range(3)]
    assert statuses == [500, 502, 200]


def test_it_keeps_what_it_received_without_the_token(server: Server) -> None:
    requests.post(f"{server.url}{NOTES}", headers=GITLAB, json={"body": "text"}, timeout=5)
    [call] = server.calls("POST", "/notes$")
    assert call.content == {"body": "text"}
    assert call.status == 201
    assert gitlab.TOKEN not in repr(call)


@pytest.mark.parametrize("kind", ["gitlab", "github"])
def test_jobs_in_other_processes_post_to_it(tmp_path: Path, kind: str) -> None:
    """As pipelines do: the commands by name, the site by the environment."""
    port_file, log = tmp_path / "port", tmp_path / "log"
    command = [sys.executable, "-m", "tests.hosts", "--port-file", str(port_file), "--log", str(log)]
    with subprocess.Popen(command, cwd=PROJECT) as process:
        try:
            server = Server(f"http://127.0.0.1:{_content(port_file)}")
            environ = server.gitlab.environ() if kind == "gitlab" else server.github.environ(tmp_path)
            note = tmp_path / "note.md"
            note.write_text("a confidential result")
            assert _ci("pending", environ=environ).endswith("there is no note yet.\n")
            requests.post(f"{server.url}/_faults", json={"method": "POST", "path": "s$", "status": 503}, timeout=5)
            said = _ci("post", str(note), environ=environ)
            assert said.endswith("created the note.\n")
            assert "confidential" not in said
            [text] = requests.get(f"{server.url}/_state", timeout=5).json()[kind]
            assert text.startswith(PREVIEW)
            assert text.endswith("a confidential result")
            assert 503 in [json.loads(line)["status"] for line in log.read_text().splitlines()]
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def _content(path: Path) -> str:
    """Of a file, as soon as it is there."""
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)
    return path.read_text(encoding="utf-8")


def _ci(*arguments: str, environ: Mapping[str, str]) -> str:
    """What a command says, all of it."""
    command = [sys.executable, "-m", "model_serving", *arguments]
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not any(token in done.stdout + done.stderr for token in (gitlab.TOKEN, github.TOKEN))
    return done.stdout + done.stderr
