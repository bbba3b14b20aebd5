"""An image goes only if it is known that nothing needs it, and nothing else goes with it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from model_serving import catalog
from model_serving.__main__ import main
from model_serving.git import Git
from model_serving.images import portal
from model_serving.images.builds import CONTENT_LABEL
from model_serving.images.registry import Image, Registry, RegistryError
from model_serving.pipelines import prune, rollback, stacks
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.prune import Fate, Needs, decide, freed
from model_serving.problems import Failure
from tests.unit import releases
from tests.unit.conftest import serving

LAYERS = {"base": ("sha256:os", "sha256:wheels"), "other": ("sha256:os", "sha256:others")}
BASE, OTHER = "0123456789ab", "ba9876543210"
VERSIONS = ("1.0", "1.1", "1.2", "1.10", "2.0")


def model(version: str, *, name: str = "iris", on: str = "base", content: str | None = "same", **more: Any) -> Image:
    layers = (*LAYERS[on], f"sha256:{name}-{version}")
    return Image(
        repository=name,
        tag=version,
        labels={CONTENT_LABEL: content} if content else {},
        layers=layers,
        blobs=dict.fromkeys(layers, 10),
        **{"digest": f"sha256:{name}-{version}", **more},
    )


def runtime(tag: str, *, on: str) -> Image:
    layers = LAYERS[on]
    return Image(repository="runtime", tag=tag, digest=f"sha256:{tag}", layers=layers, blobs=dict.fromkeys(layers, 100))


IMAGES = [*(model(version) for version in VERSIONS), runtime(BASE, on="base")]
KNOWN: dict[str, Any] = {"versions": {"iris": frozenset(VERSIONS)}}


def going(images: list[Image], *, keep: int = 1, unreleased: bool = False, **needed: Any) -> set[str]:
    fates = decide(images, Needs(**{**KNOWN, **needed}), keep=keep, unreleased=unreleased)
    assert len(fates) == len(images)
    return {str(fate.image) for fate in fates if not fate.stays}


def why(images: list[Image], name: str, **needed: Any) -> str:
    fates = decide(images, Needs(**{**KNOWN, **needed}), keep=1)
    return next(fate.why for fate in fates if str(fate.image) == name)


def test_images_of_reviews_go_with_what_was_never_released_and_keep_no_runtime_from_then_on() -> None:
    reviewed = model("1.1-0123456789ab", name="review/iris")
    own = [reviewed, runtime(BASE, on="base")]
    assert going(own) == set()
    assert going(own, unreleased=True) == {"review/iris:1.1-0123456789ab", f"runtime:{BASE}"}


def test_the_newest_stay_by_the_order_of_versions_and_not_of_letters() -> None:
    assert going(IMAGES, keep=2) == {"iris:1.0", "iris:1.1", "iris:1.2"}
    assert why(IMAGES, "iris:1.2") == "nothing refers to it, newer versions: 2"


@pytest.mark.parametrize(
    ("needed", "reason"),
    [
        ({"tags": {("iris", "1.1"): "a state"}}, "a state"),
        ({"digests": {"sha256:iris-1.1": "a state"}}, "a state"),
    ],
)
def test_what_is_needed_stays(needed: dict[str, Any], reason: str) -> None:
    assert going(IMAGES, **needed) == {"iris:1.0", "iris:1.2", "iris:1.10"}
    assert why(IMAGES, "iris:1.1", **needed) == reason


def test_a_part_that_a_state_runs_by_its_digest_keeps_the_whole() -> None:
    images = [model("1.0", parts=("sha256:amd64",)), model("2.0")]
    assert going(images) == {"iris:1.0"}
    assert going(images, digests={"sha256:amd64": "a state"}) == set()


def test_an_image_whose_digest_a_kept_tag_shares_stays() -> None:
    twins = [model("1.0", digest="sha256:same"), model("1.1"), model("2.0", digest="sha256:same")]
    assert going(twins) == {"iris:1.1"}
    assert why(twins, "iris:1.0") == "the same image as iris:2.0"


def test_an_image_that_has_a_part_in_common_with_a_kept_one_stays() -> None:
    assert going([model("1.0", parts=("sha256:arm64",)), model("2.0", parts=("sha256:arm64",))]) == set()


def test_the_same_digest_in_another_repository_is_another_manifest() -> None:
    other = model("1.0", name="rose", digest="sha256:iris-1.0")
    assert "iris:1.0" in going([*IMAGES, other])


@pytest.mark.parametrize(
    "foreign",
    [
        model("0.1", name="rose"),
        model("1.1", content=None),
        model("1.1", content="another"),
        model("0.9"),
        model("latest"),
    ],
)
def test_what_is_not_known_to_be_this_projects_stays(foreign: Image) -> None:
    assert going([foreign, model("2.0")], contents={("iris", "1.1"): "same"}) == set()


def test_experiments_go_when_they_are_asked_for_and_others_stay() -> None:
    images = [model("0.9"), model("latest"), model("0.1", name="rose"), model("2.0")]
    assert going(images, unreleased=True) == {"iris:0.9"}


def test_a_version_that_is_not_this_projects_takes_no_place_of_the_newest() -> None:
    assert going([model("1.0"), model("9.0")]) == set()


def test_a_runtime_goes_with_the_last_image_that_is_built_on_it() -> None:
    old = [model("1.0", on="other"), model("1.1", on="other"), runtime(OTHER, on="other")]
    images = [*old, model("2.0"), runtime(BASE, on="base")]
    assert going(images) == {"iris:1.0", "iris:1.1", f"runtime:{OTHER}"}
    assert why(images, f"runtime:{BASE}") == "iris:2.0 is built on it"
    kept: dict[str, Any] = {"tags": {("iris", "1.1"): "a state"}}
    assert going(images, **kept) == {"iris:1.0"}
    assert why(images, f"runtime:{OTHER}", **kept) == "iris:1.1 is built on it"


def test_a_runtime_stays_for_a_release_that_is_still_to_be_built() -> None:
    images = [model("1.0", on="other"), runtime(OTHER, on="other"), model("2.0")]
    assert f"runtime:{OTHER}" in going(images)
    assert f"runtime:{OTHER}" not in going(images, locks={("iris", "2.1"): frozenset({OTHER})})
    assert f"runtime:{OTHER}" in going(images, locks={("iris", "1.0"): frozenset({OTHER})}), "its release goes as well"


def test_a_runtime_that_a_state_refers_to_stays() -> None:
    images = [model("1.0", on="other"), runtime(OTHER, on="other"), model("2.0")]
    assert f"runtime:{OTHER}" not in going(images, tags={("runtime", OTHER): "a state"})


def test_a_runtime_of_which_nobody_knows_stays_unless_it_was_built_here() -> None:
    images = [runtime(OTHER, on="other"), model("2.0")]
    assert going(images) == set()
    assert going(images, contexts=frozenset({OTHER})) == {f"runtime:{OTHER}"}
    foreign = model("1.0", name="rose", on="other")
    assert going([*images, foreign], contexts=frozenset({OTHER})) == set(), "another project's image is built on it"


def test_a_portal_goes_once_nothing_refers_to_it_if_it_was_built_here() -> None:
    images = [*IMAGES, Image(repository="portal", tag=OTHER, digest="sha256:portal")]
    assert f"portal:{OTHER}" not in going(images)
    assert why(images, f"portal:{OTHER}") == "its users are not known"
    assert f"portal:{OTHER}" in going(images, contexts=frozenset({OTHER}))
    used = {("portal", OTHER): "a state"}
    assert f"portal:{OTHER}" not in going(images, contexts=frozenset({OTHER}), tags=used)
    model_of_this_name = Image(repository="portal", tag="1.0", digest="sha256:model")
    assert going([model_of_this_name], contexts=frozenset({"1.0"})) == set()


def test_only_what_no_other_image_has_is_freed() -> None:
    fates = decide(IMAGES, Needs(**KNOWN), keep=2)
    assert freed(fates) == 30, "a layer of 10 each; the layers of the runtime stay"


def test_a_state_is_searched_as_a_whole() -> None:
    digest = f"sha256:{'0' * 64}"
    state = {"resources": [{"any": [f"registry.example.com:5000/team/iris:1.0@{digest}"]}, {"image": "h/rose:v2"}]}
    tags, digests = prune._referred({"dev": str(state)})
    assert {("iris", "1.0"), ("rose", "v2")} <= tags.keys()
    assert ("iris", "1") not in tags
    assert digests == {digest: "the state of dev refers to it"}


# the registry


class Server(BaseHTTPRequestHandler):
    """Holds what `content` says; a manifest goes with all of its tags, as in a real one."""

    content: ClassVar[dict[str, Any]] = {}
    refusal: ClassVar[int] = 0
    catalog: ClassVar[int] = 200

    def do_GET(self) -> None:
        path, _, query = self.path.removeprefix("/v2/").partition("?")
        if path == "_catalog":
            names = sorted({f"team/{repository}" for repository, _ in self.content["tags"]} | {"elsewhere/iris"})
            # A page each, with an address of another host as a proxy may have it.
            start = names.index(query.partition("last=")[2]) + 1 if "last=" in query else 0
            more = {"Link": f'<http://inside/v2/_catalog?n=1&last={names[start]}>; rel="next"'}
            self.answer(self.catalog, {"repositories": names[start : start + 1]}, more if names[start + 1 :] else {})
            return
        repository, kind, name = path.removeprefix("team/").split("/")
        tags: dict[tuple[str, str], str] = self.content["tags"]
        if kind == "tags":
            self.answer(200, {"tags": [tag for of, tag in tags if of == repository] or None}, {})
            return
        digest = tags.get((repository, name), name)
        found = self.content["manifests" if kind == "manifests" else "blobs"].get(digest)
        self.answer(200 if found else 404, found or {}, {"Docker-Content-Digest": digest})

    def do_DELETE(self) -> None:
        repository, _, digest = self.path.removeprefix("/v2/team/").split("/")
        tags = self.content["tags"]
        if self.refusal:
            self.answer(self.refusal, {}, {})
        elif digest not in self.content["manifests"]:
            self.answer(404, {}, {})
        else:
            del self.content["manifests"][digest]
            for name in [name for name, of in tags.items() if of == digest and name[0] == repository]:
                del tags[name]
            self.answer(202, {}, {})

    def answer(self, status: int, content: Any, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        # A real one answers a deletion with nothing.
        self.wfile.write(json.dumps(content).encode() if self.command == "GET" else b"")

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


def manifest(*layers: str) -> dict[str, Any]:
    return {
        "config": {"digest": "sha256:config", "size": 1},
        "layers": [{"digest": each, "size": 5} for each in layers],
    }


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address with a path; it holds iris 1.0, 1.1 and 2.0, of which 1.1 is for two platforms, and their runtime."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    Server.content = {
        "tags": {("iris", "1.0"): "sha256:a", ("iris", "1.1"): "sha256:i", ("iris", "2.0"): "sha256:d"}
        | {("runtime", BASE): "sha256:r"},
        "manifests": {
            "sha256:a": manifest("sha256:os", "sha256:1"),
            "sha256:i": {"manifests": [{"digest": "sha256:b"}, {"digest": "sha256:c"}]},
            "sha256:b": manifest("sha256:os", "sha256:2"),
            "sha256:c": manifest("sha256:arm", "sha256:2"),
            "sha256:d": manifest("sha256:os", "sha256:3"),
            "sha256:r": manifest("sha256:os"),
        },
        "blobs": {"sha256:config": {"config": {"Labels": {CONTENT_LABEL: "same"}}}},
    }
    monkeypatch.setattr(Server, "refusal", 0)
    monkeypatch.setattr(Server, "catalog", 200)
    with serving(Server) as host:
        yield f"{host}/team"


def test_a_registry_is_listed_page_by_page_below_its_path(registry: str) -> None:
    listed = Registry(registry)
    assert listed.repositories() == ["iris", "runtime"]
    images = {str(image): image for image in listed.images(["iris", "runtime", "missing"])}
    assert sorted(images) == ["iris:1.0", "iris:1.1", "iris:2.0", f"runtime:{BASE}"]
    assert images["iris:1.0"].size == 11
    assert images["iris:1.1"].parts == ("sha256:b", "sha256:c")
    assert images["iris:1.1"].labels == {CONTENT_LABEL: "same"}
    assert images["iris:1.0"].is_built_on(images[f"runtime:{BASE}"])


def test_a_registry_may_keep_its_repositories_to_itself(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "catalog", 403)
    assert Registry(registry).repositories() is None


def test_what_is_gone_already_is_fine(registry: str) -> None:
    Registry(registry).delete("iris", "sha256:gone")


@pytest.mark.parametrize(("status", "remedy"), [(405, "storage.delete.enabled"), (403, "docker login"), (500, "again")])
def test_a_refusal_says_what_to_do(registry: str, monkeypatch: pytest.MonkeyPatch, status: int, remedy: str) -> None:
    monkeypatch.setattr(Server, "refusal", status)
    with pytest.raises(RegistryError, match=remedy):
        Registry(registry).delete("iris", "sha256:a")


def test_a_registry_that_does_not_answer_is_named() -> None:
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1 could not list"):
        Registry("127.0.0.1:1").repositories()


# the command


@pytest.fixture
def project(tmp_path: Path, registry: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stack that serves wine of the real models, and a registry with versions of iris that only git knows."""
    lines = ["config:", f"  model-serving:registry: {registry}", "  model-serving:gateway: {className: contour}"]
    (tmp_path / "Pulumi.test.yaml").write_text("\n".join([*lines, "  model-serving:models: {wine-lgbm: {}}"]))
    monkeypatch.setattr(stacks.read, "__defaults__", (tmp_path,))
    monkeypatch.setattr(stacks.names, "__defaults__", (tmp_path,))
    monkeypatch.setattr(prune, "_versions", lambda _: {"iris": frozenset({"1.0", "1.1", "2.0"})})
    monkeypatch.setattr(rollback, "_served_before", lambda *_: iter(()))
    monkeypatch.setattr(Backend, "stacks", lambda _: ["test", "organization/other/dev"])
    monkeypatch.setattr(Backend, "state", lambda _: {"resources": []})
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}?metadata=skip")
    return tmp_path


