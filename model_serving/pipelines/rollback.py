"""The command ``rollback``: changes a model in the stack file back to what it served before.

That is what the stack's history says; without a history, the full release before the newest live one. Nothing is
deployed: like any other change of the file, this one is reviewed, committed and brought up.
"""

import argparse
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import yaml

from model_serving import catalog
from model_serving.catalog import Catalog
from model_serving.git import Git
from model_serving.pipelines import stacks
from model_serving.pipelines.backend import Backend
from model_serving.problems import Failure, InvalidInput
from model_serving.stack import live
from model_serving.stack.models import ALL_TRAFFIC
from model_serving.stack.settings import NAMESPACE, file_of

HELP: Final = "change a model in the stack file back to what it served before"
MODELS: Final = stacks.PROJECT / "models"

Weights = Mapping[str, int]
"""Version -> percent of the traffic."""


class Target(NamedTuple):
    """The versions to go back to, and for people, how they are known."""

    weights: Weights
    source: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Example: python -m model_serving rollback --stack production --model iris-dtc"
    parser.add_argument("--stack", required=True, help="stack whose file to change")
    parser.add_argument("--model", required=True, help="model to roll back")


def run(options: argparse.Namespace) -> int:
    path = stacks.FOLDER / f"Pulumi.{options.stack}.yaml"
    target = find(options.stack, options.model, catalog.read(MODELS))
    before = path.read_text(encoding="utf-8")
    after = pinned(before, options.model, target.weights)
    path.write_text(after, encoding="utf-8")
    name = path.relative_to(stacks.PROJECT).as_posix()
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{name}", f"b/{name}", lineterm="")
    print("\n".join(lines))
    shown = ", ".join(f"{version} ({weight}%)" for version, weight in target.weights.items())
    print(f"\n{options.model} goes back to {shown}, {target.source}.")
    print(f"Nothing is deployed yet. Run `make up STACK={options.stack}`, or commit it for a pipeline to deploy.")
    return 0


def find(stack: str, model: str, released: Catalog) -> Target:
    """Finds what a model served before.

    Raises:
        InvalidInput: if the stack does not serve the model, or nothing older exists.
    """
    models = stacks.read(stack).models
    consequence = "There is nothing to go back to, and nothing was changed."
    if model not in models or model not in released.names():
        what = f"{NAMESPACE}:models has no {model or 'model without a name'}"
        remedy = f"Name one of {', '.join(sorted(models))}, e.g. make rollback MODEL={min(models, default='…')}."
        raise InvalidInput.of(file_of(stack), what, consequence, remedy)
    releases = released.releases(model)
    order = [release.version for release in releases]
    serving = _answering(live.weights(models[model], releases))
    newest = _newest(serving, order) if serving else 0
    for weights in _served_before(stack, model):
        if weights.keys() <= {*order} and _newest(weights, order) < newest:
            return Target(weights, "which served before according to the stack's history")
    before = [release.version for release in releases[:newest] if not release.is_prerelease]
    if not before:
        what = f"{NAMESPACE}:models.{model} serves {order[newest]}, and there is no full release before it"
        remedy = "Release a corrected version, or remove the model from the stack."
        raise InvalidInput.of(file_of(stack), what, consequence, remedy)
    source = f"the release before {order[newest]}; the stack's history names no other"
    return Target({before[-1]: ALL_TRAFFIC}, source)


def _served_before(stack: str, model: str) -> Iterator[Weights]:
    """Versions and weights of earlier updates, latest first; none if the backend cannot be read."""
    try:
        entries = Backend(stack=stack).history()
    except Failure:
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
    """The newest full release of a model in a commit, which is what a stack without versions serves."""
    listed = Git(folder=stacks.PROJECT).run("ls-tree", "--name-only", f"{commit}:models/{model}")
    versions = listed.text.split()
    places = {each: place for each in versions if (place := catalog.order(each)) and not place.prerelease}
    return max(places, key=lambda version: places[version], default=None)


def _answering(weights: Weights) -> Weights:
    return {version: weight for version, weight in weights.items() if weight}


def _newest(weights: Weights, order: Sequence[str]) -> int:
    return max(map(order.index, weights))


# The stack file has its authors' comments and format, so only the one value is replaced in its text.


def pinned(text: str, model: str, weights: Weights) -> str:
    """The text of a stack file with these versions for a model, and otherwise unchanged."""
    versions = "{" + ", ".join(f'"{version}": {weight}' for version, weight in weights.items()) + "}"
    path = ("config", f"{NAMESPACE}:models", model)
    if entry := _entry(text, path):
        after = _with_versions(text, *entry, versions)
        content = yaml.safe_load(after)
        for name in path:
            content = content[name]
        if content.get("versions") == dict(weights):
            return after
    what = f"{NAMESPACE}:models.{model} cannot be changed in place"
    raise InvalidInput.of("the stack file", what, "Nothing was changed.", f"Write it by hand: versions: {versions}")


def _entry(text: str, path: Sequence[str]) -> tuple[yaml.Node, yaml.Node] | None:
    """Key and value at a path."""
    found, node = None, yaml.compose(text, Loader=yaml.SafeLoader)
    for name in path:
        if (found := _child(node, name)) is None:
            return None
        node = found[1]
    return found


def _child(node: Any, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((pair for pair in pairs if pair[0].value == name), None)


def _with_versions(text: str, key: yaml.Node, value: yaml.Node, versions: str) -> str:
    if found := _child(value, "versions"):
        return text[: found[0].end_mark.index] + f": {versions}" + text[_end(found[1]) :]
    if not isinstance(value, yaml.MappingNode):
        return text[: key.end_mark.index] + f": {{versions: {versions}}}" + text[value.end_mark.index :]
    start = value.start_mark
    if value.flow_style:
        separator = ", " if value.value else ""
        return text[: start.index + 1] + f"versions: {versions}{separator}" + text[start.index + 1 :]
    return text[: start.index] + f"versions: {versions}\n{' ' * start.column}" + text[start.index :]


def _end(node: yaml.Node) -> int:
    """End of a value; for the parser, a block mapping only ends where the next node begins."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    return int(node.end_mark.index)
