"""What the tests of faults ask of the iris model meanwhile."""

from __future__ import annotations

from typing import Final

from tests.cluster.conftest import ENDPOINT, Project, ask
from tests.cluster.load import Load
from tests.cluster.stack import MODEL
from tests.cluster.test_serving import IRIS

PATH: Final = f"/mlapi/v2/models/{MODEL}/infer"
PAUSE_MILLISECONDS: Final = 50


def load_of(project: Project) -> Load:
    """A gentle load, which leaves the cores to what is tested."""
    body = project.folder / "models" / MODEL / "1.0" / "request.json"
    return Load(ENDPOINT + PATH, body, connections=1, pause_milliseconds=PAUSE_MILLISECONDS)


def version() -> str:
    """Which version answers; one has to."""
    status, body = ask(PATH, IRIS)
    assert status == 200, body
    served: str = body["model_version"]
    return served
