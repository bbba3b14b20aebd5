"""A merge request's note, the part about one stack: from what has to be read to what can be skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from model_serving.hosts.blocks import Block, Fixed, Item
from model_serving.hosts.markdown import cell, code, fence, prose, visible
from model_serving.pipelines import diff, picture
from model_serving.pipelines.changes import Change, Difference, ModelChange, Preview, Share
from model_serving.pipelines.costs import HOURS, REGION, Cost
from model_serving.pipelines.traffic import older_first
from model_serving.pipelines.values import UNKNOWN

FEW: Final = 6
"""Of differences that are named in a line; the full diff has the others."""

_IMPORTANCE: Final = (
    "properties",
    "diff",
    "costs",
    "pictures",
    "components",
    "pods",
    "advisory",
    "models",
    "errors",
    "violations",
    "destructive",
)
"""What gives way first, and what stays the longest."""
_LOST_WITH: Final[Mapping[str, str]] = {
    "gcp:container/cluster:Cluster": "Everything in it goes, too: no model answers until the update is done.",
    "gcp:storage/bucket:Bucket": "Its objects go, too.",
    "gcp:artifactregistry/repository:Repository": "Its images go, too, and with them every rollback.",
    "gcp:compute/address:Address": "Clients that know its number have to learn a new one.",
    "gcp:compute/globalAddress:GlobalAddress": "Clients that know its number have to learn a new one.",
    "kubernetes:core/v1:Namespace": "Everything in it goes, too: no model answers until the update is done.",
}
"""What a person may not think of when a resource goes."""
_OF_MODELS: Final = ("ContractChecks", "ModelServer", "ModelRoute", "ModelImage", "ServicePolicies", "RuntimeImage")
"""Components of which something goes with every release: they are told in one line."""


def parts_of(preview: Preview) -> Iterator[Block | Fixed]:
    """What is said of a stack, in order."""
    yield Fixed(text=f"\n### {code(preview.stack)}\n")
    if preview.outcome == "no-identity":
        yield Fixed(text=f"\nNot previewed. {prose(preview.why)}\n")
        return
    if preview.outcome == "failed":
        yield Fixed(text=f"\n**The preview failed.** {prose(preview.why)}\n")
    elif not preview.changes:
        yield Fixed(text=f"\nNo changes; {_staying(preview.unchanged)}\n")
    yield _errors(preview)
    yield _violations(preview, mandatory=True)
    yield _destructive(preview)
    yield from _models(preview)
    yield _components(preview)
    yield _costs(preview)
    yield _violations(preview, mandatory=False)
    yield _full_diff(preview)


def _errors(preview: Preview) -> Block:
    lines = [visible(line) for error in preview.errors for line in [*error.splitlines(), ""]][:-1]
    mark = fence(lines)
    return Block(
        what=f"lines of errors of {code(preview.stack)}",
        importance=_IMPORTANCE.index("errors"),
        head=f"\n{mark}text\n",
        items=[Item(text=f"{line}\n") for line in lines],
        foot=f"{mark}\n",
    )


def _violations(preview: Preview, *, mandatory: bool) -> Block:
    found = [each for each in preview.violations if (each.level == "mandatory") == mandatory]
    title = "Policies that forbid this" if mandatory else "Policies that advise against it"
    return Block(
        what=f"policy violations of {code(preview.stack)}",
        importance=_IMPORTANCE.index("violations" if mandatory else "advisory"),
        head=f"\n**{title}**\n\n",
        items=[
            Item(
                text=f"- {code(each.policy)}{f' on {code(each.resource)}' if each.resource else ''}: "
                f"{code(each.message)}\n"
            )
            for each in found
        ],
    )


def _destructive(preview: Preview) -> Block:
    going = [change for change in diff.in_order(preview.changes) if change.is_destructive]
    alone = [change for change in going if change.operation == "replace" or change.component not in _OF_MODELS]
    with_models = [change for change in going if change not in alone]
    items = [Item(text=_going(change)) for change in alone]
    if with_models:
        kinds = ", ".join(f"{count} {kind}" for kind, count in _counted(change.kind for change in with_models))
        items.append(Item(text=f"- deleted with versions that go: {kinds}\n"))
    title = "Replaced or deleted" if alone else "Deleted"
    return Block(
        what=f"replacements and deletions of {code(preview.stack)}",
        importance=_IMPORTANCE.index("destructive"),
        head=f"\n**{title}**\n\n",
        items=items,
    )


def _going(change: Change) -> str:
    named = f"{code(change.kind)} {code(change.name)}"
    lost = f" {_LOST_WITH[change.token]}" if change.token in _LOST_WITH else ""
    if change.operation == "delete":
        return f"- **delete** {named}.{lost}\n"
    if not change.forced_by:
        return f"- **replace** {named}, because of another resource that is replaced.{lost}\n"
    return f"- **replace** {named}, forced by {_few(change.forced_by)}.{lost}\n"


def _models(preview: Preview) -> Iterator[Block | Fixed]:
    if not preview.models:
        return
    drawn = picture.flowchart(preview.models)
    rows = [Item(text=_model_row(model)) for model in preview.models]
    yield Fixed(text=f"\n#### Models\n\n{_others(preview.unchanged_models)}")
    if drawn:
        yield Block(
            what=f"pictures of {code(preview.stack)}",
            importance=_IMPORTANCE.index("pictures"),
            items=[Item(text=f"```mermaid\n{drawn}\n```\n\n")],
        )
    yield Block(
        what=f"models of {code(preview.stack)}",
        importance=_IMPORTANCE.index("models"),
        head="| model | | traffic before | traffic after |\n|---|---|---|---|\n",
        items=rows,
    )
    yield Block(
        what=f"changes of pods of {code(preview.stack)}",
        importance=_IMPORTANCE.index("pods"),
        head="\n",
        items=[
            Item(text=f"- the pods of {code(model.name)} {code(server.version)}: {_few(server.differences)}\n")
            for model in preview.models
            for server in model.servers
        ],
    )


def _others(count: int) -> str:
    if not count:
        return ""
    return f"{count} other model{'s stay as they are' if count > 1 else ' stays as it is'}.\n\n"


def _model_row(model: ModelChange) -> str:
    return f"| {cell(model.name)} | {happening(model)} | {_traffic(model.before)} | {_traffic(model.after)} |\n"


def happening(model: ModelChange) -> str:
    """What happens to a model, in a few words; in it only versions are of others' making."""
    if not model.moves_traffic:
        return "other settings of its pods"
    if not model.before:
        return "first deployment"
    if not model.after:
        return "**removed**: requests get 404"
    return _other_versions(*({share.version for share in shares} for shares in (model.before, model.after)))


