"""The command ``credentials``: runs a command as the identity that a stack gives to the jobs of a pipeline.

No key is stored anywhere. GitLab and GitHub sign a token that says which job this is; Google exchanges it for one of a
service account. Both go through a credential file of Google's own format, which every client of Google reads:
https://google.aip.dev/auth/4117. On a laptop nothing is changed but the backend: the command runs as who is logged in.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from model_serving import hosts
from model_serving.pipelines import stacks
from model_serving.problems import InvalidInput, Problem
from model_serving.stack import settings
from model_serving.stack.google import GcpSettings
from model_serving.stack.settings import Settings

NAME: Final = "credentials"
HELP: Final = "run a command with the identity and the backend that a stack gives to its jobs"
EXAMPLE: Final = """\
example:
  python -m model_serving credentials --stack dev --duty plan -- python -m model_serving preview --stack dev

The stack's gcp and ci sections say which project, provider and backend; --duty says which of the two accounts.
"""
DUTIES: Final = ("plan", "apply")
GITLAB_TOKEN: Final = "GOOGLE_ID_TOKEN"  # noqa: S105 - the variable's name
"""Variable in which a GitLab job finds its token; .gitlab/environments.yml asks for it under this name."""
GITHUB_URL: Final = "ACTIONS_ID_TOKEN_REQUEST_URL"
GITHUB_TOKEN: Final = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 - the variable's name
"""Where a GitHub job with the permission ``id-token: write`` gets a token, and what it shows there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="whose identity")
    parser.add_argument("--duty", required=True, choices=DUTIES, help="plan reads, apply changes")
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="what to run, after --")


def run(options: argparse.Namespace) -> int:
    environment = environment_of(stacks.read(options.stack), stack=options.stack, duty=options.duty, environ=os.environ)
    # In place of this process: signals reach the command itself, once.
    os.execvpe(options.words[0], options.words, os.environ | environment)  # noqa: S606 - it is what was asked for


