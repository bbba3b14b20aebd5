"""What is built, what runs as it was published, and what is refused."""

from __future__ import annotations

import hashlib
import itertools
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest

from model_serving.catalog import Release
from model_serving.images import builds, runtimes
from model_serving.images.builds import CONTENT_LABEL, Plan, plan
from model_serving.images.registry import Image, Unusable
from model_serving.images.settings import ImageSettings
from tests.unit.conftest import serving

IMAGES = ImageSettings()
OTHER_BASE = ImageSettings(base="python:3.11.1-slim")


class WithContent(Release):
    """A release whose folder nobody reads."""

    content_hash = "f00d"


def release(version: str = "1.0", cls: type[Release] = WithContent) -> Release:
    folder = Path("models/iris-dtc")
    return cls(
        name="iris",
        version=version,
        folder=folder / version,
        implementation="mlserver_sklearn.SKLearnModel",
        lock=folder / "1.0" / "requirements.lock",
        request=None,
        response=None,
    )


RUNTIME = f"runtime:{runtimes.tag_of(release(), IMAGES)}"


def image(name: str = "iris:1.0", **labels: str) -> dict[str, Image]:
    repository, tag = name.split(":")
    return {name: Image(repository=repository, tag=tag, digest=f"sha256:{repository}", labels=labels)}


def published(content: str = "f00d") -> dict[str, Image]:
    return image(**{CONTENT_LABEL: content})


def remembered(images: ImageSettings = IMAGES, *releases: Release) -> list[str]:
    """What a stack remembers that has built everything itself."""
    return [*plan(releases or [release()], images, known=(), found={}).declared.values()]


@pytest.mark.parametrize(
    ("known", "in_registry", "same_recipe", "same_content"), [*itertools.product((True, False), repeat=4)]
)
def test_an_image_is_declared_reused_or_refused(
    known: bool, in_registry: bool, same_recipe: bool, same_content: bool
) -> None:
    remembers = remembered(IMAGES if same_recipe else OTHER_BASE) if known else []
    found = published("f00d" if same_content else "beef") if in_registry else {}
    made = plan([release()], IMAGES, known=remembers, found=found)
    expected = "declared"
    if in_registry and not same_content:
        expected = "refused"
    elif in_registry and not (known and same_recipe):
        expected = "reused"
    assert {
        "declared": "iris:1.0" in made.declared,
        "reused": made.reused == {"iris:1.0": "sha256:iris"},
        "refused": ["models/iris-dtc/1.0 was changed after" in str(each) for each in made.refused] == [True],
    } == {each: each == expected for each in ("declared", "reused", "refused")}


def test_what_is_in_the_registry_is_not_built() -> None:
    made = plan([release("1.0"), release("1.1")], IMAGES, known=(), found=published())
    assert made.reused == {"iris:1.0": "sha256:iris"}
    assert made.declared.keys() == {"iris:1.1", RUNTIME}


def test_a_runtime_is_run_as_it_was_published_and_needed_only_by_what_is_declared() -> None:
    made = plan([release()], IMAGES, known=(), found=image(RUNTIME))
    assert made.reused == {RUNTIME: "sha256:runtime"}
    assert made.declared.keys() == {"iris:1.0"}
    assert RUNTIME not in plan([release()], IMAGES, known=(), found=published() | image(RUNTIME)).reused
    assert RUNTIME in plan([release()], IMAGES, known=remembered(), found=image(RUNTIME)).declared


def test_an_image_without_a_hash_is_neither_run_nor_in_the_way() -> None:
    assert "iris:1.0" in plan([release()], IMAGES, known=(), found=image()).declared


def test_every_changed_release_is_told_at_once() -> None:
    found = published("beef") | {"iris:1.1": published("beef")["iris:1.0"]}
    made = plan([release("1.0"), release("1.1")], IMAGES, known=(), found=found)
    assert [str(each).partition(" ")[0] for each in made.refused] == ["models/iris-dtc/1.0", "models/iris-dtc/1.1"]


def test_a_stack_remembers_what_it_is_built_by_and_on() -> None:
    def recipe(dockerfile: str) -> str:
        content = f"{dockerfile}\n".encode() + Path(dockerfile).read_bytes() + RUNTIME.partition(":")[2].encode()
        return hashlib.sha256(content).hexdigest()[:12]

    # Live stacks have these names in their state.
    assert remembered() == [
        f"iris-1-0@{recipe('server/model.Dockerfile')}",
        f"{RUNTIME.replace(':', '-')}@{recipe('server/runtime.Dockerfile')}",
    ]


class Server(BaseHTTPRequestHandler):
    """A registry without any image."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


def test_only_what_is_not_remembered_is_looked_up() -> None:
    with serving(Server) as registry:
        assert builds.look_up([release()], IMAGES, known=remembered(), registry=registry) == {}
        assert Server.asked == []
        assert builds.look_up([release()], IMAGES, known=(), registry=registry) == {}
    assert sorted(Server.asked) == ["/v2/iris/manifests/1.0", f"/v2/{RUNTIME.replace(':', '/manifests/')}"]


class Page(Server):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Please log in</html>")


class Locked(Server):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        self.end_headers()


@pytest.mark.parametrize(("server", "told"), [(Page, "a login's page"), (Locked, "its token has run out")])
def test_a_registry_to_which_a_push_would_fail_is_told_before_anything_is_built(
    server: type[Server], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving(server) as registry:
        (tmp_path / "config.json").write_text(json.dumps({"auths": {registry: {"auth": "b2xkOm9sZA=="}}}))
        with pytest.raises(Unusable, match=told):
            builds.look_up([release()], IMAGES, known=(), registry=registry)


def test_a_registry_that_does_not_answer_has_nothing() -> None:
    assert builds.look_up([release()], IMAGES, known=(), registry="127.0.0.1:1") == {}
    assert plan([], IMAGES, known=(), found={}) == Plan()