def _other_versions(before: set[str], after: set[str]) -> str:
    if len(before) == len(after) == 1 and before != after:
        (old,), (new,) = before, after
        return f"{'rollback' if older_first(new) < older_first(old) else 'new version'}: {cell(old)} → {cell(new)}"
    if added := sorted(after - before, key=older_first):
        return f"{'canary' if before & after else 'new versions'}: {_cells(added)} comes"
    if gone := sorted(before - after, key=older_first):
        return f"{_cells(gone)} goes"
    return "traffic moves"


def _cells(versions: Iterable[str]) -> str:
    return ", ".join(cell(version) for version in versions)


def _traffic(shares: Sequence[Share]) -> str:
    return ", ".join(f"{cell(share.version)} {picture.percent(share)}" for share in shares) or "none"


def _components(preview: Preview) -> Block:
    groups: dict[str, list[Change]] = {}
    for change in preview.changes:
        groups.setdefault(change.component, []).append(change)
    # What belongs to models comes last: they have a part of their own.
    ordered = sorted(groups, key=lambda name: (name in _OF_MODELS, name))
    return Block(
        what=f"components of {code(preview.stack)}",
        importance=_IMPORTANCE.index("components"),
        head="\n#### Infrastructure\n\n| component | create | update | replace | delete | what |\n"
        "|---|--:|--:|--:|--:|---|\n",
        items=[Item(text=_component_row(name, groups[name])) for name in ordered],
        foot=f"\n{_staying(preview.unchanged)}{_perhaps(preview.changes)}\n",
    )


