"""The command ``adopt-pool``: takes up the workload identity pool that an earlier stack left in the Google project.

`pulumi destroy` leaves the pool and its providers, because Google reserves their IDs for 30 days if they are deleted.
The next update creates everything else and fails at the pool with 409. This command imports what is there into the
state, and restores what someone has deleted.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model_serving.pipelines import stacks
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.init_gcp import Gcloud
from model_serving.problems import Failure
from model_serving.stack.google import GcpSettings

HELP: Final = "take up the workload identity pool that an earlier stack left in the Google project"
IDENTITY: Final = "identity"
"""Name of the component in the program, and of its pool; the providers' names begin with it."""
OWNER: Final = ("model-serving:index:Identity", IDENTITY)
GOOGLE: Final = ("pulumi:providers:gcp", "google")
"""Type and name of the component, and of the provider of Google Cloud."""
POOL: Final = "gcp:iam/workloadIdentityPool:WorkloadIdentityPool"
POOL_PROVIDER: Final = "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider"
DELETED: Final = "DELETED"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A resource that may have outlived its stack.

    Attributes:
        name: in the program.
        identifier: by which Pulumi imports it.
        group: of gcloud's commands for its kind.
        words: that name it to these commands.
    """

    type: str
    name: str
    identifier: str
    group: tuple[str, ...]
    words: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Example: python -m model_serving adopt-pool --stack dev\n"
        "Run it after an update that failed with 409 at the pool, then run the update again."
    )
    parser.add_argument("--stack", required=True, help="stack whose gcp.identity has the pipelines to trust")


def run(options: argparse.Namespace) -> int:
    google = stacks.read(options.stack).gcp
    kept = [*_kept(google)] if google else []
    if google is None or not kept:
        raise Failure(
            f"the stack {options.stack} has no pipelines under model-serving:gcp.identity.\n"
            "  It has no workload identity pool, and nothing was changed.\n"
            "  Add gitlab or github there, or leave the pool as it is."
        )
    backend = Backend(stack=options.stack)
    resources = backend.state().get("resources") or []
    parent, provider = _urn(resources, *OWNER, options.stack), _urn(resources, *GOOGLE, options.stack)
    managed = {(each["type"], _name(each)) for each in resources}
    gcloud = Gcloud(project=google.project)
    found = [each for each in kept if (each.type, each.name) not in managed and _is_there(gcloud, each)]
    if not found:
        print(f"{options.stack}: nothing to take up. The next update creates what is missing.")
        return 0
    backend.adopt([(each.type, each.name, each.identifier) for each in found], parent=parent, provider=provider)
    print("\n".join(f"{options.stack}: took up {each.identifier}" for each in found))
    print(f"Now run `pulumi up --stack {options.stack}` again.")
    return 0


def _kept(google: GcpSettings) -> Iterator[Kept]:
    identity, pool = google.identity, google.identity.pool or google.name
    sites = [site for site in ("gitlab", "github") if getattr(identity, site)]
    identifier = f"projects/{google.project}/locations/global/workloadIdentityPools/{pool}"
    group = ("iam", "workload-identity-pools")
    if sites:
        yield Kept(type=POOL, name=IDENTITY, identifier=identifier, group=group, words=(pool, "--location=global"))
    for site in sites:
        yield Kept(
            type=POOL_PROVIDER,
            name=f"{IDENTITY}-{site}",
            identifier=f"{identifier}/providers/{site}",
            group=(*group, "providers"),
            words=(site, f"--workload-identity-pool={pool}", "--location=global"),
        )


def _urn(resources: Sequence[Mapping[str, Any]], kind: str, name: str, stack: str) -> str:
    for each in resources:
        if (each["type"], _name(each)) == (kind, name):
            return str(each["urn"])
    raise Failure(
        f"the state of {stack} has no {kind} {name}.\n"
        "  The pool would belong to no component, and the next update would create another one.\n"
        f"  Run `pulumi up --stack {stack}` first: it fails at the pool and creates the rest."
    )


def _name(resource: Mapping[str, Any]) -> str:
    return str(resource["urn"]).rpartition("::")[2]


def _is_there(gcloud: Gcloud, kept: Kept) -> bool:
    """Whether it exists; restores it if it was deleted."""
    found = gcloud.find(*kept.group, "describe", *kept.words)
    if found is not None and found.get("state") == DELETED:
        gcloud.run(*kept.group, "undelete", *kept.words)
    return found is not None
