"""The command ``convert``: creates a release of a model that another tool saved, or says what it lacks.

The release is checked as the serving side will check it, and appears as a whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from model_serving import catalog
from model_serving.catalog import Release, contents
from model_serving.catalog.contents import IGNORED
from model_serving.catalog.pointers import MEBIBYTE
from model_serving.catalog.requirements import LOCK_COMMAND, LOCK_HELP, normal
from model_serving.catalog.training_versions import PROVENANCE, trained_with
from model_serving.images import large_files
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.converters import draft, dvc, mlem, mlflow, older
from model_serving.releases.converters.draft import Converter, Draft, nested
from model_serving.releases.project import Artefacts
from model_serving.releases.release import put

HELP: Final = "create a release of a model saved by MLEM, DVC or MLflow, or in the older layout"
CONVERTERS: Final[Mapping[str, Converter]] = {"mlem": mlem, "dvc": dvc, "mlflow": mlflow, "older": older}
LARGEST_MEBIBYTES: Final = Artefacts().largest_mebibytes
LARGEST_BYTES: Final = LARGEST_MEBIBYTES * MEBIBYTE
MLSERVER: Final = "1.7.1"
"""In the lock that is suggested; MLServer's runtimes have the same version."""
_NO_LOCK: Final = f"--hash=sha256:{'0' * 64}"
"""Of each package as long as there is no lock, so that everything else can be checked too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"example:\n  {mlflow.EXAMPLE}"
    sources = parser.add_subparsers(dest="kind", required=True, metavar="SOURCE")
    for kind, converter in CONVERTERS.items():
        own = sources.add_parser(
            kind,
            help=converter.HELP,
            description=f"Create a release of {converter.HELP}.",
            epilog=f"example:\n  {converter.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        converter.add_arguments(own)
        told = "; by default from the folder's name" if kind == "older" else ""
        own.add_argument("--name", required=kind != "older", help=f"of the model{told}")
        own.add_argument("--version", required=kind != "older", help=f"of the release, e.g. v1.0.0{told}")
        own.add_argument("--lock", type=Path, metavar="FILE", help="requirements with hashes to serve it with")
        own.add_argument(
            "--out", type=Path, default=Path("models"), metavar="DIR", help="gets NAME/VERSION (%(default)s)"
        )
        own.add_argument(
            "--remote",
            metavar="URL",
            help=f"DVC remote for files of more than {LARGEST_MEBIBYTES} MiB: gs://, s3://, az:// or file:///",
        )


def run(options: argparse.Namespace) -> int:
    if options.lock and not options.lock.is_file():
        raise draft.unusable(
            options.lock, "is not a file", "Correct the path, or leave --lock out to be told what to lock."
        )
    try:
        with tempfile.TemporaryDirectory(prefix="convert-", ignore_cleanup_errors=True) as scratch:
            _convert(options, Path(scratch))
    except OSError as error:
        place = Path(error.filename or options.out)
        raise draft.unusable(place, error.strerror or str(error), "Make it usable, or name another place.") from None
    return 0


def _convert(options: argparse.Namespace, scratch: Path) -> None:
    found = CONVERTERS[options.kind].draft(options, scratch)
    named: Path | None = getattr(options, "source", None)
    release = _checked(found, options.lock or found.lock, scratch / "checked", named=named)
    if options.remote:
        large_files.replace_large(release.folder, largest=LARGEST_BYTES, remote=options.remote, say=print)
    print(_deliver(release, options.out))
    for remark in [*found.remarks, *_left_out(found)]:
        print(f"  {remark}")
    if release.request is None:
        print("  It has no request.json: add one, and a response.json, so that it is tried before it gets traffic.")


def _checked(found: Draft, lock: Path | None, models: Path, *, named: Path | None) -> Release:
    """Writes the release and reads it as the serving side does.

    Raises:
        InvalidInput: with everything that is missing.
    """
    if problems := [*_problems_of_paths(found), *_problems_of_links(found, named)]:
        raise InvalidInput(problems)
    folder = models / found.name / found.version
    _write(found, folder)
    pins = _pins(found, folder)
    text = lock.read_bytes() if lock else "".join(f"{each} {_NO_LOCK}\n" for each in pins).encode()
    (folder / catalog.LOCK).write_bytes(text)
    unlocked = [] if lock else [_unlocked(f"{found.name}/{found.version}", pins)]
    try:
        read = catalog.read(models, root=models)
    except InvalidInput as error:
        names = {f"{found.name}/{found.version}/{catalog.LOCK}": str(lock or catalog.LOCK)}
        raise InvalidInput([*unlocked, *(each.with_names(names) for each in error.problems)]) from None
    if unlocked:
        raise InvalidInput(unlocked)
    return read.get(found.name, found.version)


def _problems_of_paths(found: Draft) -> Iterator[Problem]:
    """The catalog checks all other rules for names and versions, but it would read another folder."""
    for option, value, example in (("--name", found.name, "iris"), ("--version", found.version, "v1.0.0")):
        if value in {"", ".", ".."} or "/" in value:
            yield Problem(
                file=option,
                what=f"{value!r} is not the name of a folder",
                consequence="The release would be somewhere else.",
                remedy=f"Write it without a path, like {example}.",
            )


def _problems_of_links(found: Draft, named: Path | None) -> Iterator[Problem]:
    """Links that lead out of the source's repository, or without one, of its folder.

    Args:
        found: the release.
        named: what the command line names, which may be a link itself.
    """
    for source in found.files.values():
        place = source.resolve() if source == named else source.absolute()
        inside = next((each for each in place.parents if (each / ".git").exists()), place.parent)
        links = [(place, contents.wrong_link(place, inside=inside, copied=True))]
        if place.is_dir():
            links += contents.wrong_links(place, inside=inside, copied=True)
        for path, what in links:
            if what:
                yield draft.lacking(path, what, "Put the file itself there, or get the model again.")


def _write(found: Draft, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, source in found.files.items():
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(*IGNORED, catalog.SETTINGS))
        else:
            shutil.copyfile(source, folder / name)
    parameters = dict(found.settings["parameters"]) | {"version": found.version}
    settings = {"name": found.name} | dict(found.settings) | {"name": found.name, "parameters": parameters}
    _write_json(folder / catalog.SETTINGS, settings)
    if found.request:
        _write_json(folder / catalog.REQUEST, found.request)
    if found.trained_with:
        _write_json(folder / PROVENANCE, {"packages": dict(found.trained_with)})


def _left_out(found: Draft) -> Iterator[str]:
    """MLServer would load each of these as a model of its own, and it may have the same name."""
    for name, source in found.files.items():
        for path in sorted(source.rglob(catalog.SETTINGS)):
            inner = Path(name) / path.relative_to(source)
            yield f"{inner} is left out: a release has only the {catalog.SETTINGS} at its top."


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    # Half of a character stays JSON that can be read, and refused by name.
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _pins(found: Draft, folder: Path) -> Sequence[str]:
    """The known requirements of the release."""
    implementation = str(found.settings.get("implementation", ""))
    runtime = implementation.partition(".")[0]
    uri = nested(found.settings, "parameters", "uri")
    told = trained_with(folder, implementation, folder / str(uri) if uri else None)
    servers = ["mlserver", *([normal(runtime)] if runtime.startswith("mlserver_") else [])]
    pins = [f"{name}=={MLSERVER}" for name in servers]
    pins += [f"{normal(name)}=={version}" for name, version in found.trained_with.items()]
    pins += [f"{each.package}=={each.version}" for each in told]
    return list(dict.fromkeys([*pins, *found.requirements]))


def _unlocked(release: str, pins: Sequence[str]) -> Problem:
    command = f"printf '%s\\n' {shlex.join(pins)} | {LOCK_COMMAND} -"
    return Problem(
        file=release,
        what=f"has no {catalog.LOCK}",
        consequence="The packages to serve it with would be unknown.",
        remedy=f"Lock what it was trained with, and add --lock {catalog.LOCK}: {command} --output-file {catalog.LOCK} "
        f"({LOCK_HELP})",
    )


def _deliver(release: Release, out: Path) -> str:
    """Puts the release in its place; returns the outcome for people.

    Raises:
        InvalidInput: if another one is there.
    """
    target = out / release.name / release.version
    if not target.exists():
        put(release.folder, target)
        return f"{target} is made."
    if replace(release, folder=target).content_hash == release.content_hash:
        return f"{target} is there already, with the same content."
    raise InvalidInput.of(
        str(target),
        "is there already, with other content",
        "A released version must never change.",
        "Choose another --version.",
    )
