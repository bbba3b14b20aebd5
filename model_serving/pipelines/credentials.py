"""The command ``credentials``: runs a command with the cloud identity of a stack's pipeline jobs.

No key is stored. GitLab and GitHub sign a token that identifies the job, and Google exchanges it for one of a service
account, through a credential file that all of Google's clients read: https://google.aip.dev/auth/4117. On a laptop only
the backend is set, and the command runs as the user who is logged in.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from model_serving import hosts
from model_serving.pipelines import stacks
from model_serving.problems import InvalidInput, Problem
from model_serving.stack import settings
from model_serving.stack.google import GcpSettings
from model_serving.stack.settings import Settings

HELP: Final = "run a command with the cloud identity and the backend of a stack's jobs"
DUTIES: Final = ("plan", "verify", "apply")
"""Of jobs in merge requests, on main, and in the environment of the stack, see components/google/identity.py."""
GITLAB_TOKEN: Final = "GOOGLE_ID_TOKEN"  # noqa: S105 - the variable's name
"""Variable with the token of a GitLab job, requested in .gitlab/environments.yml."""
GITHUB_URL: Final = "ACTIONS_ID_TOKEN_REQUEST_URL"
GITHUB_TOKEN: Final = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 - the variable's name
"""Variables with which a GitHub job with the permission ``id-token: write`` requests a token."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Example: python -m model_serving credentials --stack dev --duty plan -- python -m model_serving preview ..."
    )
    parser.add_argument("--stack", required=True, help="stack whose gcp and ci sections set project and backend")
    parser.add_argument("--duty", required=True, choices=DUTIES, help="plan and verify only read, apply changes")
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="command to run, after --")


def run(options: argparse.Namespace) -> int:
    environment = environment_of(stacks.read(options.stack), stack=options.stack, duty=options.duty, environ=os.environ)
    # Replaces this process, so that signals reach the command once.
    os.execvpe(options.words[0], options.words, os.environ | environment)  # noqa: S606 - the user's own command


def environment_of(chosen: Settings, *, stack: str, duty: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that a command needs in addition to those of the job; ``duty`` is one of DUTIES."""
    here, site = hosts.here(environ), _site(environ)
    if here and here.is_fork:
        # A fork's jobs run its author's code; the preview reports the missing identity.
        return {}
    if site and (problems := [*missing(chosen, site, stack=stack)] or [*_no_token(chosen, site, stack, environ)]):
        raise InvalidInput(problems)
    environment = {"PULUMI_BACKEND_URL": backend} if (backend := backend_of(chosen)) else {}
    if chosen.gcp is None or not site:
        return environment
    folder = _folder(environ)
    account = f"{chosen.gcp.name}-{duty}@{chosen.gcp.project}.iam.gserviceaccount.com"
    impersonation = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
    content = {
        "type": "external_account",
        "audience": provider_of(chosen, site),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url": impersonation,
        "credential_source": _source(chosen, site, environ, folder),
    }
    return environment | {
        "GOOGLE_APPLICATION_CREDENTIALS": _private(folder / "google.json", json.dumps(content)),
        # Without it, Google's client asks a metadata server that does not exist on other clouds.
        "GOOGLE_CLOUD_PROJECT": chosen.gcp.project,
        "DOCKER_CONFIG": _docker(chosen.gcp, folder),
    }


def backend_of(chosen: Settings) -> str:
    """PULUMI_BACKEND_URL of the stack's jobs; empty if it is not set."""
    if chosen.ci and chosen.ci.backend:
        return chosen.ci.backend
    return f"gs://{chosen.gcp.state.bucket}" if chosen.gcp and chosen.gcp.state else ""


def provider_of(chosen: Settings, site: str) -> str:
    """Full name of the identity provider, the audience of a job's token; empty if the stack lacks its parts.

    ``site`` is gitlab or github, also the provider's id in components/google/identity.py.
    """
    if not chosen.gcp or not chosen.ci or not chosen.ci.project_number:
        return ""
    pool = chosen.gcp.identity.pool or chosen.gcp.name
    return (
        f"//iam.googleapis.com/projects/{chosen.ci.project_number}/locations/global"
        f"/workloadIdentityPools/{pool}/providers/{site}"
    )


def _site(environ: Mapping[str, str]) -> str:
    if environ.get("GITLAB_CI"):
        return "gitlab"
    return "github" if environ.get("GITHUB_ACTIONS") else ""


def missing(chosen: Settings, site: str, *, stack: str) -> Iterator[Problem]:
    """Settings that the jobs of a site need and the stack lacks."""
    problem = partial(Problem, file=settings.file_of(stack))
    if not backend_of(chosen):
        yield problem(
            what="model-serving:ci.backend is missing, and so is model-serving:gcp.state",
            consequence="The job cannot find the state.",
            remedy="Add the two lines under gcp.state that `make init-gcp` prints, or set a backend under ci.",
        )
    if not chosen.gcp:
        return
    if not getattr(chosen.gcp.identity, site):
        yield problem(
            what=f"model-serving:gcp.identity.{site} is missing",
            consequence="Google trusts no job of this repository.",
            remedy=f"Add the repository's ids under gcp.identity.{site} and run `pulumi up --stack {stack}` once.",
        )
    if not provider_of(chosen, site):
        yield problem(
            what="model-serving:ci.projectNumber is missing",
            consequence="The job cannot request a token for the Google project.",
            remedy=f"Set it to the output of `gcloud projects describe {chosen.gcp.project} "
            "--format='value(projectNumber)'`, then run `make pipelines`.",
        )


def _no_token(chosen: Settings, site: str, stack: str, environ: Mapping[str, str]) -> Iterator[Problem]:
    needed = {"gitlab": GITLAB_TOKEN, "github": GITHUB_URL}[site]
    if chosen.gcp and not environ.get(needed):
        yield Problem(
            file=settings.file_of(stack),
            what=f"the job has no {needed}",
            consequence="It cannot authenticate to Google.",
            remedy="Run `make pipelines` and commit its changes; on GitHub the job also needs `id-token: write`.",
        )


def _source(chosen: Settings, site: str, environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Source of the job's token, read again whenever Google's token expires."""
    if site == "gitlab":
        return {"file": _private(folder / "token", environ[GITLAB_TOKEN])}
    return {
        "url": f"{environ[GITHUB_URL]}&audience={quote(provider_of(chosen, site), safe='')}",
        "headers": {"Authorization": f"Bearer {environ[GITHUB_TOKEN]}"},
        "format": {"type": "json", "subject_token_field_name": "value"},
    }


def _private(file: Path, text: str) -> str:
    """Writes a file that only this user can read; returns its path."""
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")
    return str(file)


def _docker(google: GcpSettings, folder: Path) -> str:
    """A Docker configuration with google_token.py as the credential helper of the registry."""
    configuration = folder / "docker"
    configuration.mkdir()
    helpers = {f"{google.region}-docker.pkg.dev": "model-serving"}
    (configuration / "config.json").write_text(json.dumps({"credHelpers": helpers}), encoding="utf-8")
    return str(configuration)


def _folder(environ: Mapping[str, str]) -> Path:
    """A folder that the runner removes: on GitHub its own, on GitLab the one next to the checkout."""
    beside = f"{environ['CI_PROJECT_DIR']}.tmp" if environ.get("CI_PROJECT_DIR") else ""
    places = [place for place in (environ.get("RUNNER_TEMP"), beside) if place and Path(place).is_dir()]
    return Path(tempfile.mkdtemp(prefix="identity-", dir=places[0] if places else None))
