"""The command line of the local cluster: ``python -m local.cluster start``."""

import argparse
import io
import os
import subprocess
import sys
import time
from pathlib import Path

from local.cluster import base_image, checks, ports, status, wheels
from local.cluster.cluster import Cluster
from local.cluster.layout import LOOPBACK, PROJECT, REGISTRY, Layout, hand_over
from local.cluster.processes import SYSTEM_PATH
from model_serving.problems import Failure

EXAMPLE = """\
example:
  python -m local.cluster start && kubectl --kubeconfig .state/kubeconfig get nodes

To use another cluster and registry, set the stack's kubeContext and registry.
"""
COMMANDS = {
    "start": "start all processes that do not run, and wait until the node is Ready",
    "stop": "end all processes and remove their traces; only data stays",
    "status": "show each process; exit code 0 if all run",
    "fetch": "download into the cache what the command images needs",
    "images": "provide the base image and the models' wheels",
    "collect": "free the disk space of removed images",
}


def main() -> int:
    options = _parser().parse_args()
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"  # a root shell made by su lacks parts of it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        checks.require_root()
        state = options.state.absolute()
        layout = Layout(name=options.name, state=state, bin=(options.bin or state / "bin").absolute())
        try:
            return _run(options, layout)
        finally:
            hand_over(layout)
    except Failure as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        print(f"{command} failed with exit code {error.returncode}:\n{error.stderr}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error}\n  Repair it, and run the same command again: nothing is lost.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Started processes keep running: start continues, stop ends them.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local.cluster",
        description="Run Kubernetes, an image registry, a builder and a gateway as processes of this machine.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--state", type=Path, default=PROJECT / ".state", help="data folder (default: .state)")
        command.add_argument("--name", default="local", help="tells clusters on one machine apart (default: local)")
        command.add_argument("--bin", type=Path, help="folder of the tools (default: bin in the data folder)")
        if name == "stop":
            command.add_argument("--delete", action="store_true", help="also remove the cluster's objects; caches stay")
    return parser


def _run(options: argparse.Namespace, layout: Layout) -> int:
    began = time.monotonic()
    match options.command:
        case "start":
            Cluster(layout).start()
            print(
                f"The local cluster is ready ({time.monotonic() - began:.1f} s).\n"
                f"  kubeconfig {layout.kubeconfig}\n  registry   {REGISTRY}\n"
                f"  gateway    http://{LOOPBACK}:{ports.GATEWAY}"
            )
        case "stop":
            Cluster(layout).stop(delete=options.delete)
            print(f"The local cluster is stopped ({time.monotonic() - began:.1f} s).")
        case "status":
            table, all_run = status.table(layout)
            print(table)
            return 0 if all_run else 1
        case "fetch":
            base_image.ensure_made()
            wheels.ensure(layout)
        case "images":
            base_image.ensure_pushed()
            wheels.ensure(layout)
        case "collect":
            freed = Cluster(layout).collect_garbage() / 1e6
            print(f"Freed {freed:.1f} MB of the image registry's space ({time.monotonic() - began:.1f} s).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
