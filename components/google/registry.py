"""The registry: where images are kept, and who may read and write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, ResourceOptions

DAY_SECONDS: Final = 24 * 60 * 60


@dataclass(frozen=True, kw_only=True)
class RegistryArgs:
    """A repository of Artifact Registry.

    Attributes:
        location: region.
        repository: its id.
        keep_versions: newest images of each model that stay, tag or not.
        untagged_days: age at which an image without a tag goes.
        scanning: whether each image is looked through for known vulnerabilities.
        readers: short name -> IAM member that pulls.
        writers: short name -> IAM member that pushes; it cannot delete.
        deletion_protection: whether Google's provider refuses to delete the repository.
        exists: whether the repository is there already; then only the grants are declared.
    """

    project: str
    location: str
    repository: str
    keep_versions: int
    untagged_days: int
    scanning: bool
    readers: Mapping[str, Input[str]]
    writers: Mapping[str, Input[str]]
    deletion_protection: bool = False
    exists: bool = False


class Registry(ComponentResource):
    """A Docker repository whose tags never move, and who may use it.

    What is deployed is always there: a released image has its version as its tag, a tag cannot be taken away, and
    cleanup deletes images without a tag alone.
    """

    def __init__(self, name: str, args: RegistryArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Registry", name, None, opts)
        repository: Input[str] = args.repository if args.exists else self._repository(name, args).repository_id
        # Through the repository, so that nothing is pushed before it exists.
        self.url: Output[str] = Output.concat(f"{args.location}-docker.pkg.dev/{args.project}/", repository)
        for key, member in args.readers.items():
            self._grant(f"{name}-reader-{key}", args, repository, member=member, role="roles/artifactregistry.reader")
        for key, member in args.writers.items():
            self._grant(f"{name}-writer-{key}", args, repository, member=member, role="roles/artifactregistry.writer")
        self.register_outputs({"url": self.url})

    def _repository(self, name: str, args: RegistryArgs) -> gcp.artifactregistry.Repository:
        return gcp.artifactregistry.Repository(
            name,
            project=args.project,
            location=args.location,
            repository_id=args.repository,
            format="DOCKER",
            docker_config={"immutable_tags": True},
            vulnerability_scanning_config={"enablement_config": "INHERITED" if args.scanning else "DISABLED"},
            cleanup_policy_dry_run=False,
            deletion_policy="PREVENT" if args.deletion_protection else "DELETE",
            # Keeping wins over deleting, and keeping alone would delete nothing.
            cleanup_policies=[
                {
                    "id": "keep-newest",
                    "action": "KEEP",
                    "most_recent_versions": {"keep_count": args.keep_versions},
                },
                {
                    "id": "delete-untagged",
                    "action": "DELETE",
                    "condition": {"tag_state": "UNTAGGED", "older_than": f"{args.untagged_days * DAY_SECONDS}s"},
                },
            ],
            opts=ResourceOptions(parent=self),
        )

    def _grant(self, name: str, args: RegistryArgs, repository: Input[str], *, member: Input[str], role: str) -> None:
        gcp.artifactregistry.RepositoryIamMember(
            name,
            project=args.project,
            location=args.location,
            repository=repository,
            role=role,
            member=member,
            opts=ResourceOptions(parent=self),
        )
