"""The command ``approval``: refuses to deploy where the stack asks for an approval and the site does not.

GitHub creates an environment that a job names and that does not exist, without rules: a merge would deploy at once.
GitLab's job is a manual one whatever its environment is, so there is nothing to look at.
"""

import argparse
import os
from collections.abc import Mapping
from typing import Final

from model_serving import hosts
from model_serving.hosts import github_setup
from model_serving.hosts.github import GitHub
from model_serving.pipelines import stacks
from model_serving.problems import Failure

HELP: Final = "refuse to deploy a stack whose environment on GitHub lacks the approval that the stack asks for"
BY_HAND: Final = ".github/workflows/mlops-deploy.yml"
"""Workflow in which a person picks the one stack to deploy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Example: python -m model_serving approval --stack production"
    parser.add_argument("--stack", required=True, help="stack that is about to be deployed")


def run(options: argparse.Namespace) -> int:
    chosen = stacks.read(options.stack)
    site = hosts.here(os.environ)
    if not chosen.ci or not chosen.ci.approval:
        print(f"{options.stack}: no approval is needed.")
    elif isinstance(site, GitHub):
        print(f"{options.stack}: {approved(site, options.stack, os.environ)}")
    else:
        print(f"{options.stack}: a person has started this deployment.")
    return 0


def approved(site: GitHub, stack: str, environ: Mapping[str, str]) -> str:
    """Who has approved, for people.

    Raises:
        Failure: if no one had to.
        SiteError: if the environment cannot be read.
    """
    loss = "Nothing is deployed, because it is not known whether someone has to approve it."
    with site.repository(loss) as repository:
        is_private = github_setup.get(repository)["private"]
        people = github_setup.reviewers(github_setup.get(repository, github_setup.environment_path(stack)))
    if people:
        return f"approved; the environment's reviewers are {', '.join(people)}."
    by_hand = environ.get("GITHUB_EVENT_NAME") == "workflow_dispatch" and f"/{BY_HAND}@" in environ.get(
        "GITHUB_WORKFLOW_REF", ""
    )
    if is_private and by_hand:
        return f"{environ.get('GITHUB_ACTOR')} has picked this stack by hand; the environment has no reviewers."
    remedy = f"Add required reviewers: Settings > Environments > {stack}, then run this job again."
    if is_private:
        remedy += (
            f"\n  A private repository has them with GitHub Enterprise. Without, start {BY_HAND} by hand for {stack} "
            "(Actions > mlops-deploy > Run workflow): anyone who can write to the repository can."
        )
    raise Failure(
        f"the environment {stack} has no required reviewers, and model-serving:ci.approval of the stack is true\n"
        f"  Nothing was deployed, because no one has approved it.\n  {remedy}"
    )