def environment_of(chosen: Settings, *, stack: str, duty: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What a command needs besides the environment of the job; files go into a folder that ends with the job.

    Args:
        chosen: the stack's settings.
        stack: its name.
        duty: plan or apply.
        environ: of the job.

    Raises:
        InvalidInput: with everything that the stack file lacks.
    """
    here = hosts.here(environ)
    if here and here.is_fork:
        # Its jobs run what its author wrote; the preview says that there is none.
        return {}
    if problems := _missing(chosen, stack=stack, environ=environ):
        raise InvalidInput(problems)
    environment = {"PULUMI_BACKEND_URL": backend} if (backend := backend_of(chosen)) else {}
    if chosen.gcp is None or not (site := _site(environ)):
        return environment
    folder = _folder(environ)
    file = folder / "google.json"
    file.touch(mode=0o600)
    content = credential_file(
        audience=provider_of(chosen, site),
        account=f"{chosen.gcp.name}-{duty}@{chosen.gcp.project}.iam.gserviceaccount.com",
        source=_source(chosen, site, environ, folder),
    )
    file.write_text(json.dumps(content))
    return environment | {
        "GOOGLE_APPLICATION_CREDENTIALS": str(file),
        # Without it Google's client asks the metadata server of a machine that is not Google's.
        "GOOGLE_CLOUD_PROJECT": chosen.gcp.project,
        "DOCKER_CONFIG": _docker(chosen.gcp, folder),
    }


def backend_of(chosen: Settings) -> str:
    """PULUMI_BACKEND_URL of the stack's jobs; empty if the stack does not say."""
    if chosen.ci and chosen.ci.backend:
        return chosen.ci.backend
    return f"gs://{chosen.gcp.state.bucket}" if chosen.gcp and chosen.gcp.state else ""


def provider_of(chosen: Settings, site: str) -> str:
    """Full name of the identity provider, which is the audience of a job's token; empty if the stack lacks it.

    Args:
        chosen: the stack's settings.
        site: gitlab or github, which is the provider's id as well, see components/google/identity.py.
    """
    if not chosen.gcp or not chosen.ci or not chosen.ci.project_number:
        return ""
    pool = chosen.gcp.identity.pool or chosen.gcp.name
    return (
        f"//iam.googleapis.com/projects/{chosen.ci.project_number}/locations/global"
        f"/workloadIdentityPools/{pool}/providers/{site}"
    )


def credential_file(*, audience: str, account: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """What a client of Google reads.

    Args:
        audience: name of the identity provider.
        account: email of the service account that is acted as.
        source: where the client finds the token of the job.
    """
    return {
        "type": "external_account",
        "audience": audience,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url": (
            f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
        ),
        "credential_source": dict(source),
    }


def _site(environ: Mapping[str, str]) -> str:
    if environ.get("GITLAB_CI"):
        return "gitlab"
    return "github" if environ.get("GITHUB_ACTIONS") else ""


def _missing(chosen: Settings, *, stack: str, environ: Mapping[str, str]) -> list[Problem]:
    """What the stack does not say, and the job needs."""
    site = _site(environ)
    if not site:
        return []
    gaps: list[tuple[str, str, str]] = []
    if not backend_of(chosen):
        gaps.append(
            (
                "model-serving:ci.backend is missing, and so is model-serving:gcp.state",
                "The job does not know where the state is.",
                "Write the two lines under gcp.state that `make init-gcp` prints, or a backend under ci.",
            )
        )
    if chosen.gcp and not getattr(chosen.gcp.identity, site):
        gaps.append(
            (
                f"model-serving:gcp.identity.{site} is missing",
                "Google trusts no job of this repository.",
                f"Write the repository's numbers under gcp.identity.{site} and run `pulumi up --stack {stack}` once.",
            )
        )
    if chosen.gcp and not provider_of(chosen, site):
        gaps.append(
            (
                "model-serving:ci.projectNumber is missing",
                "The job cannot say to Google for which project its token is.",
                f"Write what `gcloud projects describe {chosen.gcp.project} --format='value(projectNumber)'` prints, "
                "then run `make pipelines`.",
            )
        )
    needed = {"gitlab": GITLAB_TOKEN, "github": GITHUB_URL}[site]
    if chosen.gcp and not gaps and not environ.get(needed):
        gaps.append(
            (
                f"the job has no {needed}",
                "It has nothing to show to Google.",
                "Run `make pipelines` and commit what it writes; on GitHub the job needs `id-token: write`.",
            )
        )
    return [
        Problem(file=settings.file_of(stack), what=what, consequence=consequence, remedy=remedy)
        for what, consequence, remedy in gaps
    ]


def _source(chosen: Settings, site: str, environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Where a client finds the token of the job, anew each time that Google's has run out."""
    if site == "gitlab":
        file = folder / "token"
        file.touch(mode=0o600)
        file.write_text(environ[GITLAB_TOKEN])
        return {"file": str(file)}
    return {
        "url": f"{environ[GITHUB_URL]}&audience={quote(provider_of(chosen, site), safe='')}",
        "headers": {"Authorization": f"Bearer {environ[GITHUB_TOKEN]}"},
        "format": {"type": "json", "subject_token_field_name": "value"},
    }


def _docker(google: GcpSettings, folder: Path) -> str:
    """A Docker configuration that asks google_token.py, under a helper's name, for the registry's password."""
    configuration = folder / "docker"
    configuration.mkdir()
    helpers = {f"{google.region}-docker.pkg.dev": "model-serving"}
    (configuration / "config.json").write_text(json.dumps({"credHelpers": helpers}))
    return str(configuration)


def _folder(environ: Mapping[str, str]) -> Path:
    """A folder that the runner removes: on GitHub its own, on GitLab the one beside the checkout."""
    beside = f"{environ['CI_PROJECT_DIR']}.tmp" if environ.get("CI_PROJECT_DIR") else ""
    places = [place for place in (environ.get("RUNNER_TEMP"), beside) if place and Path(place).is_dir()]
    return Path(tempfile.mkdtemp(prefix="identity-", dir=places[0] if places else None))
