"""The command ``report``: compares params, metrics and plots of the working tree with a branch.

It reads only files and git. In a merge request, it is one note that each pipeline updates.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from model_serving import hosts
from model_serving.hosts.access import SiteError
from model_serving.hosts.blocks import LIMIT, Block, Fixed, fit_note
from model_serving.hosts.markdown import cell, code, link
from model_serving.hosts.posting import post
from model_serving.hosts.site import Run, Site
from model_serving.problems import InvalidInput, Problem
from model_serving.releases import project, report_pictures, report_plots
from model_serving.releases.project import Plot, Project
from model_serving.releases.report_files import Files, Pair, Table, Values, shown, table, values

HELP: Final = "compare params, metrics and plots with the target branch of a merge request"
COMMIT_CHARACTERS: Final = 12
EXAMPLE: Final = """\
examples:
  python -m model_serving report --base origin/main                 on a laptop, after training
  python -m model_serving report --base origin/main --post          in a merge request's job: writes its note

release.yaml says under report which files are shown.
"""
EMPTY: Final = "There are none.\n"
_MISSING: Final = object()
"""Stands for a missing value; None is a value."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The content of a report; ``uncommitted`` names the result files that differ from HEAD."""

    project: Project
    files: Files
    params: Sequence[Pair[Values]]
    metrics: Sequence[Pair[Values]]
    plots: Sequence[tuple[Plot, Pair[Table]]]
    uncommitted: Sequence[str]

    @property
    def is_first(self) -> bool:
        """Whether the base has none of the files."""
        values = [pair.base for pair in (*self.params, *self.metrics)]
        return all(base is None for base in (*values, *(pair.base for _, pair in self.plots)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--base", default="origin/main", help="branch or commit to compare with (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write; by default standard output")
    parser.add_argument(
        "--post", action="store_true", help="write it into the merge or pull request; if that fails, warn"
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
    elif not options.post:
        print(render(compared, run=job))
    if options.post and site:
        named = marker(compared.project.name)
        pictures = _pictures(compared, site, named)
        return post(site, named, lambda limit: render(compared, run=job, limit=limit, pictures=pictures))
    if options.post:
        print(
            "This is not a job of GitLab or GitHub: nothing was posted.\n"
            "  There is no merge request to write to.\n"
            "  Omit --post to read the report here."
        )
    return 0


def marker(name: str) -> str:
    """The hidden comment that identifies the note of a model."""
    return f"<!-- model-serving: report {name} -->"


def compare(chosen: Project, root: Path, *, base: str) -> Compared:
    """Reads the content of a report."""
    files, shows = Files(root=root, base=base), chosen.report
    params = [pair for path in shows.params if (pair := files.pair(path, values))]
    metrics = [pair for path in shows.metrics if (pair := files.pair(path, values))]
    parsers = [(plot, partial(table, required=report_plots.required(plot))) for plot in shows.plots]
    plots = [(plot, read) for plot, parse in parsers if (read := files.pair(plot.file, parse))]
    if problems := [*files.problems, *_unknown_metrics(chosen, metrics)]:
        raise InvalidInput(dict.fromkeys(problems))
    results = dict.fromkeys([*shows.metrics, *(plot.file for plot in shows.plots)])
    uncommitted = [path for path in results if files.is_uncommitted(path)]
    return Compared(project=chosen, files=files, params=params, metrics=metrics, plots=plots, uncommitted=uncommitted)


def _pictures(compared: Compared, site: Site, named: str) -> Mapping[int, str]:
    try:
        return report_pictures.uploaded(compared.plots, compared.files.base, site, named)
    except SiteError as error:
        print(f"{error}\n  The note has the plots as text.", file=sys.stderr)
        return {}


def render(
    compared: Compared, *, run: Run | None = None, limit: int = LIMIT, pictures: Mapping[int, str] | None = None
) -> str:
    """The report as Markdown of so many characters, with a link to the job that has the log of the training.

    ``pictures`` has Markdown that replaces a plot, by its place among the plots.
    """
    drawn = pictures or {}
    parts: list[Block | Fixed] = [
        Fixed(text=_head(compared, run)),
        _params(compared),
        _metrics(compared),
        *(
            report_plots.block(plot, pair, compared.files.base, drawn.get(number, ""))
            for number, (plot, pair) in enumerate(compared.plots)
        ),
    ]
    return fit_note(parts, limit, rest="See the files.")


def _unknown_metrics(chosen: Project, metrics: Sequence[Pair[Values]]) -> Iterator[Problem]:
    known = {key for key, _, _ in _rows(metrics)}
    for key in chosen.report.better:
        if known and key not in known:
            yield Problem(
                file=project.FILE,
                what=f"report.better.{key} names no metric",
                consequence="The report could not say that it got worse.",
                remedy=f"There are: {', '.join(sorted(known))}.",
            )


def _head(compared: Compared, run: Run | None) -> str:
    told = f"Compared with {code(compared.files.base)}"
    if compared.files.commit:
        told += f" at {code(compared.files.commit[:COMMIT_CHARACTERS])}"
    if run:
        told += f" · {link(run.name, run.url)}"
    warnings = [line for text in _warnings(compared) for line in (f"> {text}", "")]
    return "\n".join([f"## What this changes in {code(compared.project.name)}", "", told, "", *warnings])


def _warnings(compared: Compared) -> Iterator[str]:
    base = code(compared.files.base)
    if not compared.files.commit:
        yield f"There is no commit {base} here: nothing is compared."
    elif compared.is_first:
        yield f"{base} has none of these files yet: there is nothing to compare with."
    yield from dict.fromkeys(compared.files.notes)
    if compared.uncommitted:
        files = ", ".join(code(path) for path in compared.uncommitted)
        yield (
            f"**The results of training are not committed** in {files}. The report shows the new results; commit "
            "them, so that the next report compares with them."
        )


def _params(compared: Compared) -> Block:
    """Only those that change, and the names of the others."""
    rows = _rows(compared.params)
    is_compared = any(pair.base is not None for pair in compared.params)
    same = [key for key, here, before in rows if is_compared and here == before]
    return _values(
        "Parameters",
        [row for row in rows if row[0] not in same],
        compared,
        is_compared=is_compared,
        importance=4,
        foot=f"\nAs before: {', '.join(code(key) for key in same)}.\n" if same else "",
        empty=f"None of the {len(same)} changes.\n" if same else EMPTY,
    )


def _metrics(compared: Compared) -> Block:
    is_compared = any(pair.base is not None for pair in compared.metrics)
    return _values("Metrics", _rows(compared.metrics), compared, is_compared=is_compared, importance=5)


Row = tuple[str, Any, Any]
"""Key, value here, and value at the base."""


def _rows(pairs: Sequence[Pair[Values]]) -> Sequence[Row]:
    """All values; keys of several files begin with the file."""
    rows = []
    for pair in pairs:
        prefix = f"{pair.path}: " if len(pairs) > 1 else ""
        before = pair.base or {}
        rows += [
            (f"{prefix}{key}", pair.here.get(key, _MISSING), before.get(key, _MISSING))
            for key in dict.fromkeys([*pair.here, *before])
        ]
    return rows


def _values(
    title: str,
    rows: Sequence[Row],
    compared: Compared,
    *,
    is_compared: bool,
    importance: int,
    foot: str = "",
    empty: str = EMPTY,
) -> Block:
    head = f"\n### {title}\n\n"
    lines: list[tuple[str, ...]]
    if not rows:
        return Block(what=title.lower(), importance=importance, head=head, items=[empty])
    if is_compared:
        better = compared.project.report.better
        head += f"| | {code(compared.files.base)} | this branch | change |\n|---|--:|--:|---|\n"
        lines = [
            (cell(key), _cell(before), _cell(here), _change(here, before, better.get(key)))
            for key, here, before in rows
        ]
    else:
        head += "| | this branch |\n|---|--:|\n"
        lines = [(cell(key), _cell(here)) for key, here, _ in rows]
    items = [f"| {' | '.join(line)} |\n" for line in lines]
    return Block(what=title.lower(), importance=importance, head=head, items=items, foot=foot)


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
