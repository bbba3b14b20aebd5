"""Virtual environments of locked requirements, each made once, in the cache of the tools.

``python -m local.tools.environments LOCK [LOCK …]`` makes one from all locks together and prints its folder. Models are
trained and tested in them, because a model's packages are independent of the program's.
"""

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from local.cluster.locks import ensure_folder
from local.tools.recipe import BuildError, cache_folder

UV: Final = Path(sys.executable).with_name("uv")


def key(locks: Sequence[Path]) -> str:
    """Hash of the Python version and of the locks' content, in any order."""
    texts = sorted(lock.read_bytes() for lock in locks)
    return hashlib.sha256(b"\0".join([sys.version.encode(), *texts])).hexdigest()[:16]


def provide(*locks: Path) -> Path:
    """Ensure that the environment is in the cache; returns its folder, which contains ``bin/python``.

    Raises:
        BuildError: a package cannot be installed; with uv's message.
    """

    def make(folder: Path) -> None:
        _say(f"making the environment of {', '.join(map(str, locks))}")
        _run("venv", "--quiet", "--python", sys.executable, "--relocatable", str(folder))
        _run(
            *("pip", "install", "--quiet", "--python", str(folder / "bin" / "python")),
            # Locks are complete, and may replace what a package asks for.
            *("--require-hashes", "--no-deps", "--compile-bytecode"),
            *(word for lock in locks for word in ("--requirement", str(lock))),
        )

    folder = cache_folder() / "environments" / key(locks)
    ensure_folder(folder, make, waiting="another command makes an environment, waiting", report=_say)
    return folder


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _run(*arguments: str) -> None:
    done = subprocess.run([str(UV), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"uv {' '.join(arguments)} failed with exit code {done.returncode}:\n{done.stderr.strip()}")


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
