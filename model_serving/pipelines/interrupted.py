"""Operations that a killed update left unfinished, and how the next update gets over them.

The state lists them as pending, and Pulumi 3.259.0 goes on with a warning. The right cure depends on the operation:

- An update, deletion or read may or may not have happened. Refreshing these resources corrects the state; without it, a
  return to the old version would find nothing to change and leave the new one half in place.
- A creation is repeated. Kubernetes accepts it even if the object exists: up to 4.28 the provider uses server-side
  apply, which overwrites. (From 4.29 on it fails with "already exists", unless its upsertExistingObjects is set.) An
  image is pushed again under its digest, which changes nothing.
- A creation in Google Cloud is repeated as well. If the resource exists, Google answers 409, and only a person can tell
  whether it is ours: the log then shows the command that imports it into the state.

Records of creations are removed after a successful update, and not earlier: until then they name possible leftovers.
"""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Self

REFRESHED: Final = "it is refreshed before anything else"
_REPEATABLE: Final = ("kubernetes:", "docker-build:")


class Interrupted(NamedTuple):
    """An operation with an unknown result, as in the state.

    Attributes:
        type: of the resource, e.g. ``gcp:storage/bucket:Bucket``.
        object: ID of a Kubernetes object, ``<namespace>/<name>``; empty for other resources.
    """

    raw: Mapping[str, Any]
    urn: str
    type: str
    object: str

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        resource = raw["resource"]
        metadata = resource.get("inputs", {}).get("metadata", {})
        is_object = resource["type"].startswith("kubernetes:") and metadata.get("name")
        parts = (metadata.get("namespace"), metadata["name"]) if is_object else ()
        return cls(raw, resource["urn"], resource["type"], "/".join(filter(None, parts)))

    def __str__(self) -> str:
        return f"{self.raw['type']} {self.type} {self.name}"

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]

    @property
    def is_creation(self) -> bool:
        return bool(self.raw["type"] == "creating")

    @property
    def creates_object(self) -> bool:
        """Whether it creates a Kubernetes object with a known name."""
        return self.is_creation and bool(self.object)

    @property
    def is_repeatable(self) -> bool:
        """Whether it can be created again if it exists."""
        return self.type.startswith(_REPEATABLE)

    @property
    def cure(self) -> str:
        """Its treatment by the next update, for people."""
        if not self.is_creation:
            return REFRESHED
        if self.is_repeatable:
            return "it is created again, which is safe if it exists"
        return "it is created again; if it exists, this fails and the log says what to do"

    @property
    def delete_command(self) -> str:
        """Command that deletes the Kubernetes object, if it exists."""
        api, kind = self.type.removeprefix("kubernetes:").split(":")
        group, _, version = api.rpartition("/")
        # Resources are named kind.version.group; the core group has no name.
        resource = kind.lower() if group == "core" else f"{kind.lower()}.{version}.{group}"
        namespace, _, name = self.object.rpartition("/")
        options = ["--namespace", namespace] if namespace else []
        return shlex.join(["kubectl", "delete", "--ignore-not-found", *options, resource, name])

    def import_command(self, stack: str) -> str:
        """Command that imports the resource into the state, with the word ID in place of its ID."""
        # The state's reference to a provider is URN::id.
        parent = self.raw["resource"].get("parent")
        provider = self.raw["resource"].get("provider", "").rpartition("::")[0]
        options = ["--parent", f"parent={parent}"] if parent else []
        options += ["--provider", f"provider={provider}"] if provider else []
        command = ["pulumi", "import", "--stack", stack, "--yes", "--protect=false", "--generate-code=false"]
        return shlex.join([*command, *options, self.type, self.name, "ID"])


def pending(state: Mapping[str, Any]) -> list[Interrupted]:
    """The pending operations of a state."""
    return [Interrupted.read(each) for each in state.get("pending_operations") or []]


def taken_in(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with each Kubernetes object that was being created added as a resource.

    Refresh these afterwards: objects that do not exist leave the state, and the next update deletes those that the
    program no longer has. `pulumi refresh --import-pending-creates` is meant for this, but Pulumi 3.259.0 drops them.
    """
    resources = [*state.get("resources", [])]
    known = {each["urn"] for each in resources}
    added = [
        {**each.raw["resource"], "id": each.object, "outputs": each.raw["resource"]["inputs"]}
        for each in pending(state)
        if each.creates_object and each.urn not in known
    ]
    kept = [each.raw for each in pending(state) if not each.creates_object]
    return {**state, "resources": resources + added, "pending_operations": kept}


def to_refresh(operations: Iterable[Interrupted]) -> list[str]:
    """URNs of the resources to refresh before the next update."""
    return sorted({each.urn for each in operations if not each.is_creation})


def orphans(operations: Iterable[Interrupted], state: Mapping[str, Any]) -> list[str]:
    """After an update: the Kubernetes objects that may exist although the program no longer has them."""
    known = {each["urn"] for each in state.get("resources", [])}
    return [
        f"a killed run may have created {each.name}, which nothing needs. To delete it: {each.delete_command}"
        for each in operations
        if each.creates_object and each.urn not in known
    ]


def left_behind(operations: Iterable[Interrupted], stack: str) -> list[str]:
    """After a failed update: how to import the resources that may have been created."""
    unsure = [each for each in operations if each.is_creation and not each.is_repeatable]
    told = "The killed run may have created {}. If it exists, run:"
    return [line for each in unsure for line in (told.format(each.name), each.import_command(stack))]
