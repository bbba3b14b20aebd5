"""What a killed update was in the middle of, and how the next one gets over it.

The state keeps such an operation as pending, and Pulumi 3.259.0 goes on with a warning. What is right depends on it:

- An update, a deletion or a read may have happened or not. Refreshing just those resources makes the state true again;
  without it, a return to the old version would find nothing to change and leave the new one half in place.
- A creation is tried again. Kubernetes takes it, whether the object is there or not: up to 4.28 the provider applies on
  the server's side, which overwrites. (From 4.29 on it answers that the object exists, unless the provider's
  upsertExistingObjects is set.) An image is pushed again under its digest, which changes nothing.
- A creation in Google Cloud is tried again as well. If the thing had been made, Google answers 409, and only a person
  can tell whether it is ours: the log then has the command that takes it into the state.

Records of creations go when an update has succeeded, not before: until then they say what may be lying around.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

CREATING: Final = "creating"
_TAKEN_AGAIN: Final = ("kubernetes:", "docker-build:")


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """One operation that nobody knows the end of.

    Attributes:
        operation: creating, updating, deleting, reading or importing.
        urn: the resource's.
        type: its token, e.g. ``gcp:storage/bucket:Bucket``.
        parent: URN of its parent.
        provider: URN of its provider.
        object: namespace and name of the Kubernetes object that it is, which is its ID; empty if it is none.
    """

    operation: str
    urn: str
    type: str
    parent: str
    provider: str
    object: str = ""

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]

    @property
    def is_creation(self) -> bool:
        return self.operation == CREATING

    def __str__(self) -> str:
        return f"{self.operation} {self.type} {self.name}"

    @property
    def delete_command(self) -> str:
        """What removes the Kubernetes object, if it is there."""
        api, kind = self.type.removeprefix("kubernetes:").split(":")
        group, _, version = api.rpartition("/")
        # A resource is named kind.version.group; the core group has no name.
        resource = kind.lower() if group == "core" else f"{kind.lower()}.{version}.{group}"
        namespace, _, name = self.object.rpartition("/")
        options = ["--namespace", namespace] if namespace else []
        return shlex.join(["kubectl", "delete", "--ignore-not-found", *options, resource, name])

    def import_command(self, stack: str) -> str:
        """What takes the resource into the state if it was made; ID is for a person to write."""
        names = [each for each in (("parent", self.parent), ("provider", self.provider)) if each[1]]
        options = [word for kind, urn in names for word in (f"--{kind}", f"{kind}={urn}")]
        command = ["pulumi", "import", "--stack", stack, "--yes", "--protect=false", "--generate-code=false"]
        return shlex.join([*command, *options, self.type, self.name, "ID"])


def pending(state: Mapping[str, Any]) -> list[Interrupted]:
    """The operations that a state has as pending."""
    return [
        Interrupted(
            operation=each["type"],
            urn=each["resource"]["urn"],
            type=each["resource"]["type"],
            parent=each["resource"].get("parent", ""),
            # The reference is URN::id.
            provider=each["resource"].get("provider", "").rpartition("::")[0],
            object=_object(each["resource"]),
        )
        for each in state.get("pending_operations") or []
    ]


def _object(resource: Mapping[str, Any]) -> str:
    metadata = resource.get("inputs", {}).get("metadata", {})
    if not resource["type"].startswith("kubernetes:") or not metadata.get("name"):
        return ""
    return "/".join(filter(None, [metadata.get("namespace"), metadata["name"]]))


def taken_in(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """A state in which each Kubernetes object that was being created counts as made.

    It has to be refreshed then: what was not made leaves it, and what was made goes if the program no longer has it.
    `pulumi refresh --import-pending-creates`, which is meant for this, drops them with Pulumi 3.259.0.
    """
    resources = [*deployment.get("resources", [])]
    known = {each["urn"] for each in resources}
    kept = []
    for operation, raw in zip(pending(deployment), deployment.get("pending_operations") or [], strict=True):
        if not (operation.is_creation and operation.object):
            kept.append(raw)
        elif operation.urn not in known:
            resources.append({**raw["resource"], "id": operation.object, "outputs": raw["resource"]["inputs"]})
    return {**deployment, "resources": resources, "pending_operations": kept}


def to_refresh(operations: Iterable[Interrupted]) -> list[str]:
    """URNs of the resources that have to be looked at before the next update."""
    return sorted({each.urn for each in operations if not each.is_creation})


def explain(operations: Iterable[Interrupted]) -> list[str]:
    """What will be done about each, a line each."""
    lines = []
    for each in operations:
        if not each.is_creation:
            cure = "it is looked at before anything else"
        elif each.type.startswith(_TAKEN_AGAIN):
            cure = "it is created again, which does no harm if it is there"
        else:
            cure = "it is created again; if it is there already, this fails and says what to do"
        lines.append(f"{each}: {cure}")
    return lines


def orphans(operations: Iterable[Interrupted], deployment: Mapping[str, Any]) -> list[str]:
    """After an update: the Kubernetes objects that may have been made and that the program no longer has."""
    known = {each["urn"] for each in deployment.get("resources", [])}
    return [
        f"{each.name} may have been made by a run that was killed, and nothing needs it: {each.delete_command}"
        for each in operations
        if each.is_creation and each.object and each.urn not in known
    ]


def left_behind(operations: Iterable[Interrupted], stack: str) -> list[str]:
    """After a failed update: for each creation whose thing may exist, what to type."""
    lines = []
    for each in operations:
        if each.is_creation and not each.type.startswith(_TAKEN_AGAIN):
            lines += [f"{each.name} may have been made by the killed run. If it is there:", each.import_command(stack)]
    return lines
