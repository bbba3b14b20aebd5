"""The command ``convert``: makes a release of a model that another tool has saved, or says what it lacks.

The release is checked as the serving side will check it, and appears as a whole or not at all.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from model_serving import catalog
from model_serving.catalog import Release
from model_serving.catalog.contents import IGNORED
from model_serving.catalog.pointers import MEBIBYTE
from model_serving.catalog.requirements import normal
from model_serving.catalog.training_versions import PROVENANCE, trained_with
from model_serving.images import large_files
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.converters import draft, dvc, mlem, mlflow, older
from model_serving.releases.converters.draft import Converter, Draft, nested
from model_serving.releases.project import Artefacts

NAME: Final = "convert"
HELP: Final = "make a release of a model that MLEM, DVC, MLflow or the older layout keeps"
CONVERTERS: Final[Mapping[str, Converter]] = {"mlem": mlem, "dvc": dvc, "mlflow": mlflow, "older": older}
LARGEST_MEBIBYTES: Final = Artefacts().largest_mebibytes
LARGEST_BYTES: Final = LARGEST_MEBIBYTES * MEBIBYTE
MLSERVER: Final = "1.7.1"
"""That a lock is suggested with; its runtimes are released with it, under the same version."""
_SCRATCH: Final = ".converting"
_NO_LOCK: Final = f"--hash=sha256:{'0' * 64}"
"""Of each package while there is no lock, so that everything else can be checked too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"example:\n  {mlflow.EXAMPLE}"
    sources = parser.add_subparsers(dest="kind", required=True, metavar="SOURCE")
    for kind, converter in CONVERTERS.items():
        own = sources.add_parser(
            kind,
            help=converter.HELP,
            description=f"Make a release of {converter.HELP}.",
            epilog=f"example:\n  {converter.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        converter.add_arguments(own)
        told = "; by default what the folder's name says" if kind == "older" else ""
        own.add_argument("--name", required=kind != "older", help=f"of the model{told}")
        own.add_argument("--version", required=kind != "older", help=f"of the release, e.g. v1.0.0{told}")
        own.add_argument("--lock", type=Path, metavar="FILE", help="requirements with hashes that it is served with")
        own.add_argument(
            "--out", type=Path, default=Path("models"), metavar="DIR", help="gets NAME/VERSION (%(default)s)"
        )
        own.add_argument(
            "--remote",
            metavar="URL",
            help=f"DVC remote for files of more than {LARGEST_MEBIBYTES} MiB, gs://, s3://, az:// or file:///",
        )


def run(options: argparse.Namespace) -> int:
    if options.lock and not options.lock.is_file():
        raise draft.unusable(
            options.lock, "is no file", "Correct the path, or leave --lock out to be told what to lock."
        )
    try:
        return _convert(options)
    except OSError as error:
        place = Path(error.filename or options.out)
        raise draft.unusable(place, error.strerror or str(error), "Make it usable, or say another place.") from None


def _convert(options: argparse.Namespace) -> int:
    with _scratch_in(options.out) as scratch:
        found = CONVERTERS[options.kind].draft(options, scratch)
        release = _checked(found, options.lock or found.lock, scratch / "checked")
        if options.remote:
            large_files.replace_large(release.folder, largest=LARGEST_BYTES, remote=options.remote, say=print)
        print(_deliver(release, options.out))
    for remark in found.remarks:
        print(f"  {remark}")
    if release.request is None:
        print("  It has no request.json: add one, and a response.json, so that it is tried before it gets traffic.")
    return 0


@contextmanager
def _scratch_in(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the releases, so that one is moved in a moment; whatever a killed run left in it goes."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    scratch = folder / _SCRATCH
    try:
        # Two commands at once wait for each other here; the end of a process, however it comes, lets go.
        fcntl.flock(handle, fcntl.LOCK_EX)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        os.close(handle)


def _checked(found: Draft, lock: Path | None, models: Path) -> Release:
    """Writes the release and reads it as the serving side does.

    Raises:
        InvalidInput: with everything that is missing.
    """
    _refuse_paths(found)
    folder = models / found.name / found.version
    _write(found, folder)
    pins = _pins(found, folder)
    text = lock.read_bytes() if lock else "".join(f"{each} {_NO_LOCK}\n" for each in pins).encode()
    (folder / catalog.LOCK).write_bytes(text)
    problems = [] if lock else [_unlocked(f"{found.name}/{found.version}", pins)]
    try:
        read = catalog.read(models, root=models)
    except InvalidInput as error:
        raise InvalidInput([*problems, *error.problems]) from None
    if problems:
        raise InvalidInput(problems)
    return read.get(found.name, found.version)


def _refuse_paths(found: Draft) -> None:
    """The rest of the rules for both is the catalog's; but it reads a folder, and these would be another one."""
    problems = [
        Problem(
            file=option,
            what=f"{value!r} is the name of no folder",
            consequence="The release would be somewhere else.",
            remedy=f"Write it without a path, like {example}.",
        )
        for option, value, example in (("--name", found.name, "iris"), ("--version", found.version, "v1.0.0"))
        if value in {"", ".", ".."} or "/" in value
    ]
    if problems:
        raise InvalidInput(problems)


def _write(found: Draft, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, source in found.files.items():
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(*IGNORED))
        else:
            shutil.copyfile(source, folder / name)
    parameters = dict(found.settings["parameters"]) | {"version": found.version}
    settings = {"name": found.name} | dict(found.settings) | {"name": found.name, "parameters": parameters}
    _write_json(folder / catalog.SETTINGS, settings)
    if found.trained_with:
        _write_json(folder / PROVENANCE, {"packages": dict(found.trained_with)})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _pins(found: Draft, folder: Path) -> Sequence[str]:
    """The requirements of the release as far as it tells them."""
    implementation = str(found.settings.get("implementation", ""))
    runtime = implementation.partition(".")[0]
    uri = nested(found.settings, "parameters", "uri")
    told = trained_with(folder, implementation, folder / str(uri) if uri else None)
    servers = [f"mlserver=={MLSERVER}"]
    if runtime.startswith("mlserver_"):
        servers.append(f"{normal(runtime)}=={MLSERVER}")
    pins = [f"{normal(name)}=={version}" for name, version in found.trained_with.items()]
    pins += [f"{each.package}=={each.version}" for each in told]
    return list(dict.fromkeys([*servers, *pins, *found.requirements]))


def _unlocked(release: str, pins: Sequence[str]) -> Problem:
    command = f"printf '%s\\n' {shlex.join(pins)} | uv pip compile --python-version 3.11 --generate-hashes -"
    return Problem(
        file=release,
        what=f"has no {catalog.LOCK}",
        consequence="Nobody could tell which packages it is served with.",
        remedy=f"Lock what it was trained with, and say --lock {catalog.LOCK}: {command} --output-file {catalog.LOCK}",
    )


def _deliver(release: Release, out: Path) -> str:
    """Puts the release where it belongs; returns what there is to say.

    Raises:
        InvalidInput: if another one is there.
    """
    target = out / release.name / release.version
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        release.folder.rename(target)
        return f"{target} is made."
    there = replace(release, folder=target)
    if there.content_hash == release.content_hash:
        return f"{target} is there already, just like this."
    raise InvalidInput(
        [
            Problem(
                file=str(target),
                what="is there already, with other content",
                consequence="What a version is would change after it was released.",
                remedy="Say another --version.",
            )
        ]
    )
