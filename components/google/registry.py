"""The registry: where images are kept, and who may push and pull them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.google.identity import APPLY, NODES
from model_serving.stack.google import GcpSettings

DAY_SECONDS: Final = 24 * 60 * 60
GRANTS: Final[Mapping[str, str]] = {NODES: "reader", APPLY: "writer"}
"""Duty -> its role on the repository. Nodes pull images. Only *apply* pushes them; it cannot delete any."""


class Registry(ComponentResource):
    """A Docker repository whose tags never move, and the grants on it.

    Deployed images are always there: a released image has its version as its tag, tags cannot be removed, and cleanup
    only deletes untagged images. An existing repository only gets the grants. ``members``: duty -> IAM member.
    """

    def __init__(
        self, name: str, settings: GcpSettings, members: Mapping[str, Input[str]], opts: ResourceOptions | None = None
    ) -> None:
        super().__init__("model-serving:index:Registry", name, None, opts)
        repository: Input[str] = settings.registry.existing or self._repository(name, settings).repository_id
        # Through the repository, so that nothing is pushed before it exists.
        self.url: Output[str] = Output.concat(f"{settings.region}-docker.pkg.dev/{settings.project}/", repository)
        for duty, role in GRANTS.items():
            gcp.artifactregistry.RepositoryIamMember(
                f"{name}-{role}-{duty}",
                project=settings.project,
                location=settings.region,
                repository=repository,
                role=f"roles/artifactregistry.{role}",
                member=members[duty],
                opts=ResourceOptions(parent=self),
            )
        self.register_outputs({"url": self.url})

    def _repository(self, name: str, settings: GcpSettings) -> gcp.artifactregistry.Repository:
        wanted = settings.registry
        return gcp.artifactregistry.Repository(
            name,
            project=settings.project,
            location=settings.region,
            repository_id=settings.name,
            format="DOCKER",
            docker_config={"immutable_tags": True},
            vulnerability_scanning_config={"enablement_config": "INHERITED" if wanted.scanning else "DISABLED"},
            cleanup_policy_dry_run=False,
            deletion_policy="PREVENT" if settings.deletion_protection else "DELETE",
            # KEEP wins over DELETE; on its own it would delete nothing.
            cleanup_policies=[
                {
                    "id": "keep-newest",
                    "action": "KEEP",
                    "most_recent_versions": {"keep_count": wanted.keep_versions},
                },
                {
                    "id": "delete-untagged",
                    "action": "DELETE",
                    "condition": {"tag_state": "UNTAGGED", "older_than": f"{wanted.untagged_days * DAY_SECONDS}s"},
                },
            ],
            opts=ResourceOptions(parent=self),
        )
