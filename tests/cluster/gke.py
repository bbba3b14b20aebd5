"""What a GKE cluster brings along and the local one does not: the definitions of Google's own kinds.

They are Google's, with all of their rules, see local/tools/definitions.py. Nothing acts on these kinds here.
"""

from __future__ import annotations

from typing import Final

from local.tools.definitions import LINK
from tests.cluster.conftest import PROJECT, Project

DEFINITIONS: Final = (PROJECT / ".state" / LINK).resolve()
"""kubectl reads no folder through a link."""


def install_definitions(project: Project) -> None:
    if not DEFINITIONS.exists():
        raise FileNotFoundError(f"{DEFINITIONS}: run `make for-clusters`")
    project.run("kubectl", "apply", "--server-side", "--filename", str(DEFINITIONS))
    project.run("kubectl", "wait", "--for=condition=Established", "--timeout=30s", "--filename", str(DEFINITIONS))
