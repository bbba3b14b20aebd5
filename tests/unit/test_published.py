"""A released model never changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import pytest

from model_serving.images.builds import CONTENT_LABEL as LABEL
from model_serving.images.builds import AlreadyPublished, refuse_other_content
from tests.unit.conftest import serving

FOLDER = "models/iris-dtc/1.0"


class Registry(BaseHTTPRequestHandler):
    """Holds iris-dtc:1.0 as an index of one image; knows no other, and tells nobody about secret/model."""

    answers: ClassVar[dict[str, object]] = {
        "/v2/iris-dtc/manifests/1.0": {"manifests": [{"digest": "sha256:a"}]},
        "/v2/iris-dtc/manifests/sha256:a": {"config": {"digest": "sha256:b", "size": 1}, "layers": []},
        "/v2/iris-dtc/blobs/sha256:b": {"config": {"Labels": {LABEL: "old"}}},
        "/v2/plain/manifests/1.0": {"config": {"digest": "sha256:c", "size": 1}, "layers": []},
        "/v2/plain/blobs/sha256:c": {"config": {"Labels": None}},
    }

    def do_GET(self) -> None:
        if self.path.startswith("/v2/secret/"):
            self.send_error(401)
        elif self.path in self.answers:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(self.answers[self.path]).encode())
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


@pytest.fixture
def registry() -> Iterator[str]:
    with serving(Registry) as address:
        yield address


def test_other_content_under_a_published_version_is_refused(registry: str) -> None:
    with pytest.raises(AlreadyPublished, match=r"models/iris-dtc/1\.0 was changed(.|\n)*under a new version\."):
        refuse_other_content(f"{registry}/iris-dtc:1.0", "new", folder=FOLDER)


@pytest.mark.parametrize("image", ["iris-dtc:1.0", "iris-dtc:1.1", "secret/model:1.0", "plain:1.0"])
def test_the_same_content_and_a_free_version_pass(registry: str, image: str) -> None:
    refuse_other_content(f"{registry}/{image}", "old", folder=FOLDER)


def test_what_the_state_knows_is_not_asked_again() -> None:
    # Nothing listens there: asking would fail.
    refuse_other_content("127.0.0.1:1/iris-dtc:1.0", "old", folder=FOLDER, previous={LABEL: "old"})
    with pytest.raises(AlreadyPublished, match="release it under a new version"):
        refuse_other_content("127.0.0.1:1/iris-dtc:1.0", "new", folder=FOLDER, previous={LABEL: "old"})
