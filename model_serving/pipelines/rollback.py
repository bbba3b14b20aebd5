"""The command ``rollback``: changes a model in the stack file back to what it served before.

That is what the stack's history says; without a history, the full release before the newest live one. The model's other
settings stay, except those that the settings refuse with these versions. Nothing is deployed: like any other change of
the file, this one is reviewed, committed and brought up.
"""

import argparse
import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import yaml
from pydantic import ValidationError

from model_serving import catalog
from model_serving.catalog import Catalog
from model_serving.git import Git
from model_serving.images.remotes import replacing
from model_serving.pipelines import stacks
from model_serving.pipelines.backend import Backend
from model_serving.problems import Failure, InvalidInput
from model_serving.stack import live
from model_serving.stack.models import ALL_TRAFFIC, ModelSettings
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
    released = catalog.read(MODELS)
    target = find(options.stack, options.model, released)
    path = stacks.FOLDER / f"Pulumi.{options.stack}.yaml"
    before = path.read_bytes().decode()
    with replacing(path, scratch=path.parent) as file:
        after, told = rolled_back(before, options.stack, options.model, target.weights, released)
        file.write(after.encode())
    name = path.relative_to(stacks.PROJECT).as_posix()
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{name}", f"b/{name}", lineterm="")
    print("\n".join(lines))
    shown = ", ".join(f"{version} ({weight}%)" for version, weight in target.weights.items())
    print(f"\n{options.model} goes back to {shown}, {target.source}.")
    print("".join(f"  {line}\n" for line in told), end="")
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
        chosen = _models_of(entry).get(model)
        if entry.get("kind") != "update" or entry.get("result") != "succeeded" or chosen is None:
            continue
        if weights := _answering(chosen.versions):
            yield weights
        elif newest := _newest_at(entry.get("environment", {}).get("git.head", ""), model, chosen.shadow):
            yield {newest: ALL_TRAFFIC}


def _models_of(entry: Mapping[str, Any]) -> Mapping[str, ModelSettings]:
    """The models of an update in the history, without those whose settings are not valid any more."""
    try:
        models = json.loads(entry.get("config", {}).get(f"{NAMESPACE}:models", {}).get("value") or "{}")
    except ValueError:
        return {}
    found: dict[str, ModelSettings] = {}
    for name, content in (models if isinstance(models, Mapping) else {}).items():
        with suppress(ValidationError):
            found[name] = ModelSettings.model_validate(content or {})
    return found


def _newest_at(commit: str, model: str, shadow: str | None = None) -> str | None:
    """The newest full release of a model in a commit that is not its shadow: what a stack without versions serves."""
    listed = Git(folder=stacks.PROJECT).run("ls-tree", "--name-only", f"{commit}:models/{model}")
    versions = listed.text.split()
    places = {
        each: place for each in versions if (place := catalog.order(each)) and not place.prerelease and each != shadow
    }
    return max(places, key=lambda version: places[version], default=None)


def _answering(weights: Weights) -> Weights:
    return {version: weight for version, weight in weights.items() if weight}


def _newest(weights: Weights, order: Sequence[str]) -> int:
    return max(map(order.index, weights))


def rolled_back(text: str, stack: str, model: str, weights: Weights, released: Catalog) -> tuple[str, Sequence[str]]:
    """The text of a stack file with these versions for a model, and a line about each other setting of the model.

    Versions without traffic stay. A setting that is refused together with the versions is removed.

    Raises:
        InvalidInput: if the result would be refused nevertheless, or if the text cannot be changed in place.
    """
    now = stacks.parse(stack, text).models[model]
    idle = {version: 0 for version, weight in now.versions.items() if not weight and version not in weights}
    told = [f"{version} stays deployed without traffic." for version in idle]
    after = pinned(text, model, {**weights, **idle})
    removed: dict[str, str] = {}
    while refused := _refused(after, stack, model, released, apart_from=removed):
        for key in refused:
            after = without(after, model, key)
        removed |= refused
    told += [f"{key} is removed: {why}." for key, why in removed.items()]
    others = [key for key in _content(text, model) or {} if key not in {"versions", *removed}]
    return after, [*told, *(f"{key} stays as it is." for key in others)]