def _component_row(name: str, changes: Sequence[Change]) -> str:
    counts = Counter(change.operation for change in changes)
    numbers = [
        counts["create"] + counts["import"],
        counts["update"],
        counts["replace"],
        counts["delete"] + counts["forget"],
    ]
    kinds = ", ".join(f"{count} {cell(kind)}" for kind, count in _counted(change.kind for change in changes))
    return f"| {cell(name) if name else 'outside'} | {' | '.join(str(n or '') for n in numbers)} | {kinds} |\n"


def _resources(count: int) -> str:
    return f"{count} resource{'' if count == 1 else 's'}"


def _staying(count: int) -> str:
    return f"{_resources(count)} {'stays as it is' if count == 1 else 'stay as they are'}."


def _perhaps(changes: Iterable[Change]) -> str:
    count = sum(
        change.operation == "update" and all(each.new == UNKNOWN for each in change.differences) for change in changes
    )
    if not count:
        return ""
    return f" Of {count} update{'s' if count > 1 else ''} it is known only later whether anything changes."


def _costs(preview: Preview) -> Block:
    before, after = (sum(getattr(cost, side) for cost in preview.costs) for side in ("before", "after"))
    uncounted = f" No figure for {', '.join(preview.without_figure)}." if preview.without_figure else ""
    return Block(
        what=f"costs of {code(preview.stack)}",
        importance=_IMPORTANCE.index("costs"),
        head="\n#### Costs\n\n| US dollars a month | before | after | change | by |\n|---|--:|--:|--:|---|\n",
        items=[Item(text=_cost_row(cost)) for cost in preview.costs],
        foot=f"| **together** | {money(before)} | {money(after)} | **{signed(after - before)}** | |\n\n"
        f"An estimate for {HOURS} hours in {REGION} by the price lists of 2026, without discounts and taxes; other "
        f"regions differ. What is paid by use is not in it.{uncounted}\n",
    )


def _cost_row(cost: Cost) -> str:
    figures = f"{money(cost.before)} | {money(cost.after)} | {signed(cost.after - cost.before)}"
    return f"| {cost.what} | {figures} | {cost.basis} |\n"


def _full_diff(preview: Preview) -> Block:
    changes = diff.in_order(preview.changes)
    items = [_diff_item(change) for change in changes]
    mark = fence(line for item in items for line in item.text.splitlines())
    return Block(
        what=f"changes in the full diff of {code(preview.stack)}",
        importance=_IMPORTANCE.index("diff"),
        importance_of_length=_IMPORTANCE.index("properties"),
        head=f"\n<details><summary>Full diff: {_resources(len(changes))}</summary>\n\n{mark}diff\n",
        items=items,
        foot=f"{mark}\n\n</details>\n",
    )


def _diff_item(change: Change) -> Item:
    title = visible(diff.title(change))
    lines = [title, *(visible(line) for line in diff.properties(change))]
    return Item(text="".join(f"{line}\n" for line in lines), short=f"{title}\n")


def _few(differences: Sequence[Difference]) -> str:
    told = [f"{code(each.path)} {_value(each.old)} → {_value(each.new)}" for each in differences[:FEW]]
    more = len(differences) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")


def _value(value: str | None) -> str:
    return "*not set*" if value is None else f"*{UNKNOWN}*" if value == UNKNOWN else code(value)


def _counted(kinds: Iterable[str]) -> list[tuple[str, int]]:
    return sorted(Counter(kinds).items())


def money(amount: float) -> str:
    """Whole dollars; of less than one, cents."""
    return f"{amount:,.0f}" if abs(amount) >= 1 or not amount else f"{amount:.2f}"


def signed(amount: float) -> str:
    return f"+{money(amount)}" if amount > 0 else money(amount)
