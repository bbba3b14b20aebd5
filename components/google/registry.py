"""The registry: where images are kept, and who may push and pull them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.google.identity import APPLY, NODES
from model_serving.stack.google import REVIEW, GcpSettings

DAY_SECONDS: Final = 24 * 60 * 60
GRANTS: Final[Mapping[str, str]] = {NODES: "reader", APPLY: "writer"}
"""Duty -> its role on the repository. Nodes pull images. Only *apply* pushes them; it cannot delete any."""
REVIEW_DAYS: Final = 60
"""After which an image of reviews goes: they last 30 at most, and the next push may still use it."""


class Registry(ComponentResource):
    """A Docker repository whose tags never move, and the grants on it.

    Deployed images are always there: a released image has its version as its tag, tags cannot be removed, and cleanup
    only deletes untagged images. An existing repository only gets the grants. ``members``: duty -> IAM member.

    A stack with reviews has a second repository for their images: their account can overwrite no released one.
    """

    def __init__(
        self, name: str, settings: GcpSettings, members: Mapping[str, Input[str]], opts: ResourceOptions | None = None
    ) -> None:
        super().__init__("model-serving:index:Registry", name, None, opts)
        repository: Input[str] = settings.registry.existing or self._repository(name, settings).repository_id
        # Through the repository, so that nothing is pushed before it exists.
        self.url: Output[str] = Output.concat(f"{settings.region}-docker.pkg.dev/{settings.project}/", repository)
        self.admitted: list[Input[str]] = [self.url]
        """URLs of the repositories whose images may run in the cluster."""
        self._grant(name, settings, repository, GRANTS, members)
        if REVIEW in members:
            # Runtimes that are there are built upon.
            self._grant(name, settings, repository, {REVIEW: "reader"}, members)
            of_reviews = self._repository_of_reviews(f"{name}-{REVIEW}", settings).repository_id
            self._grant(f"{name}-{REVIEW}", settings, of_reviews, {NODES: "reader", REVIEW: "writer"}, members)
            self.admitted.append(settings.review_registry)
        self.register_outputs({"url": self.url})

    def _grant(
        self,
        name: str,
        settings: GcpSettings,
        repository: Input[str],
        grants: Mapping[str, str],
        members: Mapping[str, Input[str]],
    ) -> None:
        for duty, role in grants.items():
            gcp.artifactregistry.RepositoryIamMember(
                f"{name}-{role}-{duty}",
                project=settings.project,
                location=settings.region,
                repository=repository,
                role=f"roles/artifactregistry.{role}",
                member=members[duty],
                opts=ResourceOptions(parent=self),
            )

    def _repository_of_reviews(self, name: str, settings: GcpSettings) -> gcp.artifactregistry.Repository:
        return gcp.artifactregistry.Repository(
            name,
            project=settings.project,
            location=settings.region,
            repository_id=settings.review_registry.rpartition("/")[2],
            format="DOCKER",
            # Scanned once they are released.
            vulnerability_scanning_config={"enablement_config": "DISABLED"},
            cleanup_policy_dry_run=False,
            cleanup_policies=[
                {
                    "id": "delete-old",
                    "action": "DELETE",
                    "condition": {"tag_state": "ANY", "older_than": f"{REVIEW_DAYS * DAY_SECONDS}s"},
                }
            ],
            opts=ResourceOptions(parent=self),
        )

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
