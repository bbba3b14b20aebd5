"""The part of a note about one stack, most important first."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from model_serving.hosts.blocks import Block, Fixed
from model_serving.hosts.markdown import cell, code, fence, label, prose, visible
from model_serving.pipelines.base import Base
from model_serving.pipelines.changes import COLUMNS, Change, ModelChange, Preview, Share
from model_serving.pipelines.costs import HOURS, REGION, Cost
from model_serving.pipelines.traffic import older_first
from model_serving.pipelines.values import UNKNOWN, Difference

FEW: Final = 6
"""Differences named in one line; the full diff has the others."""
LONGEST_LINE: Final = 1000
"""Characters of a line of an error, which may be a whole document; the log has the others."""
MOST_DRAWN: Final = 8
"""Models in one flowchart."""
MOST_CHARACTERS: Final = 1900
"""GitLab draws a flowchart of more than 2,000 characters only on a click (its render_mermaid.js)."""

_IMPORTANCE: Final = (
    "changes in the full diff",
    "costs",
    "flowcharts",
    "components",
    "changes of pods",
    "advisory policy violations",
    "models",
    "lines of errors",
    "mandatory policy violations",
    "rules of access",
    "replacements and deletions",
)
"""Blocks of a stack; the first ones are left out first."""
_NOTHING_SERVED: Final = "Everything in it is deleted as well: no model is served until the update is done."
_NEW_ADDRESS: Final = "Clients that use this IP address must switch to the new one."
_LOST_WITH: Final[Mapping[str, str]] = {
    "gcp:container/cluster:Cluster": _NOTHING_SERVED,
    "gcp:storage/bucket:Bucket": "Its objects are deleted as well.",
    "gcp:artifactregistry/repository:Repository": "Its images are deleted as well, so no rollback is possible.",
    "gcp:compute/address:Address": _NEW_ADDRESS,
    "gcp:compute/globalAddress:GlobalAddress": _NEW_ADDRESS,
    "kubernetes:core/v1:Namespace": _NOTHING_SERVED,
}
"""Type of a resource -> consequence of its deletion."""
_ACCESS: Final = "gcp:compute/securityPolicy:SecurityPolicy"
"""Its description says who may ask the models, see components/google/edge.py."""
_OF_MODELS: Final = (
    "ContractChecks",
    "ModelServer",
    "ModelRoute",
    "ModelImage",
    "ServicePolicies",
    "RuntimeImage",
    "Portal",
)
"""Components that lose resources with every release: those deletions share one line."""


def parts_of(preview: Preview) -> Iterator[Block | Fixed]:
    """Everything about one stack, in reading order."""
    yield Fixed(text=f"\n### {code(preview.stack)}\n")
    if preview.base:
        yield Fixed(text=f"\n{_compared(preview.base)}\n")
    if preview.outcome == "removed":
        yield Fixed(text=f"\n**No longer deployed by pipelines.** {prose(preview.why)}\n")
        return
    if preview.outcome == "no-identity":
        yield Fixed(text=f"\nNot previewed. {prose(preview.why)}\n")
        return
    if preview.outcome == "failed":
        yield Fixed(text=f"\n**The preview failed.** {prose(preview.why)}\n")
    elif not preview.changes:
        yield Fixed(text=f"\nNo changes. {_unchanged(preview.unchanged, 'resource')}\n")
    yield _errors(preview)
    yield _violations(preview, "mandatory")
    yield _destructive(preview)
    yield _access(preview)
    yield from _models(preview)
    yield _components(preview)
    yield _costs(preview)
    yield _violations(preview, "advisory")
    yield _full_diff(preview)


def _compared(base: Base) -> str:
    text = " ".join(base.sentences(code))
    # What looks like a rollback and is none must not be overlooked.
    return f"> **Attention:** {text}" if base.behind != 0 and not base.is_merged else text


def _block(
    preview: Preview, what: str, items: Sequence[str], *, head: str = "", foot: str = "", short: Sequence[str] = ()
) -> Block:
    importance = _IMPORTANCE.index(what)
    return Block(
        what=f"{what} of {code(preview.stack)}", importance=importance, head=head, items=items, short=short, foot=foot
    )


def _errors(preview: Preview) -> Block:
    shown = (visible(line) for error in preview.errors for line in [*error.splitlines(), ""])
    # A line that is longer than the note would be left out as a whole.
    lines = [line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…" for line in shown][:-1]
    mark = fence(lines)
    items = [f"{line}\n" for line in lines]
    return _block(preview, "lines of errors", items, head=f"\n{mark}text\n", foot=f"{mark}\n")


def _violations(preview: Preview, level: str) -> Block:
    items = [
        f"- {code(each.policy)}{f' on {code(each.resource)}' if each.resource else ''}: {code(each.message)}\n"
        for each in preview.violations
        if (each.level == "mandatory") == (level == "mandatory")
    ]
    return _block(preview, f"{level} policy violations", items, head=f"\n**Violated {level} policies**\n\n")


def _destructive(preview: Preview) -> Block:
    changes = [change for change in preview.sorted_changes if change.is_destructive]
    single = [change for change in changes if change.operation == "replace" or change.component not in _OF_MODELS]
    items = [_destroyed(change) for change in single]
    if with_models := [change for change in changes if change not in single]:
        items.append(f"- deleted with removed versions: {_kinds(with_models)}\n")
    title = "Replaced or deleted" if single else "Deleted"
    return _block(preview, "replacements and deletions", items, head=f"\n**{title}**\n\n")


def _destroyed(change: Change) -> str:
    why = ""
    if change.operation == "replace":
        forced = f"forced by {_few(change.forced_by)}"
        why = f", {forced if change.forced_by else 'because a resource that it depends on is replaced'}"
    lost = f" {_LOST_WITH[change.token]}" if change.token in _LOST_WITH else ""
    return f"- **{change.operation}** {code(change.kind)} {code(change.name)}{why}.{lost}\n"


def _access(preview: Preview) -> Block:
    """Who may ask the models, where that is new or changes."""
    items = [
        f"- {prose(each.new)}.\n"
        for change in preview.changes
        if change.token == _ACCESS
        for each in change.differences
        if each.path == "description" and each.new
    ]
    return _block(preview, "rules of access", items, head="\n**Access from the internet**\n\n")


def _models(preview: Preview) -> Iterator[Block | Fixed]:
    if not preview.models:
        return
    others = f"{_unchanged(preview.unchanged_models, 'other model')}\n\n" if preview.unchanged_models else ""
    yield Fixed(text=f"\n#### Models\n\n{others}")
    if drawn := _flowchart(preview.models):
        yield _block(preview, "flowcharts", [f"```mermaid\n{drawn}\n```\n\n"])
    undone = preview.base.undone if preview.base else ()
    whose = dict.fromkeys(undone, ", not by this branch")
    rows = [
        f"| {cell(model.name)} | {_happening(model)}{whose.get(model.name, '')} | {_traffic(model.before)} "
        f"| {_traffic(model.after)} |\n"
        for model in preview.models
    ]
    yield _block(preview, "models", rows, head="| model | | traffic before | traffic after |\n|---|---|---|---|\n")
    pods = [
        f"- pods of {code(model.name)} {code(server.version)}: {_few(server.differences)}\n"
        for model in preview.models
        for server in model.servers
    ]
    yield _block(preview, "changes of pods", pods, head="\n")


def _happening(model: ModelChange) -> str:
    """Summary of a model's change."""
    if not model.moves_traffic:
        return "pod settings change"
    if not model.before:
        return "first deployment"
    if not model.after:
        return "**removed**: requests get 404"
    before, after = ({share.version for share in shares} for shares in (model.before, model.after))
    if len(before) == len(after) == 1 and before != after:
        (old,), (new,) = before, after
        return f"{'rollback' if older_first(new) < older_first(old) else 'new version'}: {cell(old)} → {cell(new)}"
    if added := after - before:
        return f"{'canary' if before & after else 'new versions'}: {_cells(added)} added"
    return f"{_cells(before - after)} removed" if before - after else "traffic shifts"


