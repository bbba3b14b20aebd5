"""Virtual environments of locked requirements, each made once, into the cache of the tools.

``python -m local.tools.environments LOCK [LOCK …]`` makes one of all locks together and prints its folder. Models are
trained and tried in them: what a model needs is nothing that the program has.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from local.cluster.locks import held
from local.tools.build import BuildError, cache_folder

UV: Final = Path(sys.executable).with_name("uv")


def key(locks: Sequence[Path]) -> str:
    """Of the environment: the Python and what the locks say, in whatever order."""
    texts = sorted(lock.read_bytes() for lock in locks)
    return hashlib.sha256(b"\0".join([sys.version.encode(), *texts])).hexdigest()[:16]


def provide(*locks: Path) -> Path:
    """Makes sure that the environment is in the cache; returns its folder, with ``bin/python`` in it.

    Raises:
        BuildError: if a package cannot be had, with uv's own words.
    """
    folder = cache_folder() / "environments" / key(locks)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with held(folder.parent / "lock", waiting="another command makes an environment, waiting", report=_say):
            if not folder.is_dir():
                _make(folder, locks)
    return folder


def _make(folder: Path, locks: Sequence[Path]) -> None:
    _say(f"making the environment of {', '.join(map(str, locks))}")
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        _run("venv", "--quiet", "--python", sys.executable, "--relocatable", str(scratch / "made"))
        _run(
            *("pip", "install", "--quiet", "--python", str(scratch / "made" / "bin" / "python")),
            *("--require-hashes", "--compile-bytecode"),
            *(word for lock in locks for word in ("--requirement", str(lock))),
        )
        (scratch / "made").rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _run(*arguments: str) -> None:
    done = subprocess.run([str(UV), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"uv {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr.strip()}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Example: python -m local.tools.environments models/iris-dtc/1.0/requirements.lock",
    )
    parser.add_argument("locks", type=Path, nargs="+", metavar="LOCK", help="file of requirements with hashes")
    try:
        print(provide(*parser.parse_args().locks))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
