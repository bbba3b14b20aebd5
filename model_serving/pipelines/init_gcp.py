"""Makes what must be in a Google Cloud project before the first ``pulumi up``: a home for state and its secrets' key.

Everything else is the program's. These two cannot be, because the program needs them to remember anything at all.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from model_serving.problems import Failure

NAME: Final = "init-gcp"
HELP: Final = "make the bucket and the key in a Google Cloud project that a stack's state needs"
APIS: Final = ("cloudkms", "cloudresourcemanager", "iam", "serviceusage", "storage")
"""What this command uses, and what the program needs to enable the rest by itself."""
KEY_RING: Final = "pulumi"
KEY: Final = "stack-secrets"
ROTATION_DAYS: Final = 90
LIFECYCLE: Final = Path(__file__).with_name("state_lifecycle.json")


class InitError(Failure):
    """It cannot go on; the message ends with what to type."""


@dataclass(frozen=True, kw_only=True)
class Gcloud:
    """gcloud, which says what it does before it does it."""

    project: str

    def run(self, *arguments: str) -> str:
        """Runs a command.

        Raises:
            InitError: if it fails.
        """
        done = self._call(arguments)
        if done.returncode:
            raise InitError(
                f"gcloud failed: {done.stderr.strip()}\n"
                "  What was made before it stays, and is found when this is run again.\n"
                "  Cure what it says, then run the same command again."
            )
        return done.stdout

    def find(self, *arguments: str) -> Any:
        """Describes something; None if it is not there.

        Raises:
            InitError: if Google says anything else than that it is not there.
        """
        done = self._call((*arguments, "--format=json"))
        if not done.returncode:
            return json.loads(done.stdout)
        if any(sign in done.stderr for sign in ("NOT_FOUND", "not found", "404")):
            return None
        raise InitError(
            f"gcloud failed: {done.stderr.strip()}\n"
            "  Whether it is there could not be seen, and nothing was made.\n"
            f"  Ask for the role Owner of {self.project}, or have somebody run this who has it."
        )

    def _call(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = ["gcloud", *arguments, f"--project={self.project}", "--quiet"]
        print(f"$ {shlex.join(command)}", flush=True)
        return subprocess.run(command, capture_output=True, text=True, check=False)


def init(*, project: str, region: str) -> str:
    """Makes what is missing.

    Args:
        project: id of a project that exists and has billing.
        region: where state and key are.

    Returns:
        What to do next.

    Raises:
        InitError: if it cannot go on.
    """
    gcloud = Gcloud(project=project)
    _check_login(gcloud)
    _enable_apis(gcloud)
    bucket = _bucket(gcloud, region)
    key = _key(gcloud, region)
    return (
        "Done. In the stack file, under model-serving:gcp:\n\n"
        f"    state:\n      bucket: {bucket}\n      key: {key}\n\n"
        "Then, with STACK one of dev, staging and production:\n\n"
        f"    export PULUMI_BACKEND_URL=gs://{bucket}\n"
        f"    pulumi stack init STACK --secrets-provider=gcpkms://{key}\n"
        "    pulumi up --stack STACK\n"
    )


def _check_login(gcloud: Gcloud) -> None:
    if shutil.which("gcloud") is None:
        raise InitError(
            "gcloud is not on PATH.\n"
            "  Nothing can be made in Google Cloud without it.\n"
            "  Install it, see https://cloud.google.com/sdk/docs/install, then run this again."
        )
    if not gcloud.run("auth", "list", "--filter=status:ACTIVE", "--format=value(account)").strip():
        raise InitError(
            "nobody is logged in to gcloud.\n"
            "  Google would refuse everything.\n"
            "  Run `gcloud auth login`, and for Pulumi `gcloud auth application-default login`."
        )
    if gcloud.find("projects", "describe", gcloud.project) is None:
        raise InitError(
            f"the project {gcloud.project} does not exist.\n"
            "  There is nothing to make anything in.\n"
            f"  Run `gcloud projects create {gcloud.project}` and link a billing account, or write another id."
        )


def _enable_apis(gcloud: Gcloud) -> None:
    enabled = gcloud.run("services", "list", "--enabled", "--format=value(config.name)").split()
    missing = [name for api in APIS if (name := f"{api}.googleapis.com") not in enabled]
    if missing:
        gcloud.run("services", "enable", *missing)


def _bucket(gcloud: Gcloud, region: str) -> str:
    name = f"{gcloud.project}-pulumi-state"
    url = f"gs://{name}"
    found = gcloud.find("storage", "buckets", "describe", url)
    if found is None:
        gcloud.run("storage", "buckets", "create", url, f"--location={region}", "--uniform-bucket-level-access")
        found = {}
    # Versions, so that a state that was lost or damaged can be had back.
    wanted = {"versioning_enabled": True, "uniform_bucket_level_access": True, "public_access_prevention": "enforced"}
    if any(found.get(key) != value for key, value in wanted.items()):
        gcloud.run(
            "storage",
            "buckets",
            "update",
            url,
            "--versioning",
            "--uniform-bucket-level-access",
            "--public-access-prevention",
            f"--lifecycle-file={LIFECYCLE}",
        )
    return name


def _key(gcloud: Gcloud, region: str) -> str:
    ring = (f"--location={region}", f"--keyring={KEY_RING}")
    if gcloud.find("kms", "keyrings", "describe", KEY_RING, ring[0]) is None:
        gcloud.run("kms", "keyrings", "create", KEY_RING, ring[0])
    if gcloud.find("kms", "keys", "describe", KEY, *ring) is None:
        next_rotation = datetime.now(UTC) + timedelta(days=ROTATION_DAYS)
        gcloud.run(
            "kms",
            "keys",
            "create",
            KEY,
            *ring,
            "--purpose=encryption",
            f"--rotation-period={ROTATION_DAYS}d",
            f"--next-rotation-time={next_rotation:%Y-%m-%dT%H:%M:%SZ}",
        )
    return f"projects/{gcloud.project}/locations/{region}/keyRings/{KEY_RING}/cryptoKeys/{KEY}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--project", required=True, help="id of a project with billing; gcp.project in the stack file")
    parser.add_argument("--region", required=True, help="where the state is kept; gcp.region in the stack file")
    parser.epilog = (
        "Example: python -m model_serving init-gcp --project my-models-dev --region europe-west1\n"
        "May be run any number of times."
    )


def run(options: argparse.Namespace) -> int:
    print(f"\n{init(project=options.project, region=options.region)}")
    return 0
