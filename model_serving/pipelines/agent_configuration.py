"""Writes what the GitLab agent may be used for into its file: ``python -m model_serving agent --stack dev``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from model_serving.pipelines import stacks
from model_serving.stack import gitlab_agent

NAME: Final = "agent"
HELP: Final = "write .gitlab/agents/<name>/config.yaml as the stack's agent section says"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stack", required=True, help="e.g. dev, whose settings are in stacks/Pulumi.dev.yaml")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the file says otherwise")
    parser.epilog = "Example: python -m model_serving agent --stack dev"


def run(options: argparse.Namespace) -> int:
    settings = stacks.read(options.stack)
    chosen = settings.agent
    if chosen is None:
        print(f"stacks/Pulumi.{options.stack}.yaml has no agent section: see docs/agent.md.", file=sys.stderr)
        return 1
    if options.check:
        found = [
            *gitlab_agent.configuration_problems(chosen, stack=options.stack, serving_namespace=settings.namespace)
        ]
        print("\n\n".join(map(str, found)), file=sys.stderr, end="\n" if found else "")
        return int(bool(found))
    environment = gitlab_agent.environment_of(chosen, options.stack)
    path = Path(chosen.configuration_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(chosen.configuration_text(options.stack, environment, settings.namespace))
    print(f"Wrote {path}. GitLab reads it from the default branch of {chosen.project}: commit it there.")
    return 0
