"""The command ``report``: compares params, metrics and plots of the working tree with the branch that it goes to.

It reads files and git, and trains nothing. One note of the merge request has it, written anew by each pipeline.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_serving import hosts
from model_serving.git import Git
from model_serving.hosts.blocks import Block, Fixed, fit_note
from model_serving.hosts.markdown import cell, code, link
from model_serving.hosts.posting import post
from model_serving.hosts.runs import Run
from model_serving.problems import InvalidInput, Problem
from model_serving.releases import project, report_plots
from model_serving.releases.project import Project
from model_serving.releases.report_files import (
    Nowhere,
    Pair,
    Revision,
    Sources,
    Table,
    Tree,
    Unreadable,
    Values,
    WorkingTree,
    shown,
    table,
    values,
)

NAME: Final = "report"
HELP: Final = "compare params, metrics and plots with the branch that a merge request goes to"
LIMIT: Final = 1_000_000
"""Characters, where no site says another limit: GitLab's."""
COMMIT_CHARACTERS: Final = 12
EXAMPLE: Final = """\
examples:
  python -m model_serving report --base origin/main                 on a laptop, after training
  python -m model_serving report --base origin/main --post          in a merge request's job: writes its note

release.yaml says under report which files are shown.
"""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Everything that a report tells.

    Attributes:
        name: the model's.
        base: what it is compared with, as it was asked for, e.g. ``origin/main``.
        commit: of the base; empty if there is no such commit here.
        params: of each file.
        metrics: of each file.
        plots: each with its file.
        better: which way a metric is better, by its key.
        uncommitted: files of results that are otherwise than they are committed.
        notes: what could not be compared, and why; Markdown.
    """

    name: str
    base: str
    commit: str
    params: Sequence[Pair[Values]]
    metrics: Sequence[Pair[Values]]
    plots: Sequence[tuple[project.Plot, Pair[Table]]]
    better: dict[str, Any]
    uncommitted: Sequence[str]
    notes: Sequence[str]

    @property
    def is_first(self) -> bool:
        """Whether nothing of it is on the base."""
        bases = [pair.base for pair in (*self.params, *self.metrics)]
        return all(base is None for base in [*bases, *(pair.base for _, pair in self.plots)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--base", default="origin/main", help="what to compare with, for git (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write; by default standard output")
    parser.add_argument(
        "--post", action="store_true", help="write it into the merge or pull request; a refusal fails no job"
    )


def run(options: argparse.Namespace) -> int:
    root = Path.cwd()
    compared = compare(project.read(root), root, base=options.base)
    site = hosts.here(os.environ)
    job = site.this_run() if site else None
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(render(compared, run=job), encoding="utf-8")
        print(f"{options.out}: compared with {options.base}")
    if not options.post:
        if not options.out:
            print(render(compared, run=job))
        return 0
    if site is None:
        print(
            "This is no job of GitLab or GitHub: nothing was posted.\n"
            "  There is no merge request to write into.\n"
            "  Leave --post out to read the report here."
        )
        return 0
    post(site, marker(compared.name), lambda limit: render(compared, run=job, limit=limit))
    return 0


def marker(name: str) -> str:
    """The hidden comment by which a model's report is found again."""
    return f"<!-- model-serving: report {name} -->"


def compare(chosen: Project, root: Path, *, base: str) -> Compared:
    """Reads all that a report tells.

    Args:
        chosen: what the model's repository says of itself.
        root: of that repository.
        base: what to compare with, for git.

    Raises:
        InvalidInput: with every file of the working tree that cannot be shown.
    """
    git = Git(folder=root)
    found = git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    commit = "" if found.code else found.text
    before: Tree = Revision(git=git, commit=commit) if commit else Nowhere()
    sources = Sources(WorkingTree(root=root), before, name=base)
    shows = chosen.report
    params = [pair for path in shows.params if (pair := sources.pair(path, values))]
    metrics = [pair for path in shows.metrics if (pair := sources.pair(path, values))]
    plots = [(plot, read) for plot in shows.plots if (read := sources.pair(plot.file, table))]
    problems = [*sources.problems, *_unshowable(plots, base), *_unknown_metrics(chosen, metrics)]
    if problems:
        raise InvalidInput(dict.fromkeys(problems))
    results = dict.fromkeys([*shows.metrics, *(plot.file for plot in shows.plots)])
    return Compared(
        name=chosen.name,
        base=base,
        commit=commit,
        params=params,
        metrics=metrics,
        plots=plots,
        better=dict(shows.better),
        uncommitted=[path for path in results if _is_uncommitted(root, git, path)],
        notes=[*dict.fromkeys(sources.notes)],
    )


def render(compared: Compared, *, run: Run | None = None, limit: int = LIMIT) -> str:
    """The report as Markdown.

    Args:
        compared: what it tells.
        run: where training's log is.
        limit: characters that it may have.
    """
    parts: list[Block | Fixed] = [
        Fixed(text=_head(compared, run)),
        _values("Parameters", compared.params, compared, importance=4),
        _values("Metrics", compared.metrics, compared, importance=5),
        *(report_plots.block(plot, pair, compared.base) for plot, pair in compared.plots),
    ]
    return fit_note(parts, limit, rest="See the files.")


