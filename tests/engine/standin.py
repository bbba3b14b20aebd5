"""The program behind each ``pulumi-resource-…`` of these tests: ``python -m tests.engine.standin gcp``.

Environment: STANDIN_STATE, folder of the files that stand for the clouds; STANDIN_FAULTS, file that says what fails;
STANDIN_CLUSTER_DNS_ENDPOINT, where a made cluster really is.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.engine import protocol

if TYPE_CHECKING:
    from tests.engine.provider import Provider


def provider(package: str) -> type[Provider]:
    # Each imports only what it needs: the engine waits for its start.
    if package == "gcp":
        from tests.engine.gcp_standin import Google  # noqa: PLC0415

        return Google
    if package == "gitlab":
        from tests.engine.gitlab_standin import GitLab  # noqa: PLC0415

        return GitLab
    from tests.engine.others_standin import DockerBuild, Kubernetes  # noqa: PLC0415

    return {"kubernetes": Kubernetes, "docker-build": DockerBuild}[package]


if __name__ == "__main__":
    protocol.without_sdk()
    from tests.engine.provider import serve

    serve(provider(sys.argv[1]).of(os.environ))
