"""The command ``init-gcp``: creates the bucket for Pulumi's state and the key for its secrets in a Google project.

The program creates everything else; it cannot create these two, because it needs them to store its state.
"""

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

HELP: Final = "create the bucket and the key for a stack's state in a Google Cloud project"
APIS: Final = ("cloudkms", "cloudresourcemanager", "iam", "serviceusage", "storage")
"""Used by this command, or by the program to enable the others."""
KEY_RING: Final = "pulumi"
KEY: Final = "stack-secrets"
ROTATION_DAYS: Final = 90
LIFECYCLE: Final = Path(__file__).with_name("state_lifecycle.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--project", required=True, help="id of a project with billing; gcp.project in the stack file")
    parser.add_argument("--region", required=True, help="location of bucket and key; gcp.region in the stack file")
    parser.epilog = (
        "Example: python -m model_serving init-gcp --project my-models-dev --region europe-west1\n"
        "A second run only creates what is missing."
    )


def run(options: argparse.Namespace) -> int:
    gcloud = Gcloud(project=options.project)
    _check_login(gcloud)
    _enable_apis(gcloud)
    bucket, key = _bucket(gcloud, options.region), _key(gcloud, options.region)
    print(
        "\nDone. Add to the stack file, under model-serving:gcp:\n\n"
        f"    state:\n      bucket: {bucket}\n      key: {key}\n\n"
        "Then run, for STACK dev, staging or production:\n\n"
        f"    export PULUMI_BACKEND_URL=gs://{bucket}\n"
        f"    pulumi stack init STACK --secrets-provider=gcpkms://{key}\n"
        "    pulumi up --stack STACK\n"
    )
    return 0


@dataclass(frozen=True, kw_only=True)
class Gcloud:
    """Runs gcloud for a project, and prints each command first."""

    project: str

    def run(self, *arguments: str) -> str:
        """Runs a command and returns its output."""
        done = self._call(arguments)
        if done.returncode:
            raise Failure(
                f"gcloud failed: {done.stderr.strip()}\n"
                "  Everything created so far is kept, and a second run skips it.\n"
                "  Fix the error, then run the same command again."
            )
        return done.stdout

    def find(self, *arguments: str) -> Any:
        """Describes a resource; None if it does not exist."""
        done = self._call((*arguments, "--format=json"))
        if not done.returncode:
            return json.loads(done.stdout)
        if any(sign in done.stderr for sign in ("NOT_FOUND", "not found", "404")):
            return None
        raise Failure(
            f"gcloud failed: {done.stderr.strip()}\n"
            "  It is not known whether the resource exists, so it was not created.\n"
            f"  Ask for the role Owner of {self.project}, or let someone with that role run this command."
        )

    def _call(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = ["gcloud", *arguments, f"--project={self.project}", "--quiet"]
        print(f"$ {shlex.join(command)}", flush=True)
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def _check_login(gcloud: Gcloud) -> None:
    if shutil.which("gcloud") is None:
        raise Failure(
            "gcloud is not on PATH.\n"
            "  Nothing can be created in Google Cloud without it.\n"
            "  Install it (https://cloud.google.com/sdk/docs/install), then run this command again."
        )
    if not gcloud.run("auth", "list", "--filter=status:ACTIVE", "--format=value(account)").strip():
        raise Failure(
            "you are not logged in to gcloud.\n"
            "  Google would refuse every request.\n"
            "  Run `gcloud auth login`, and for Pulumi `gcloud auth application-default login`."
        )
    if gcloud.find("projects", "describe", gcloud.project) is None:
        raise Failure(
            f"the project {gcloud.project} does not exist.\n"
            "  Nothing was created.\n"
            f"  Run `gcloud projects create {gcloud.project}` and link a billing account, or pass another id."
        )


def _enable_apis(gcloud: Gcloud) -> None:
    enabled = gcloud.run("services", "list", "--enabled", "--format=value(config.name)").split()
    if missing := [name for api in APIS if (name := f"{api}.googleapis.com") not in enabled]:
        gcloud.run("services", "enable", *missing)


def _bucket(gcloud: Gcloud, region: str) -> str:
    name = f"{gcloud.project}-pulumi-state"
    url = f"gs://{name}"
    found = gcloud.find("storage", "buckets", "describe", url)
    if found is None:
        gcloud.run("storage", "buckets", "create", url, f"--location={region}", "--uniform-bucket-level-access")
        found = {}
    # Versions, so that lost or damaged state can be restored.
    wanted = {"versioning_enabled": True, "uniform_bucket_level_access": True, "public_access_prevention": "enforced"}
    if any(found.get(key) != value for key, value in wanted.items()):
        flags = ("--versioning", "--uniform-bucket-level-access", "--public-access-prevention")
        gcloud.run("storage", "buckets", "update", url, *flags, f"--lifecycle-file={LIFECYCLE}")
    return name


def _key(gcloud: Gcloud, region: str) -> str:
    ring = (f"--location={region}", f"--keyring={KEY_RING}")
    if gcloud.find("kms", "keyrings", "describe", KEY_RING, ring[0]) is None:
        gcloud.run("kms", "keyrings", "create", KEY_RING, ring[0])
    if gcloud.find("kms", "keys", "describe", KEY, *ring) is None:
        next_rotation = datetime.now(UTC) + timedelta(days=ROTATION_DAYS)
        rotation = (f"--rotation-period={ROTATION_DAYS}d", f"--next-rotation-time={next_rotation:%Y-%m-%dT%H:%M:%SZ}")
        gcloud.run("kms", "keys", "create", KEY, *ring, "--purpose=encryption", *rotation)
    return f"projects/{gcloud.project}/locations/{region}/keyRings/{KEY_RING}/cryptoKeys/{KEY}"
