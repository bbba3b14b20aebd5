"""The command line of the local cluster: ``python -m local.cluster start``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from local.cluster import base_image, checks, wheels
from local.cluster.cluster import Cluster
from local.cluster.errors import LocalError
from local.cluster.layout import GATEWAY_ADDRESS, GATEWAY_PORT, PROJECT, REGISTRY, Layout
from local.cluster.processes import SYSTEM_PATH
from local.cluster.status import Status

EXAMPLE = """\
example:
  python -m local.cluster start && kubectl --kubeconfig .state/kubeconfig get nodes

The stack's kubeContext and registry say which cluster and registry are used; set them to use others than these.
"""


def main() -> int:
    options = _parser().parse_args()
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"  # which a root shell made by su has only in part
    try:
        checks.require_root()
        state = options.state.absolute()
        layout = Layout(name=options.name, state=state, bin=(options.bin or state / "bin").absolute())
        return int(COMMANDS[options.command](layout, options) or 0)
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(
            f"{' '.join(map(str, error.cmd))} failed with exit code {error.returncode}:\n{error.stderr}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "\nInterrupted. What was started goes on running: start goes on from here, stop ends it.", file=sys.stderr
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local.cluster",
        description="Run Kubernetes, an image registry, a builder and a gateway as processes of this machine.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state", type=Path, default=PROJECT / ".state", help="folder of its data (default: .state)")
    common.add_argument("--name", default="local", help="tells two on one machine apart (default: local)")
    common.add_argument("--bin", type=Path, help="folder of the tools (default: bin in the state folder)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("start", parents=[common], help="start what does not run, until the node is Ready")
    stop = commands.add_parser("stop", parents=[common], help="end everything and leave nothing behind but data")
    stop.add_argument("--delete", action="store_true", help="remove the cluster's objects too; caches stay")
    commands.add_parser("status", parents=[common], help="show each process; exit code 0 if all run")
    commands.add_parser("fetch", parents=[common], help="load into the cache what images needs from the network")
    commands.add_parser("images", parents=[common], help="provide the base image and the models' wheels")
    commands.add_parser("collect", parents=[common], help="free the space of images that were removed")
    return parser


def _say(message: str) -> None:
    print(message, flush=True)


def _start(layout: Layout, _: argparse.Namespace) -> None:
    began = time.monotonic()
    Cluster(layout, _say).start()
    elapsed = time.monotonic() - began
    _say(f"The local cluster is ready ({elapsed:.1f} s).")
    _say(f"  kubeconfig {layout.kubeconfig}")
    _say(f"  registry   {REGISTRY}")
    _say(f"  gateway    http://{GATEWAY_ADDRESS}:{GATEWAY_PORT}")


def _stop(layout: Layout, options: argparse.Namespace) -> None:
    began = time.monotonic()
    Cluster(layout, _say).stop(delete=options.delete)
    _say(f"The local cluster is stopped ({time.monotonic() - began:.1f} s).")


def _status(layout: Layout, _: argparse.Namespace) -> int:
    table, all_run = Status(layout).table()
    _say(table)
    return 0 if all_run else 1


def _fetch(layout: Layout, _: argparse.Namespace) -> None:
    base_image.ensure_made(layout, _say)
    wheels.ensure(layout, _say)


def _images(layout: Layout, _: argparse.Namespace) -> None:
    base_image.ensure_pushed(layout, _say)
    wheels.ensure(layout, _say)


def _collect(layout: Layout, _: argparse.Namespace) -> None:
    began = time.monotonic()
    size = Cluster(layout, _say).collect_garbage()
    elapsed = time.monotonic() - began
    _say(f"The registry has collected its garbage: {size / 1_000_000:.1f} MB are free ({elapsed:.1f} s).")


COMMANDS = {
    "start": _start,
    "stop": _stop,
    "status": _status,
    "fetch": _fetch,
    "images": _images,
    "collect": _collect,
}

if __name__ == "__main__":
    sys.exit(main())
