"""What a stack serves now, read from its state: right also after an update that failed half-way.

The outputs of a stack are what its program said, be it that an update failed before it was so. The routes in the state
are written one by one as they are changed, so they tell where the traffic goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_serving.pipelines import show, traffic

NOTHING: Final = "Nothing is live: no route to a model has been made."
_PATH: Final = "/mlapi/v2/models/"
"""As in components/route.py, which is not imported here because Pulumi's SDK comes with it."""
_STACK: Final = "pulumi:pulumi:Stack"


def models(state: Mapping[str, Any]) -> dict[str, Any]:
    """Models, their live versions and weights, in the form of the stack's output ``models``.

    Args:
        state: the deployment as `Backend.state` gives it.
    """
    routes = [
        each["outputs"]
        for each in state.get("resources") or []
        if traffic.HTTP_ROUTE.fullmatch(each["type"]) and "outputs" in each and not each.get("delete")
    ]
    endpoint = _outputs(state).get("endpoint", "")
    return {
        model: {
            "url": f"{endpoint}{_PATH}{model}",
            "versions": {share.version: {"weight": f"{share.percent:g}"} for share in shares},
        }
        for model, shares in sorted(traffic.shares(routes).items())
    }


def report(state: Mapping[str, Any]) -> str:
    """The table of `model_serving show` for a state; with a remark if the stack's outputs say otherwise."""
    live = models(state)
    if not live:
        return NOTHING
    told = _outputs(state).get("models")
    # A mapping, unless it is secret and its ciphertext is here.
    if not isinstance(told, Mapping) or _weights(told) == _weights(live):
        return show.table(live)
    return f"{show.table(live)}\n`pulumi stack output` says otherwise: not all of it was done. The routes say this."


def stack_urn(state: Mapping[str, Any]) -> str:
    """URN of the stack itself, the root of all resources; empty before the first update."""
    return next((each["urn"] for each in state.get("resources") or [] if each["type"] == _STACK), "")


def _weights(models: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {
        name: {version: float(live["weight"]) for version, live in model["versions"].items()}
        for name, model in models.items()
        if "versions" in model
    }


def _outputs(state: Mapping[str, Any]) -> dict[str, Any]:
    for each in state.get("resources") or []:
        if each["type"] == _STACK:
            outputs: dict[str, Any] = each.get("outputs", {})
            return outputs
    return {}
