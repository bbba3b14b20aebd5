"""The command ``agent``: writes the GitLab agent's configuration file from a stack's agent section."""

import argparse
from pathlib import Path
from typing import Final

from model_serving.pipelines import stacks
from model_serving.problems import InvalidInput
from model_serving.stack import gitlab_agent, settings

HELP: Final = "write .gitlab/agents/<name>/config.yaml from the stack's agent section"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stack", required=True, help="name of the stack, e.g. dev for stacks/Pulumi.dev.yaml")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is out of date")
    parser.epilog = "Example: python -m model_serving agent --stack dev"


def run(options: argparse.Namespace) -> int:
    stack, chosen = options.stack, stacks.read(options.stack)
    if chosen.agent is None:
        raise InvalidInput.of(
            settings.file_of(stack),
            "model-serving:agent is missing",
            "The stack has no GitLab agent to configure.",
            "Add the section as described in docs/agent.md.",
        )
    if options.check:
        found = gitlab_agent.configuration_problems(chosen.agent, stack=stack, serving_namespace=chosen.namespace)
        if problems := [*found]:
            raise InvalidInput(problems)
        return 0
    environment = gitlab_agent.environment_of(chosen.agent, stack)
    path = Path(chosen.agent.configuration_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(chosen.agent.configuration_text(stack, environment, chosen.namespace), encoding="utf-8")
    print(f"Wrote {path}. GitLab reads it from the default branch of {chosen.agent.project}: commit it there.")
    return 0