def _cells(versions: Iterable[str]) -> str:
    return ", ".join(cell(version) for version in sorted(versions, key=older_first))


def _traffic(shares: Sequence[Share]) -> str:
    return ", ".join(f"{cell(share.version)} {_percent(share)}" for share in shares) or "none"


def _percent(share: Share | None) -> str:
    if share is None:
        return "none"
    return "mirrored" if share.shadow else f"{share.percent:g} %"


def _flowchart(models: Sequence[ModelChange]) -> str:
    """Mermaid flowchart of the models whose traffic changes, as many as a small one holds; empty if there is none."""
    text = "flowchart LR"
    for number, model in enumerate([each for each in models if each.moves_traffic][:MOST_DRAWN]):
        longer = "\n".join([text, *_arrows(f"m{number}", model)])
        if len(longer) >= MOST_CHARACTERS:
            break
        text = longer
    return text if "\n" in text else ""


def _arrows(node: str, model: ModelChange) -> Iterator[str]:
    before, after = ({share.version: share for share in shares} for shares in (model.before, model.after))
    yield f"    {node}({label(model.name)})"
    for number, version in enumerate(sorted({*before, *after}, key=older_first)):
        old, new = before.get(version), after.get(version)
        # Dotted: clients get no answers from this version.
        line = "-->" if new and new.percent else "-.->"
        moved = _percent(new) if old == new else f"{_percent(old)} → {_percent(new)}"
        # Not only the version: Mermaid takes "1. x" for a list.
        called = f"version {version}" + (", new" if old is None else ", removed" if new is None else "")
        yield f"    {node} {line}|{label(moved)}| {node}v{number}[{label(called)}]"


