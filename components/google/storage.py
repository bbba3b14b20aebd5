"""Buckets: the DVC remote, and who may read and write the state of the stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.google.identity import APPLY, READING_DUTIES, TRAINING
from model_serving.stack.google import REVIEW, GcpSettings, StateSettings

SOFT_DELETE_SECONDS: Final = 7 * 24 * 60 * 60
"""Google's minimum besides 0. Without the block Google keeps whatever the bucket has."""


class Storage(ComponentResource):
    """The DVC remote: a bucket for training data and models, which *training* reads and writes.

    It deletes no objects: destroying the stack fails while the bucket has any. An existing bucket only gets the grants.
    *review* fetches the large files of releases from it, if the stack has reviews.
    ``members`` maps a duty to its IAM member.
    """

    def __init__(
        self, name: str, settings: GcpSettings, members: Mapping[str, Input[str]], opts: ResourceOptions | None = None
    ) -> None:
        super().__init__("model-serving:index:Storage", name, None, opts)
        bucket: Input[str] = settings.bucket if settings.storage.existing else self._bucket(name, settings).name
        for duty, kind, role in ((TRAINING, "writer", "objectUser"), (REVIEW, "reader", "objectViewer")):
            if duty in members:
                gcp.storage.BucketIAMMember(
                    f"{name}-{kind}-{duty}",
                    bucket=bucket,
                    role=f"roles/storage.{role}",
                    member=members[duty],
                    opts=ResourceOptions(parent=self),
                )
        self.url: Output[str] = Output.concat("gs://", bucket)
        self.register_outputs({"url": self.url})

    def _bucket(self, name: str, settings: GcpSettings) -> gcp.storage.Bucket:
        noncurrent_days = settings.storage.noncurrent_days
        return gcp.storage.Bucket(
            name,
            name=settings.bucket,
            project=settings.project,
            location=settings.storage.location or settings.region,
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            versioning={"enabled": True},
            soft_delete_policy={"retention_duration_seconds": SOFT_DELETE_SECONDS},
            deletion_policy="PREVENT" if settings.deletion_protection else "DELETE",
            lifecycle_rules=[
                # Objects are named by their content, so only noncurrent ones are certain to be unused.
                {"action": {"type": "Delete"}, "condition": {"days_since_noncurrent_time": noncurrent_days}},
                {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
            ],
            opts=ResourceOptions(parent=self),
        )


class StateAccess(ComponentResource):
    """Grants on the bucket and the key of this stack's state.

    It does not manage the bucket or the key: `make init-gcp` creates both before the first update, and they outlive
    the last. A preview takes no lock and writes nothing, so *plan* and *verify* only read; they must decrypt the
    stack's secrets.
    """

    def __init__(
        self, name: str, state: StateSettings, members: Mapping[str, Input[str]], opts: ResourceOptions | None = None
    ) -> None:
        super().__init__("model-serving:index:StateAccess", name, None, opts)
        self._state, self._members = state, members
        for duty in READING_DUTIES:
            self._grant(f"{name}-reader", duty, on_bucket="objectViewer", on_key="cryptoKeyDecrypter")
        self._grant(f"{name}-writer", APPLY, on_bucket="objectUser", on_key="cryptoKeyEncrypterDecrypter")
        self.register_outputs({})

    def _grant(self, name: str, duty: str, *, on_bucket: str, on_key: str) -> None:
        gcp.storage.BucketIAMMember(
            f"{name}-{duty}",
            bucket=self._state.bucket,
            role=f"roles/storage.{on_bucket}",
            member=self._members[duty],
            opts=ResourceOptions(parent=self),
        )
        gcp.kms.CryptoKeyIAMMember(
            f"{name}-{duty}",
            crypto_key_id=self._state.key,
            role=f"roles/cloudkms.{on_key}",
            member=self._members[duty],
            opts=ResourceOptions(parent=self),
        )
