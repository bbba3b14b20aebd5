"""The command ``plugins``: installs the Pulumi plugins that a stack needs and that ``make tools`` does not build."""

import argparse
import importlib.metadata
import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from model_serving.pipelines import stacks
from model_serving.problems import Failure

HELP: Final = "install the Pulumi plugins of a stack's clouds, as Pulumi itself does"
PLUGINS: Final[Mapping[str, str]] = {"gcp": "gcp", "agent": "gitlab"}
"""Section of a stack file -> the plugin that its resources need. Plugins of the cluster and of images are built."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stack", required=True, help="stack whose sections decide what is needed")
    parser.epilog = "Example: python -m model_serving plugins --stack dev"


def run(options: argparse.Namespace) -> int:
    wanted = {PLUGINS[section] for section in stacks.sections(options.stack) & PLUGINS.keys()}
    for plugin in sorted(wanted):
        install(plugin, importlib.metadata.version(f"pulumi-{plugin}"), stack=options.stack)
    return 0


def install(plugin: str, version: str, *, stack: str) -> None:
    """Installs a plugin in a version, unless it is there already.

    Raises:
        Failure: if it cannot be downloaded.
    """
    listed = json.loads(_pulumi("plugin", "ls", "--json").stdout or "[]")
    if any((each["kind"], each["name"], each.get("version")) == ("resource", plugin, version) for each in listed):
        return
    command = ("plugin", "install", "resource", plugin, version)
    print(
        f"The stack {stack} needs the Pulumi plugin {plugin} {version}. Downloading it from Pulumi's releases into "
        f"{os.environ.get('PULUMI_HOME', '~/.pulumi')}/plugins: {shlex.join(('pulumi', *command))}",
        flush=True,
    )
    done = _pulumi(*command)
    if done.returncode:
        raise Failure(
            f"the Pulumi plugin {plugin} {version} could not be installed: {done.stderr.strip()}\n"
            f"  Without it, nothing of the stack {stack} can be previewed or changed.\n"
            "  Check that get.pulumi.com and github.com can be reached (HTTPS_PROXY names a proxy), and run this again."
        )


def _pulumi(*arguments: str) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = ("pulumi", *arguments)
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
