"""The models that a stack serves according to its state, which is right even after an incomplete update.

A stack's outputs show what its program intended, even if an update failed before. The routes in the state are updated
one by one, so they show the actual traffic.
"""

from collections.abc import Mapping
from typing import Any, Final

from model_serving.pipelines import show, traffic

NOTHING: Final = "Nothing is live: there is no route to a model."
_PATH: Final = "/mlapi/v2/models/"
"""As in components/serving/route.py, which is not imported because it depends on Pulumi's SDK."""


def _models(state: Mapping[str, Any]) -> dict[str, Any]:
    """Models, their live versions and weights, in the form of the stack's output ``models``."""
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
    """The table of the command ``show`` for a state, with a note if the stack's outputs differ."""
    live = _models(state)
    if not live:
        return NOTHING
    intended = _outputs(state).get("models")
    # Not a mapping if it is secret, and therefore encrypted.
    if not isinstance(intended, Mapping) or _weights(intended) == _weights(live):
        return show.table(live)
    return f"{show.table(live)}\n`pulumi stack output` differs because the update is incomplete. The routes show this."


def stack_urn(state: Mapping[str, Any]) -> str:
    """URN of the stack itself, the root of all resources; empty before the first update."""
    return str(_stack(state).get("urn", ""))


def _weights(models: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {
        name: {version: float(live["weight"]) for version, live in model["versions"].items()}
        for name, model in models.items()
        if "versions" in model
    }


def _outputs(state: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_stack(state).get("outputs", {}))


def _stack(state: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((each for each in state.get("resources") or [] if each["type"] == "pulumi:pulumi:Stack"), {})
