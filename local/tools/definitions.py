"""Fetches the definitions of the kinds that GKE adds to Kubernetes, for the tests, into the cache of the other tools.

``python -m local.tools.definitions --bin FOLDER`` leaves a link to them beside FOLDER. They are files of Google's own
Go modules, whose versions and sums are in gke-definitions/; Go refuses a module with another sum. Those of Gateway API
come with Contour, see tools.toml.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from local.cluster.locks import ensure_folder
from local.tools.build import replace_link
from local.tools.golang import go_command
from local.tools.recipe import BuildError, cache_folder

HERE: Final = Path(__file__).resolve().parent
MODULE: Final = HERE / "gke-definitions"
FILES: Final = {
    "github.com/GoogleCloudPlatform/gke-gateway-api": "config/crd/*.yaml",
    "github.com/GoogleCloudPlatform/prometheus-engine": "charts/operator/crds/*_podmonitorings.yaml",
}
"""Module of go.mod -> its files, under the Apache License 2.0."""
LINK: Final = "share-gke"


def provide(cache: Path) -> Path:
    """Ensures that the definitions are in the cache; returns their folder."""
    recipe = (*sorted(MODULE.iterdir()), Path(__file__))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in recipe)).hexdigest()[:16]
    folder = cache / "tools" / f"{MODULE.name}-{key}"

    def make(made: Path) -> None:
        print("fetching the definitions of GKE's kinds", flush=True)
        for module, pattern in FILES.items():
            found = sorted(_download(module, cache).glob(pattern))
            if not found:
                raise BuildError(f"{module} has no files {pattern}.")
            for path in found:
                shutil.copyfile(path, made / path.name)

    ensure_folder(folder, make, waiting="another command fetches the definitions of GKE's kinds, waiting")
    return folder


def _download(module: str, cache: Path) -> Path:
    go = tomllib.loads((HERE / "tools.toml").read_text())["go"]
    _, version = next(line.split() for line in (MODULE / "go.mod").read_text().splitlines() if module in line)
    environment = os.environ | {"GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    command = [go_command(go["version"], go["package"], cache), "mod", "download", "-json", f"{module}@{version}"]
    done = subprocess.run(command, cwd=MODULE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{module} could not be fetched.\n{done.stdout}{done.stderr}".strip())
    return Path(json.loads(done.stdout)["Dir"])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog="Example: python -m local.tools.definitions --bin .state/bin"
    )
    parser.add_argument("--bin", type=Path, required=True, help="folder of the tools; the link is made beside it")
    options = parser.parse_args()
    try:
        folder = provide(cache_folder())
    except BuildError as error:
        print(f"make test-cluster: {error}", file=sys.stderr)
        return 1
    options.bin.mkdir(parents=True, exist_ok=True)
    replace_link(options.bin.absolute().parent / LINK, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
