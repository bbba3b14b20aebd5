"""Files and folders in DVC, by repository, path and revision; the program ``dvc`` fetches them."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from model_serving.problems import InvalidInput, Problem
from model_serving.releases.converters.draft import Draft, read_settings

HELP: Final = "a file or folder that DVC tracks, at a revision of its repository"
EXAMPLE: Final = (
    "python -m model_serving convert dvc https://gitlab.example.com/group/iris.git build/model.joblib --rev v1.0.0 \\\n"
    "    --implementation mlserver_sklearn.SKLearnModel --name iris --version v1.0.0 --lock requirements.lock"
)
_SHOWN_LINES: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", help="address or folder of the git repository")
    parser.add_argument("path", help="of the file or folder, from the repository's root")
    parser.add_argument("--rev", help="commit, tag or branch; by default the newest commit of the default branch")
    parser.add_argument("--implementation", help="class that serves it, e.g. mlserver_sklearn.SKLearnModel")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="a model-settings.json to start from")
    parser.add_argument("--dvc", default="dvc", metavar="PROGRAM", help="by default dvc on PATH")


def draft(options: argparse.Namespace, scratch: Path) -> Draft:
    settings: dict[str, Any] = read_settings(options.settings) if options.settings else {"parameters": {}}
    if options.implementation:
        settings["implementation"] = options.implementation
    if problems := [*_problems(options, is_served="implementation" in settings)]:
        raise InvalidInput(problems)
    name = Path(options.path).name
    _fetch(options, scratch / "fetched" / name)
    settings["parameters"] |= {"uri": f"./{name}"}
    return Draft(
        name=options.name,
        version=options.version,
        settings=settings,
        files={name: scratch / "fetched" / name},
    )


def _problems(options: argparse.Namespace, *, is_served: bool) -> Iterator[Problem]:
    if not is_served:
        yield Problem(
            file="--implementation",
            what="is missing, and no --settings contains it",
            consequence="MLServer would not know how to serve the file: DVC does not tell what it is.",
            remedy="Name the class, e.g. --implementation mlserver_sklearn.SKLearnModel; docs/runtimes.md lists them.",
        )
    if Path(options.path).name in {"", ".."}:
        yield Problem(
            file="PATH",
            what=f'is "{options.path}", which is the name of no file or folder',
            consequence="The release would have no artefact.",
            remedy="Write its path from the repository's root, e.g. build/model.joblib.",
        )
    if shutil.which(options.dvc) is None:
        yield Problem(
            file="--dvc",
            what=f"{options.dvc} is not installed",
            consequence="Nothing could be fetched.",
            remedy="Install it: pip install dvc, or dvc[gs] for a bucket; or name its path: --dvc PROGRAM",
        )
    if "@" in options.repository.partition("://")[2].partition("/")[0]:
        yield Problem(
            file="REPOSITORY",
            what="has an account in it",
            consequence="Its password would be in the process list and in DVC's messages.",
            remedy="Write only the address, and give the account to git's credential helper.",
        )


def _fetch(options: argparse.Namespace, target: Path) -> None:
    target.parent.mkdir()
    revision = [f"--rev={options.rev}"] if options.rev else []
    # Not --quiet, which would also hide the reason of a failure.
    command = [options.dvc, "get", "--out", str(target), *revision, "--", options.repository, options.path]
    print(f"fetching {options.path} with {options.dvc}", flush=True)
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = "\n".join(f"    {line}" for line in lines[-_SHOWN_LINES:])
        raise InvalidInput.of(
            options.repository,
            f"{options.path} cannot be fetched at {options.rev or 'its newest commit'}. DVC says:\n{said}",
            "There would be nothing to release.",
            "Correct the path or the --rev; if the remote lacks it, run dvc push where it was trained.",
        )
