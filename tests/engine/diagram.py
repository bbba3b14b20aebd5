"""Draws a stack from what the engine would make of it, as ``pulumi preview --json`` tells.

The picture is a Mermaid flowchart of the components. An arrow leads from a component to one that needs something of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

COMPONENT: Final = "model-serving:index:"
PLATFORM: Final = "Platform"
"""It only holds the others together; a box around everything says nothing."""


def states(preview: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """URN -> resource, as it would be after the update."""
    return {step["urn"]: step["newState"] for step in preview["steps"] if "newState" in step}


def component_of(urn: str, resources: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Kind of the component that a resource is part of, e.g. ``Registry``; None for those in no component."""
    while urn in resources:
        kind = resources[urn]["type"]
        if kind.startswith(COMPONENT) and (name := kind.removeprefix(COMPONENT)) != PLATFORM:
            return str(name)
        urn = resources[urn].get("parent", "")
    return None


def needs(resource: Mapping[str, Any], resources: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """URNs that a resource depends on, by its arguments, because it says so, or through its provider."""
    listed: Iterable[list[str] | None] = (resource.get("propertyDependencies") or {}).values()
    urns = {*(resource.get("dependencies") or []), *(urn for urns in listed for urn in urns or [])}
    if provider := resources.get(resource.get("provider", "").rpartition("::")[0]):
        urns |= needs(provider, resources)
    return urns


def arrows(resources: Mapping[str, Mapping[str, Any]]) -> set[tuple[str, str]]:
    found = set()
    for urn, resource in resources.items():
        user = component_of(urn, resources)
        for needed in needs(resource, resources):
            used = component_of(needed, resources)
            if user and used and user != used:
                found.add((used, user))
    return found


def reduced(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Without the arrows that follow from others."""
    after: dict[str, set[str]] = {}
    for used, user in arrows:
        after.setdefault(used, set()).add(user)

    def reached(start: str) -> set[str]:
        return {end for user in after.get(start, ()) for end in (user, *reached(user))}

    return {(used, user) for used, user in arrows if not any(user in reached(other) for other in after[used] - {user})}


def counts(resources: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Component -> how many resources it holds in all."""
    found: dict[str, int] = {}
    for urn, resource in resources.items():
        if resource.get("custom") and (name := component_of(urn, resources)):
            found[name] = found.get(name, 0) + 1
    return found


def flowchart(preview: Mapping[str, Any]) -> str:
    resources = states(preview)
    boxes = [f'    {name}["{name}<br/>{count}"]' for name, count in sorted(counts(resources).items())]
    lines = [f"    {used} --> {user}" for used, user in sorted(reduced(arrows(resources)))]
    return "\n".join(["flowchart TD", *boxes, *lines])