def command(*, applies: bool = True, keep: int | None = 1) -> int:
    return main(["prune", "--stack", "test", "--keep", str(keep), *(["--apply"] if applies else [])])


def tags() -> set[str]:
    return {tag for repository, tag in Server.content["tags"] if repository == "iris"}


def test_without_apply_it_only_lists(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.dumps([*Server.content["manifests"]])
    assert command(applies=False) == 0
    assert json.dumps([*Server.content["manifests"]]) == before
    told = capsys.readouterr().out
    assert "iris     1.0           0.0 MB  goes   nothing refers to it, newer versions: 2" in told.splitlines()
    assert "Nothing was removed. To do it: make prune STACK=test APPLY=true" in told


def test_what_goes_is_removed_with_all_of_its_parts(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    assert tags() == {"2.0"}
    assert sorted(Server.content["manifests"]) == ["sha256:d", "sha256:r"]
    assert "[2/2] removed iris:1.1" in capsys.readouterr().out


def test_a_second_run_has_nothing_to_do(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    assert command() == 0
    assert "There was nothing to do." in capsys.readouterr().out


@pytest.mark.parametrize("gone", [["sha256:b"], ["sha256:b", "sha256:c"], ["sha256:r"]])
def test_a_run_that_was_interrupted_is_gone_on_with(project: Path, gone: list[str]) -> None:
    for digest in gone:
        del Server.content["manifests"][digest]
    assert command() == 0
    assert tags() == {"2.0"}
    assert not {"sha256:b", "sha256:c", "sha256:i"} & Server.content["manifests"].keys()


@pytest.mark.parametrize(
    "error",
    [Failure("the state of dev cannot be read"), ValueError("no JSON"), KeyError("deployment")],
)
def test_a_state_that_cannot_be_read_stops_it_before_anything_is_removed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def state(backend: Backend) -> dict[str, Any]:
        if backend.stack == "test":
            return {}
        raise error

    monkeypatch.setattr(Backend, "state", state)
    assert command() == 1
    assert tags() == {"1.0", "1.1", "2.0"}
    assert "the state of" in capsys.readouterr().err


def test_a_stack_of_another_project_keeps_what_it_refers_to(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"test": {}, "organization/other/dev": {"outputs": {"image": "127.0.0.1/team/iris:1.0"}}}
    monkeypatch.setattr(Backend, "state", lambda backend: states[backend.stack])
    assert command() == 0
    assert tags() == {"1.0", "2.0"}


def test_the_backend_of_a_stack_that_shares_the_registry_is_read_as_well(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (project / "Pulumi.test.yaml").read_text()
    section = "  model-serving:ci: {order: 1, tier: production, backend: 'gs://elsewhere'}\n"
    (project / "Pulumi.live.yaml").write_text(text.replace("config:\n", f"config:\n{section}"))
    asked: list[str] = []

    def listed(backend: Backend) -> list[str]:
        asked.append(backend.environ["PULUMI_BACKEND_URL"])
        return []

    monkeypatch.setattr(Backend, "stacks", listed)
    assert command(applies=False) == 0
    assert asked == [f"file://{project}?metadata=skip", "gs://elsewhere"]


def test_a_stack_file_that_is_wrong_stops_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "Pulumi.broken.yaml").write_text("config: {model-serving:models: {iris: {replicas: 0}}}")
    assert command() == 1
    assert tags() == {"1.0", "1.1", "2.0"}
    assert "replicas" in capsys.readouterr().err


def test_what_a_stack_serves_and_would_go_back_to_stays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = rollback.Target(weights={"0.9": 100}, source="")
    monkeypatch.setattr(rollback, "find", lambda *_: target)
    released = catalog.read(stacks.PROJECT / "models")
    chosen = stacks.read("test")
    assert prune._served(released, {"test": chosen}) == {
        ("portal", portal.tag_of(chosen.images)): "stacks/Pulumi.test.yaml serves it",
        ("wine-lgbm", "0.9"): "a rollback of test needs it",
        ("wine-lgbm", "1.0"): "stacks/Pulumi.test.yaml serves it",
    }


def write_lock(project: Path, text: str) -> None:
    path = project / ".pulumi" / "locks" / "organization" / "model-serving" / "dev" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)


@pytest.mark.parametrize("host", [socket.gethostname(), "elsewhere"])
def test_nothing_is_removed_during_an_update(
    project: Path, update: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str], host: str
) -> None:
    lock = {"pid": update.pid, "username": "me", "hostname": host, "timestamp": "2026-11-23T23:34:22.123456789+00:00"}
    write_lock(project, json.dumps(lock))
    assert command() == 1
    assert tags() == {"1.0", "1.1", "2.0"}
    assert "Run this command again when the update has finished." in capsys.readouterr().err
    assert command(applies=False) == 0, "listing hurts nobody"


def test_nothing_is_removed_if_an_update_begins_meanwhile(
    project: Path, update: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = prune.decide

    def decide_slowly(*arguments: Any, **options: Any) -> list[prune.Fate]:
        lock = {"pid": update.pid, "username": "me", "hostname": "x", "timestamp": "2026-11-23T23:34:22+00:00"}
        write_lock(project, json.dumps(lock))
        return decide(*arguments, **options)

    monkeypatch.setattr(prune, "decide", decide_slowly)
    assert command() == 1
    assert tags() == {"1.0", "1.1", "2.0"}


def test_a_lock_that_cannot_be_read_is_taken_for_an_update(project: Path) -> None:
    write_lock(project, "{")
    assert command() == 1


def test_the_lock_of_a_killed_update_is_not_in_the_way(project: Path) -> None:
    lock = {
        "pid": 2**22 - 1,
        "username": "me",
        "hostname": socket.gethostname(),
        "timestamp": "2026-11-23T23:34:22+00:00",
    }
    write_lock(project, json.dumps(lock))
    assert command() == 0


def test_artifact_registry_is_listed_and_left_to_itself(
    project: Path, registry: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Registry
    monkeypatch.setattr(prune, "Registry", lambda _: real(registry))
    path = project / "Pulumi.test.yaml"
    path.write_text(path.read_text().replace(registry, "europe-west1-docker.pkg.dev/p/models"))
    assert command() == 0
    assert tags() == {"1.0", "1.1", "2.0"}
    assert "by its own cleanup policies" in capsys.readouterr().out


def test_what_was_released_is_known_from_the_folder_and_from_git() -> None:
    released = catalog.read(stacks.PROJECT / "models")
    assert "1.0" in prune._versions(released)["iris-dtc"]


def test_a_folder_with_any_name_in_the_history_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "PROJECT", tmp_path)
    for name in ("iris copy", "açaí", "iris"):
        file = tmp_path / "models" / name / "1.0" / "model-settings.json"
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    git = Git(folder=tmp_path, settings=(("user.name", "Somebody"), ("user.email", "somebody@example.com")))
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "as it came"]):
        git.must(*words)
    found = prune._versions(catalog.Catalog(by_name={}))
    assert found["iris"] == {"1.0"}
    assert len(found) == 3


def test_a_model_is_known_by_its_repository_in_the_registry() -> None:
    release = releases.release("Apple_RF_Model", "1.0")
    assert prune._versions(catalog.Catalog(by_name={release.name: (release,)}))[release.repository] == {"1.0"}


def test_a_table_has_a_row_for_each_image_in_the_order_of_versions() -> None:
    fates = [Fate(image=image, stays=True, why="") for image in reversed(IMAGES)]
    lines = prune.table(sorted(fates, key=prune._place)).splitlines()
    assert [line.split()[1] for line in lines] == ["VERSION", *VERSIONS, BASE]


@pytest.mark.parametrize(
    ("arguments", "told"), [(["--help"], "--apply"), (["--stack", "x", "--keep", "0"], "1 or more")]
)
def test_the_command_explains_itself(arguments: list[str], told: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "model_serving", "prune", *arguments], capture_output=True, text=True, check=False
    )
    assert told in shown.stdout + shown.stderr
