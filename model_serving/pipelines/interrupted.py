"""Operations that a killed update left unfinished, and how the next update gets over them.

The state lists them as pending, and Pulumi 3.259.0 goes on with a warning. The right cure depends on the operation:

- An update, deletion or read may or may not have happened. Refreshing these resources corrects the state; without it, a
  return to the old version would find nothing to change and leave the new one half in place.
- A Kubernetes object that was being created is added to the state and refreshed: if it does not exist, it leaves the
  state again; if it does, the next update uses it, or deletes it if the program no longer has it.
- An image is built and pushed again under its digest, which changes nothing.
- A creation in Google Cloud is repeated as well. If the resource exists, Google answers 409, and only a person can tell
  whether it is ours: the log then shows the command that imports it into the state. Its record is removed after a
  successful update, and not earlier: until then it names a possible leftover.
"""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Self

from model_serving.pipelines.backend import Backend

_IMAGE: Final = "docker-build:"


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
    def needs_person(self) -> bool:
        """Whether only a person can tell what to do if it exists."""
        return self.is_creation and not self.object and not self.type.startswith(_IMAGE)

    @property
    def cure(self) -> str:
        """Its treatment before or by the next update, for people."""
        if self.needs_person:
            return "it is created again; if it exists, this fails and the log says what to do"
        if self.is_creation and not self.object:
            return "it is built again"
        return "it is refreshed before anything else"

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


def repair(backend: Backend) -> list[str]:
    """Adds objects that were being created to the state; returns the URNs of all resources to refresh after it.

    The caller makes sure that no update is running.
    """
    left = pending(backend.state())
    if any(each.is_creation and not each.needs_person for each in left):
        backend.change_state(taken_in)
    return sorted({each.urn for each in left if not each.is_creation or each.object})


def taken_in(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with each Kubernetes object that was being created as a resource, and without records of images.

    `pulumi refresh --import-pending-creates` is meant for this, but Pulumi 3.259.0 drops them.
    """
    resources = [*state.get("resources", [])]
    known = {each["urn"] for each in resources}
    creations = [each for each in pending(state) if each.is_creation]
    added = [
        {**each.raw["resource"], "id": each.object, "outputs": each.raw["resource"]["inputs"]}
        for each in creations
        if each.object and each.urn not in known
    ]
    kept = [each.raw for each in pending(state) if not each.is_creation or each.needs_person]
    return {**state, "resources": resources + added, "pending_operations": kept}


def left_behind(operations: Iterable[Interrupted], stack: str) -> list[str]:
    """After a failed update: how to import the resources that may have been created."""
    unsure = [each for each in operations if each.needs_person]
    told = "The killed run may have created {}. If it exists, run:"
    return [line for each in unsure for line in (told.format(each.name), each.import_command(stack))]