def _refused(text: str, stack: str, model: str, released: Catalog, *, apart_from: Collection[str]) -> Mapping[str, str]:
    """Settings of the model that make the text of a stack file invalid, and why.

    Raises:
        InvalidInput: if anything else makes it invalid.
    """
    try:
        live.resolve(stacks.parse(stack, text), released, file=file_of(stack))
    except InvalidInput as error:
        place = re.compile(rf"{re.escape(f'{NAMESPACE}:models.{model}.')}(\w+)\b")
        found = {match[1]: each.what for each in error.problems if (match := place.match(each.what))}
        known = (_content(text, model) or {}).keys() - {"versions", *apart_from}
        if removable := {key: why for key, why in found.items() if key in known}:
            return removable
        raise
    return {}


# The stack file has its authors' comments and format, so only the values that change are replaced in its text.


def pinned(text: str, model: str, weights: Weights) -> str:
    """The text of a stack file with these versions for a model, and otherwise unchanged."""
    versions = "{" + ", ".join(f'"{version}": {weight}' for version, weight in weights.items()) + "}"
    after = text
    if entry := _entry(text, model):
        after = _with_versions(text, *entry, versions)
    expected = {**(_content(text, model) or {}), "versions": dict(weights)}
    return _checked(text, after, model, expected, f"Write it by hand: versions: {versions}")


def without(text: str, model: str, key: str) -> str:
    """The text of a stack file without a setting of a model, and otherwise unchanged."""
    after, entry = text, _entry(text, model)
    node = entry[1] if entry and isinstance(entry[1], yaml.MappingNode) else None
    pairs = node.value if node else []
    place = next((place for place, pair in enumerate(pairs) if pair[0].value == key), None)
    if node and place is not None:
        start, end = pairs[place][0].start_mark.index, _end(pairs[place][1])
        if not node.flow_style:
            start, end = text.rfind("\n", 0, start) + 1, (text.find("\n", end) + 1) or len(text)
        elif place + 1 < len(pairs):
            end = pairs[place + 1][0].start_mark.index
        elif place:
            start = _end(pairs[place - 1][1])
        after = text[:start] + text[end:]
    expected = {name: value for name, value in (_content(text, model) or {}).items() if name != key}
    return _checked(text, after, model, expected, f"Remove {key} of the model by hand, and run this again.")


def _checked(before: str, after: str, model: str, expected: Mapping[str, Any], remedy: str) -> str:
    """The changed text, if it says what is expected of the model, and the same as before of everything else."""
    wanted = yaml.safe_load(before)
    try:
        wanted["config"][f"{NAMESPACE}:models"][model] = expected
        if yaml.safe_load(after) == wanted:
            return after
    except (yaml.YAMLError, ValueError, LookupError, TypeError):
        pass
    what = f"{NAMESPACE}:models.{model} cannot be changed in place"
    raise InvalidInput.of("the stack file", what, "Nothing was changed.", remedy)


def _content(text: str, model: str) -> Any:
    """A model's settings as the text of a stack file has them."""
    try:
        return yaml.safe_load(text)["config"][f"{NAMESPACE}:models"][model]
    except (LookupError, TypeError):
        return None


def _entry(text: str, model: str) -> tuple[yaml.Node, yaml.Node] | None:
    """Key and value of a model."""
    found, node = None, yaml.compose(text, Loader=yaml.SafeLoader)
    for name in ("config", f"{NAMESPACE}:models", model):
        if (found := _child(node, name)) is None:
            return None
        node = found[1]
    return found


def _child(node: Any, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((pair for pair in pairs if pair[0].value == name), None)


def _with_versions(text: str, key: yaml.Node, value: yaml.Node, versions: str) -> str:
    if found := _child(value, "versions"):
        begin, start, end = found[0].start_mark.index, found[0].end_mark.index, _end(found[1])
        # What its authors say of the versions stays, above them.
        comments = re.findall(r"(?:^|\s)(#[^\r\n]*)", text[start:end])
        above = "".join(f"{comment}\n{' ' * found[0].start_mark.column}" for comment in comments)
        return text[:begin] + above + text[begin:start] + f": {versions}" + text[end:]
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
