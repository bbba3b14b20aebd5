"""Buckets: the DVC remote, and who may read and write the state of the stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, ResourceOptions

SOFT_DELETE_SECONDS: Final = 7 * 24 * 60 * 60
"""The least that Google takes besides 0; the block must be there, because leaving it out keeps whatever there is."""


@dataclass(frozen=True, kw_only=True)
class StorageArgs:
    """The DVC remote.

    Attributes:
        bucket: name, unique in all of Google.
        location: region or multi-region.
        noncurrent_days: for how long an overwritten or deleted object can be brought back.
        writers: short name -> IAM member that reads, writes and deletes objects.
        deletion_protection: whether Google's provider refuses to delete the bucket.
        exists: whether the bucket is there already; then only the grants are declared.
    """

    project: str
    bucket: str
    location: str
    noncurrent_days: int
    writers: Mapping[str, Input[str]]
    deletion_protection: bool = False
    exists: bool = False


class Storage(ComponentResource):
    """A bucket for data and models in training, and who may write to it.

    It deletes no object: destroying the stack fails as long as the bucket has any.
    """

    def __init__(self, name: str, args: StorageArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Storage", name, None, opts)
        bucket = Output.from_input(args.bucket) if args.exists else self._bucket(name, args).name
        self._grant_writers(name, args, bucket)
        self.url: Output[str] = Output.concat("gs://", bucket)
        self.register_outputs({"url": self.url})

    def _bucket(self, name: str, args: StorageArgs) -> gcp.storage.Bucket:
        return gcp.storage.Bucket(
            name,
            name=args.bucket,
            project=args.project,
            location=args.location,
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            versioning={"enabled": True},
            soft_delete_policy={"retention_duration_seconds": SOFT_DELETE_SECONDS},
            deletion_policy="PREVENT" if args.deletion_protection else "DELETE",
            lifecycle_rules=[
                # Objects are named by their content, so only a noncurrent one is certainly not referred to.
                {"action": {"type": "Delete"}, "condition": {"days_since_noncurrent_time": args.noncurrent_days}},
                {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
            ],
            opts=ResourceOptions(parent=self),
        )

    def _grant_writers(self, name: str, args: StorageArgs, bucket: Input[str]) -> None:
        for key, member in args.writers.items():
            gcp.storage.BucketIAMMember(
                f"{name}-writer-{key}",
                bucket=bucket,
                role="roles/storage.objectUser",
                member=member,
                opts=ResourceOptions(parent=self),
            )


@dataclass(frozen=True, kw_only=True)
class StateAccessArgs:
    """Who may use the state of this stack.

    Attributes:
        bucket: bucket of the state.
        key: Cloud KMS key of the secrets in it, ``projects/…/cryptoKeys/…``.
        readers: short name -> IAM member that previews.
        writers: short name -> IAM member that updates.
    """

    bucket: str
    key: str
    readers: Mapping[str, Input[str]]
    writers: Mapping[str, Input[str]]


class StateAccess(ComponentResource):
    """Grants on the bucket and the key that hold this stack's state.

    It leaves both alone: they are there before the first update, made by `make init-gcp`, and outlive the last.
    A preview takes no lock and writes nothing, so a reader is enough for it; it must decrypt the stack's secrets.
    """

    def __init__(self, name: str, args: StateAccessArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:StateAccess", name, None, opts)
        for key, member in args.readers.items():
            self._grant(
                f"{name}-reader-{key}",
                args,
                member,
                on_bucket="roles/storage.objectViewer",
                on_key="roles/cloudkms.cryptoKeyDecrypter",
            )
        for key, member in args.writers.items():
            self._grant(
                f"{name}-writer-{key}",
                args,
                member,
                on_bucket="roles/storage.objectUser",
                on_key="roles/cloudkms.cryptoKeyEncrypterDecrypter",
            )
        self.register_outputs({})

    def _grant(self, name: str, args: StateAccessArgs, member: Input[str], *, on_bucket: str, on_key: str) -> None:
        gcp.storage.BucketIAMMember(
            name, bucket=args.bucket, role=on_bucket, member=member, opts=ResourceOptions(parent=self)
        )
        gcp.kms.CryptoKeyIAMMember(
            name, crypto_key_id=args.key, role=on_key, member=member, opts=ResourceOptions(parent=self)
        )