def _components(preview: Preview) -> Block:
    groups: defaultdict[str, list[Change]] = defaultdict(list)
    for change in preview.changes:
        groups[change.component].append(change)
    # Components of models come last: the table of models covers them.
    ordered = sorted(groups, key=lambda name: (name in _OF_MODELS, name))
    perhaps = sum(
        change.operation == "update" and all(each.new == UNKNOWN for each in change.differences)
        for change in preview.changes
    )
    depends = "update depends" if perhaps == 1 else "updates depend"
    unknown = f" {perhaps} {depends} on values known only after apply." if perhaps else ""
    return _block(
        preview,
        "components",
        [_component_row(name, groups[name]) for name in ordered],
        head="\n#### Infrastructure\n\n| component | create | update | replace | delete | what |\n"
        "|---|--:|--:|--:|--:|---|\n",
        foot=f"\n{_unchanged(preview.unchanged, 'resource')}{unknown}\n",
    )


def _component_row(name: str, changes: Sequence[Change]) -> str:
    counts = [sum(change.operation in column for change in changes) or "" for column in COLUMNS]
    return f"| {cell(name) if name else 'none'} | {' | '.join(map(str, counts))} | {_kinds(changes)} |\n"


def _kinds(changes: Iterable[Change]) -> str:
    counted = Counter(change.kind for change in changes)
    return ", ".join(f"{count} {cell(kind)}" for kind, count in sorted(counted.items()))


def _unchanged(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'} unchanged."


def _costs(preview: Preview) -> Block:
    before, after = (sum(getattr(cost, side) for cost in preview.costs) for side in ("before", "after"))
    uncounted = f" No estimate for {', '.join(preview.without_figure)}." if preview.without_figure else ""
    return _block(
        preview,
        "costs",
        [_cost_row(cost) for cost in preview.costs],
        head="\n#### Costs\n\n| USD per month | before | after | change | basis |\n|---|--:|--:|--:|---|\n",
        foot=f"| **total** | {_money(before)} | {_money(after)} | **{signed(after - before)}** | |\n\n"
        f"Estimate for {HOURS} hours in {REGION} at 2026 list prices, without discounts and taxes. Prices vary by "
        f"region. Usage-based charges are not included.{uncounted}\n",
    )


def _cost_row(cost: Cost) -> str:
    figures = f"{_money(cost.before)} | {_money(cost.after)} | {signed(cost.after - cost.before)}"
    return f"| {cost.what} | {figures} | {cost.basis} |\n"


def _money(amount: float) -> str:
    """Whole dollars; amounts below one dollar with cents."""
    return f"{amount:,.0f}" if abs(amount) >= 1 or not amount else f"{amount:.2f}"


def signed(amount: float) -> str:
    """An amount of money with its sign."""
    return f"+{_money(amount)}" if amount > 0 else _money(amount)


def _full_diff(preview: Preview) -> Block:
    changes = preview.sorted_changes
    titles = [f"{visible(change.title)}\n" for change in changes]
    items = [
        title + "".join(f"{visible(line)}\n" for line in change.lines())
        for title, change in zip(titles, changes, strict=True)
    ]
    mark = fence(items)
    resources = f"{len(changes)} resource{'' if len(changes) == 1 else 's'}"
    return _block(
        preview,
        "changes in the full diff",
        items,
        short=titles,
        head=f"\n<details><summary>Full diff: {resources}</summary>\n\n{mark}diff\n",
        foot=f"{mark}\n\n</details>\n",
    )


def _few(differences: Sequence[Difference]) -> str:
    told = [f"{code(each.path)} {_value(each.old)} → {_value(each.new)}" for each in differences[:FEW]]
    more = len(differences) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")


def _value(value: str | None) -> str:
    return "*not set*" if value is None else f"*{UNKNOWN}*" if value == UNKNOWN else code(value)
