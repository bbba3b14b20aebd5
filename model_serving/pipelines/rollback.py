"""Puts a model back to what served before, in the stack file alone.

What served before is what the stack's history says; without one, the release before the newest live one. It deploys
nothing: the change of the file is a change like any other, to be looked at, committed and brought up.
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from model_serving import catalog
from model_serving.catalog import Catalog
from model_serving.git import Git
from model_serving.pipelines import stacks
from model_serving.pipelines.backend import Backend, BackendError
from model_serving.problems import InvalidInput, Problem
from model_serving.stack import live
from model_serving.stack.models import ALL_TRAFFIC, ModelSettings
from model_serving.stack.settings import NAMESPACE

NAME: Final = "rollback"
HELP: Final = "put a model back to what served before, in the stack file"
MODELS: Final = stacks.PROJECT / "models"

Weights = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a rollback goes.

    Attributes:
        weights: version -> percent.
        source: how it is known, for people.
    """

    weights: Weights
    source: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Example: python -m model_serving rollback --stack production --model iris-dtc"
    parser.add_argument("--stack", required=True, help="whose file is changed")
    parser.add_argument("--model", required=True, help="which model goes back")


def run(options: argparse.Namespace) -> int:
    path = stacks.FOLDER / f"Pulumi.{options.stack}.yaml"
    released = catalog.read(MODELS)
    target = find(options.stack, options.model, released)
    before = path.read_text(encoding="utf-8")
    after = pinned(before, options.model, target.weights)
    path.write_text(after, encoding="utf-8")
    name = path.relative_to(stacks.PROJECT).as_posix()
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{name}", f"b/{name}", lineterm="")
    print("\n".join(lines))
    print(f"\n{options.model} goes back to {_shown(target.weights)}, {target.source}.")
    print(f"Nothing is deployed yet. To do it: make up STACK={options.stack}, or commit the change and let a pipeline.")
    return 0


def find(stack: str, model: str, released: Catalog) -> Target:
    """What the model goes back to.

    Raises:
        InvalidInput: if the stack does not serve the model, or there is nothing before what it serves.
    """
    chosen = stacks.read(stack).models.get(model)
    file = f"stacks/Pulumi.{stack}.yaml"
    if chosen is None or model not in released.names():
        raise InvalidInput([_not_served(file, model, stacks.read(stack).models)])
    order = [release.version for release in released.releases(model)]
    newest = order.index(_newest(_answering(live.weights(chosen, released.releases(model))), order))
    for weights in _served_before(stack, model):
        if weights.keys() <= {*order} and order.index(_newest(weights, order)) < newest:
            return Target(weights=weights, source="which served before as the history of the stack says")
    if newest == 0:
        raise InvalidInput([_nothing_older(file, model, order[newest])])
    return Target(
        weights={order[newest - 1]: ALL_TRAFFIC},
        source=f"the release before {order[newest]}; the history of the stack does not tell of another",
    )


def _served_before(stack: str, model: str) -> Iterator[Weights]:
    """What earlier updates gave the traffic to, the latest first."""
    try:
        entries = Backend(stack=stack).history()
    except BackendError:
        return
    for entry in entries:
        models = json.loads(entry.get("config", {}).get(f"{NAMESPACE}:models", {}).get("value") or "{}")
        if entry.get("kind") != "update" or entry.get("result") != "succeeded" or model not in models:
            continue
        if weights := _answering(models[model].get("versions") or {}):
            yield weights
        elif newest := _newest_at(entry.get("environment", {}).get("git.head", ""), model):
            yield {newest: ALL_TRAFFIC}


def _newest_at(commit: str, model: str) -> str | None:
    """The newest release of a model in a commit, which is what served if the stack named no version."""
    listed = Git(folder=stacks.PROJECT).run("ls-tree", "--name-only", f"{commit}:models/{model}")
    places = {version: place for version in listed.text.split() if (place := catalog.order(version))}
    return max(places, key=lambda version: places[version], default=None)


def _answering(weights: Weights) -> dict[str, int]:
    return {version: weight for version, weight in weights.items() if weight}


def _newest(weights: Weights, order: Sequence[str]) -> str:
    return max(weights, key=order.index)


def _not_served(file: str, model: str, known: Mapping[str, ModelSettings]) -> Problem:
    return Problem(
        file=file,
        what=f"{NAMESPACE}:models has no {model or 'model without a name'}",
        consequence="There is nothing that could go back, and nothing was changed.",
        remedy=f"Name one of {', '.join(sorted(known))}, e.g. make rollback MODEL={min(known, default='…')}.",
    )


def _nothing_older(file: str, model: str, version: str) -> Problem:
    return Problem(
        file=file,
        what=f"{NAMESPACE}:models.{model} serves {version}, and there is no release before it",
        consequence="There is nothing to go back to, and nothing was changed.",
        remedy="Release a corrected version, or remove the model from the stack.",
    )


def _shown(weights: Weights) -> str:
    return ", ".join(f"{version} ({weight}%)" for version, weight in weights.items())


# The stack file is people's, with their comments and their form: what changes is the one value, as text.


def pinned(text: str, model: str, weights: Weights) -> str:
    """The text of a stack file in which a model has these versions, and is otherwise as it was.

    Raises:
        InvalidInput: if the file says it in a way that cannot be changed in its place, such as an anchor.
    """
    versions = "{" + ", ".join(f'"{version}": {weight}' for version, weight in weights.items()) + "}"
    key, value = _entry(text, model)
    after = _with_versions(text, key, value, versions)
    content = yaml.safe_load(after)["config"][f"{NAMESPACE}:models"][model]
    if content.get("versions") != dict(weights):
        raise InvalidInput([_by_hand(model, versions)])
    return after


def _entry(text: str, model: str) -> tuple[yaml.Node, yaml.Node]:
    config = _child(yaml.compose(text, Loader=yaml.SafeLoader), "config")
    models = config and _child(config[1], f"{NAMESPACE}:models")
    entry = models and _child(models[1], model)
    if entry is None:
        raise InvalidInput([_by_hand(model, "…")])
    return entry


def _child(node: Any, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((pair for pair in pairs if pair[0].value == name), None)


def _with_versions(text: str, key: yaml.Node, value: yaml.Node, versions: str) -> str:
    found = _child(value, "versions")
    if found:
        return text[: found[0].end_mark.index] + f": {versions}" + text[_end(found[1]) :]
    if not isinstance(value, yaml.MappingNode):
        return text[: key.end_mark.index] + f": {{versions: {versions}}}" + text[value.end_mark.index :]
    start = value.start_mark
    if value.flow_style:
        separator = ", " if value.value else ""
        return text[: start.index + 1] + f"versions: {versions}{separator}" + text[start.index + 1 :]
    return text[: start.index] + f"versions: {versions}\n{' ' * start.column}" + text[start.index :]


def _end(node: yaml.Node) -> int:
    """Where a value ends: that of a mapping in lines ends for the parser only where the next one begins."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    index: int = node.end_mark.index
    return index


def _by_hand(model: str, versions: str) -> Problem:
    return Problem(
        file="the stack file",
        what=f"{NAMESPACE}:models.{model} cannot be changed where it stands",
        consequence="Nothing was changed.",
        remedy=f"Write it by hand: versions: {versions}",
    )
