"""Draws how a model's requests are shared, as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from model_serving.hosts.markdown import label
from model_serving.pipelines.changes import ModelChange, Share
from model_serving.pipelines.traffic import older_first

MOST_MODELS: Final = 8
MOST_CHARACTERS: Final = 1900
"""GitLab draws a longer one only on a click, beyond 2,000 characters (its render_mermaid.js)."""


def flowchart(models: Sequence[ModelChange]) -> str | None:
    """The models whose traffic moves, as many as a small picture holds; None if there is none."""
    lines = ["flowchart LR"]
    for number, model in enumerate([each for each in models if each.moves_traffic][:MOST_MODELS]):
        drawn = [*_model(f"m{number}", model)]
        if sum(len(line) + 1 for line in [*lines, *drawn]) > MOST_CHARACTERS:
            break
        lines += drawn
    return "\n".join(lines) if len(lines) > 1 else None


def percent(share: Share | None) -> str:
    if share is None:
        return "none"
    return "copies" if share.shadow else f"{share.percent:g} %"


def _model(node: str, model: ModelChange) -> Iterable[str]:
    before, after = ({share.version: share for share in shares} for shares in (model.before, model.after))
    yield f"    {node}({label(model.name)})"
    for number, version in enumerate(sorted({*before, *after}, key=older_first)):
        old, new = before.get(version), after.get(version)
        # Dotted is what answers nobody.
        line = "-->" if new and new.percent else "-.->"
        yield f"    {node} {line}|{label(_moved(old, new))}| {node}v{number}[{label(_called(version, old, new))}]"


def _moved(old: Share | None, new: Share | None) -> str:
    return percent(new) if old == new else f"{percent(old)} → {percent(new)}"


def _called(version: str, old: Share | None, new: Share | None) -> str:
    # Not the version alone: Mermaid takes "1. x" for a list.
    return f"version {version}" + (", new" if old is None else ", goes" if new is None else "")
