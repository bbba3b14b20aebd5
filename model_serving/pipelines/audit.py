"""The command ``audit``: lists locked packages with known vulnerabilities, and what is locked to them.

It considers the locks of live releases, of the templates and of this program. pip-audit asks the package index for its
advisories, so the answer changes from day to day without any change here, and no test depends on it. Its environment
variables choose another source, e.g. PIP_AUDIT_VULNERABILITY_SERVICE.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_serving import catalog
from model_serving.catalog.requirements import locked
from model_serving.pipelines import stacks
from model_serving.problems import Failure, aligned, first_few
from model_serving.stack import live, settings

HELP: Final = "list locked packages with known vulnerabilities"
EXAMPLE: Final = """\
example:
  python -m model_serving audit

Exit code: 0 if there are none, 1 if there are some or if the advisories are not known.
"""
REMEDY: Final = (
    "Lock a fixed version as docs/runtimes.md describes. Releases never change: publish the next version with it."
)
OWN: Final = ("requirements*.txt", "server/portal/requirements.lock", "templates/**/*.lock", "templates/**/*.txt")
"""Locks of the program and of the templates."""
NOT_FIXED: Final = "none yet"
SECONDS: Final = 1800
"""For one run of pip-audit, which asks for one package after the other."""


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """A known vulnerability of a locked package.

    Attributes:
        name: its id, a CVE if there is one.
        fixed_in: versions, or NOT_FIXED.
        concerns: releases and files that lock the package.
    """

    package: str
    version: str
    name: str
    fixed_in: str
    concerns: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE


def run(options: argparse.Namespace) -> int:
    audited = locks(stacks.names())
    print(f"asking for advisories about the packages of {len(audited)} locks", flush=True)
    if not (found := advisories(audited)):
        print("no known vulnerabilities")
        return 0
    rows = [(each.package, each.version, each.name, each.fixed_in, first_few(each.concerns)) for each in found]
    print(aligned([("PACKAGE", "VERSION", "ADVISORY", "FIXED IN", "CONCERNS"), *rows]))
    print(f"\n{REMEDY}")
    return 1


def locks(names: Iterable[str]) -> Mapping[str, Path]:
    """The locks of live releases of these stacks, by model and version, and all others by path."""
    released = catalog.read(stacks.PROJECT / "models")
    found = {
        f"{model.name} {version.release.version}": version.release.lock
        for name in names
        for model in live.resolve(stacks.read(name), released, file=settings.file_of(name))
        for version in model.versions
    }
    own = sorted(path for pattern in OWN for path in stacks.PROJECT.glob(pattern))
    return found | {str(path.relative_to(stacks.PROJECT)): path for path in own}


def advisories(audited: Mapping[str, Path]) -> Sequence[Advisory]:
    """The known vulnerabilities of all locked packages; says of which packages nothing is known.

    Raises:
        Failure: if the advisories are not available.
    """
    concerns: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for what, lock in audited.items():
        for name, package in locked(lock.read_text(encoding="utf-8-sig")).items():
            for version in package.versions:
                concerns[name, version].append(what)
    answers = [(pins[answer["name"]], answer) for pins in _files(concerns) for answer in _ask(pins)]
    unknown = [f"{answer['name']} {version}" for version, answer in answers if "skip_reason" in answer]
    if answers and len(unknown) == len(answers):
        raise _unknown(f"the source knows none of them, such as {first_few(unknown, 3)}")
    if unknown:
        print(f"nothing is known of {first_few(unknown)}", file=sys.stderr)
    found = [
        Advisory(
            package=answer["name"],
            version=version,
            name=each["id"],
            fixed_in=", ".join(each["fix_versions"]) or NOT_FIXED,
            concerns=tuple(concerns[answer["name"], version]),
        )
        for version, answer in answers
        for each in answer.get("vulns", [])
    ]
    return sorted(found, key=lambda each: (each.package, each.version, each.name))


def _files(packages: Iterable[tuple[str, str]]) -> Iterator[Mapping[str, str]]:
    """Packages and versions in as few files as possible, because pip-audit accepts each package once."""
    versions: defaultdict[str, list[str]] = defaultdict(list)
    for name, version in sorted(packages):
        versions[name].append(version)
    for number in range(max(map(len, versions.values()), default=0)):
        yield {name: each[number] for name, each in versions.items() if number < len(each)}


def _ask(pins: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
    """What pip-audit answers about each package."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="audit-", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version in pins.items())
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--requirement", file.name, "--no-deps", "--disable-pip"]
        command += ["--format=json", "--desc=off", "--progress-spinner=off"]
        try:
            done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise _unknown(f"no answer within {SECONDS} s") from None
    try:
        answers: Sequence[Mapping[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError, TypeError):
        raise _unknown((done.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1]) from None
    return answers


def _unknown(why: str) -> Failure:
    return Failure(
        f"the advisories about the locked packages are not known: {why}\n"
        "  Whether they have known vulnerabilities was not checked.\n"
        "  Run this where the package index has advisories, or choose another source with "
        "PIP_AUDIT_VULNERABILITY_SERVICE (see pip-audit)."
    )