def _unshowable(plots: Sequence[tuple[project.Plot, Pair[Table]]], base: str) -> Sequence[Problem]:
    found = []
    for plot, pair in plots:
        try:
            report_plots.block(plot, pair, base)
        except Unreadable as error:
            found.append(
                Problem(
                    file=plot.file,
                    what=str(error),
                    consequence=f"It could not be shown as release.yaml says, kind: {plot.kind}.",
                    remedy="Correct what writes it, or report.plots in release.yaml.",
                )
            )
    return found


def _unknown_metrics(chosen: Project, metrics: Sequence[Pair[Values]]) -> Sequence[Problem]:
    known = {key for key, _, _ in _rows(metrics)}
    return [
        Problem(
            file=project.FILE,
            what=f"report.better.{key} names no metric",
            consequence="Nobody would be told that it got worse.",
            remedy=f"There are: {', '.join(sorted(known))}.",
        )
        for key in chosen.report.better
        if known and key not in known
    ]


def _is_uncommitted(root: Path, git: Git, path: str) -> bool:
    return Revision(git=git, commit="HEAD").read(path) != WorkingTree(root=root).read(path)


def _head(compared: Compared, run: Run | None) -> str:
    told = f"Compared with {code(compared.base)}"
    if compared.commit:
        told += f" at {code(compared.commit[:COMMIT_CHARACTERS])}"
    if run:
        told += f" · {link(run.name, run.url)}"
    return "\n".join([f"## What this changes in {code(compared.name)}", "", told, "", *_warnings(compared)])


def _warnings(compared: Compared) -> Sequence[str]:
    lines = []
    if not compared.commit:
        lines.append(f"There is no commit {code(compared.base)} here: nothing is compared.")
    elif compared.is_first:
        lines.append(f"{code(compared.base)} has none of these files yet: there is nothing to compare with.")
    lines += compared.notes
    if compared.uncommitted:
        files = ", ".join(code(path) for path in compared.uncommitted)
        lines.append(
            f"**Training gave something else than is committed** in {files}. What it gave is shown; commit it, so that "
            "the next report compares with it."
        )
    return [line for text in lines for line in (f"> {text}", "")]


def _values(title: str, pairs: Sequence[Pair[Values]], compared: Compared, *, importance: int) -> Block:
    """A table: of parameters, those that change; of metrics, all."""
    rows = [*_rows(pairs)]
    is_compared = any(pair.base is not None for pair in pairs)
    same = [key for key, here, before in rows if is_compared and here == before] if title == "Parameters" else []
    items = [
        _row(key, here, before, compared.better.get(key), is_compared=is_compared)
        for key, here, before in rows
        if key not in same
    ]
    what = title.lower()
    if not items:
        text = f"None of the {len(same)} changes.\n" if same else "There are none.\n"
        return Block(what=what, importance=importance, head=f"\n### {title}\n\n", items=[text])
    base = f" {code(compared.base)} | this branch | change |" if is_compared else " this branch |"
    rule = "--:|--:|---|" if is_compared else "--:|"
    return Block(
        what=what,
        importance=importance,
        head=f"\n### {title}\n\n| |{base}\n|---|{rule}\n",
        items=items,
        foot=f"\nAs before: {', '.join(code(key) for key in same)}.\n" if same else "",
    )


_MISSING: Final = object()
"""In the place of a value that is not there; None is one that is."""


def _rows(pairs: Sequence[Pair[Values]]) -> Sequence[tuple[str, Any, Any]]:
    """Key, value here and value on the base; where there are several files, a key begins with its own."""
    rows = []
    for pair in pairs:
        prefix = f"{pair.path}: " if len(pairs) > 1 else ""
        before = pair.base or {}
        rows += [
            (f"{prefix}{key}", pair.here.get(key, _MISSING), before.get(key, _MISSING))
            for key in dict.fromkeys([*pair.here, *before])
        ]
    return rows


def _row(key: str, here: Any, before: Any, better: str | None, *, is_compared: bool) -> str:
    if not is_compared:
        return f"| {cell(key)} | {_cell(here)} |\n"
    return f"| {cell(key)} | {_cell(before)} | {_cell(here)} | {_change(here, before, better)} |\n"


def _cell(value: Any) -> str:
    return "" if value is _MISSING else cell(shown(value))


def _change(here: Any, before: Any, better: str | None) -> str:
    if before is _MISSING:
        return "new"
    if here is _MISSING:
        return "gone"
    if here == before:
        return ""
    if not (_is_number(here) and _is_number(before)):
        return "changed"
    told = f"{here - before:+.6g}"
    if better is None:
        return told
    return f"{told} {'▲ better' if (here > before) == (better == 'higher') else '▼ worse'}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
