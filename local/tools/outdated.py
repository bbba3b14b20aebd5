"""Lists what is pinned and has a newer version: ``python -m local.tools.outdated``.

It asks with Go, uv and npm themselves, so that their settings of proxies and mirrors hold; no test depends on answers.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from local.tools import environments, golang, node, recipe
from local.tools.recipe import BuildError, cache_folder
from model_serving.problems import aligned

PROJECT: Final = Path(__file__).resolve().parents[2]
HEADER: Final = ("WHERE", "WHAT", "PINNED", "NEWEST")
SECONDS: Final = 120


class Pin(NamedTuple):
    """Something that is pinned, and the newest version that there is."""

    where: str
    what: str
    pinned: str
    newest: str


def of_go(go: str) -> Iterator[Pin]:
    """The modules that each tool's folder requires directly."""
    for tool in recipe.load()[1]:
        folder = recipe.HERE / tool.name
        described = json.loads(_run([go, "mod", "edit", "-json"], folder))
        wanted = [each["Path"] for each in described.get("Require", []) if not each.get("Indirect")]
        own = [each["Old"]["Path"] for each in described.get("Replace") or [] if "Version" not in each["New"]]
        if asked := [module for module in wanted if module not in own]:
            lines = "{{.Path}} {{.Version}} {{with .Update}}{{.Version}}{{end}}"
            for line in _run([go, "list", "-m", "-u", "-f", lines, *asked], folder).splitlines():
                path, version, *newer = line.split()
                if newer:
                    yield Pin(f"local/tools/{tool.name}", path, version, newer[0])


def of_python(uv: str, python: str | Path, *files: Path) -> Iterator[Pin]:
    """The packages that files of requirements name, as they are in an environment; not what these bring."""
    named: dict[str, str] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"[A-Za-z0-9][\w.-]*", line):
                named.setdefault(_normal(found[0]), file.relative_to(PROJECT).as_posix())
    command = [uv, "pip", "list", "--outdated", "--format", "json", "--python", str(python)]
    for each in json.loads(_run(command, PROJECT)):
        if file_name := named.get(_normal(each["name"])):
            yield Pin(file_name, each["name"], each["version"], each["latest_version"])


def of_site(uv: str) -> Iterator[Pin]:
    """The packages that build the documents as a site, which have an environment of their own."""
    folder = PROJECT / "docs"
    environment = environments.provide(folder / "requirements.txt")
    return of_python(uv, environment / "bin" / "python", folder / "requirements.in")


def of_node(npm: list[str]) -> Iterator[Pin]:
    """The packages of package.json, locked beside it."""
    locked = json.loads((node.HERE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    # With exit code 1 if anything is out of date.
    told: Mapping[str, Any] = json.loads(_run([*npm, "outdated", "--json"], node.HERE, may_fail=True) or "{}")
    for name, each in told.items():
        yield Pin("local/tools/gitlab-ci-local", name, locked[f"node_modules/{name}"]["version"], each["latest"])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(command: list[str], folder: Path, *, may_fail: bool = False) -> str:
    environment = os.environ | {"GOWORK": "off", "GOFLAGS": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=SECONDS, check=False
    )
    if done.returncode and not may_fail:
        raise BuildError(f"{' '.join(command[:3])} failed in {folder}:\n{done.stderr.strip()}")
    return done.stdout


def main() -> int:
    go, cache = recipe.load()[0], cache_folder()
    uv = str(Path(sys.executable).with_name("uv"))
    asked: tuple[Callable[[], Iterable[Pin]], ...] = (
        lambda: of_go(golang.go_command(go["version"], go["package"], cache)),
        lambda: of_python(uv, sys.executable, *sorted(PROJECT.glob("requirements*.in"))),
        lambda: of_site(uv),
        lambda: of_node([*node.node_and_npm(cache)]),
    )
    pins: list[Pin] = []
    failed = False
    for ask in asked:
        try:
            pins += ask()
        except (BuildError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            failed = True
            print(f"make outdated: {error}", file=sys.stderr)
    print(aligned([HEADER, *sorted(set(pins))]) if pins else "Nothing that answered has a newer version.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
