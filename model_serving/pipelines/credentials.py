"""The command ``credentials``: runs a command with the cloud identity of a pipeline's job.

No key is stored. GitLab and GitHub sign a token that identifies the job, and Google exchanges it for one of a service
account, through a credential file that all of Google's clients read: https://google.aip.dev/auth/4117. A system without
such tokens passes a key of the account instead (``keyForCi``). On a laptop only the backend is set, and the command
runs as the user who is logged in.

The duties plan and apply belong to a stack of the serving repository; the duty train belongs to a model's repository,
whose release.yaml names pool and account.
"""

import argparse
import base64
import binascii
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
from model_serving.problems import Failure, InvalidInput, Problem
from model_serving.releases import project
from model_serving.stack import settings
from model_serving.stack.google import GcpSettings
from model_serving.stack.settings import Settings

HELP: Final = "run a command with the cloud identity and the backend of a stack's jobs"
DUTIES: Final = ("plan", "verify", "apply", "review")
"""Of jobs in merge requests, on main, in the environment of the stack, and of reviews, see
components/google/identity.py."""
GITLAB_TOKEN: Final = "GOOGLE_ID_TOKEN"  # noqa: S105 - the variable's name
"""Variable with the token of a GitLab job, requested in .gitlab/environments.yml."""
GITHUB_URL: Final = "ACTIONS_ID_TOKEN_REQUEST_URL"
GITHUB_TOKEN: Final = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 - the variable's name
"""Variables with which a GitHub job with the permission ``id-token: write`` requests a token."""
ID_TOKENS: Final[Mapping[str, str]] = {"gitlab": GITLAB_TOKEN, "github": GITHUB_URL}
"""Site -> variable that a job has if the site signs a token for it."""
STACK_REMEDY: Final = "Run `make pipelines` and commit its changes; on GitHub the job also needs `id-token: write`."
TRAINING_REMEDY: Final = (
    f"Give the job `id_tokens: {{{GITLAB_TOKEN}: {{aud: //iam.googleapis.com/<google.pool>/providers/gitlab}}}}`, on "
    "GitHub `permissions: id-token: write`; `copier update` writes both."
)
KEY: Final = "MODEL_SERVING_GOOGLE_KEY"
"""Variable with a key of the account for jobs without OIDC tokens: base64 as in the stack's output ``keys``, or the
path of a file with it."""
TRAIN: Final = "train"
EXAMPLE: Final = """\
examples:
  python -m model_serving credentials --stack dev --duty plan -- python -m model_serving preview --stack dev
  python -m model_serving credentials --duty train -- dvc pull               in a model's repository
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", help="stack whose gcp and ci sections set project and backend; not for train")
    parser.add_argument(
        "--duty",
        required=True,
        choices=(*DUTIES, TRAIN),
        help="plan and verify only read, apply changes, review serves what a merge request adds, train reads and "
        "writes the DVC bucket",
    )
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="command to run, after --")


def run(options: argparse.Namespace) -> int:
    if options.duty == TRAIN:
        environment = environment_of_training(project.read(Path.cwd()), environ=os.environ)
    elif options.stack:
        chosen = stacks.read(options.stack)
        environment = environment_of(chosen, stack=options.stack, duty=options.duty, environ=os.environ)
    else:
        raise InvalidInput.of(
            "--stack",
            f"is missing, and the duty is {options.duty}",
            "Each stack has its own accounts and its own backend.",
            f"Add --stack, e.g. `--stack {next(iter(stacks.names()), 'dev')}`.",
        )
    # Replaces this process, so that signals reach the command once.
    try:
        os.execvpe(options.words[0], options.words, os.environ | environment)  # noqa: S606 - the user's own command
    except OSError as error:
        raise Failure(
            f"{options.words[0]} cannot be run: {error.strerror}\n"
            "  The command after -- did not start.\n"
            "  Correct its name, or install it on PATH."
        ) from None


def environment_of(chosen: Settings, *, stack: str, duty: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that a command needs in addition to those of the job; ``duty`` is one of DUTIES."""
    here, site = hosts.here(environ), _site(environ)
    if here and here.is_fork:
        # A fork's jobs run its author's code; the preview reports the missing identity.
        return {}
    has_key = _has_key(site, environ)
    if site:
        problems = [*(_no_backend(chosen, stack) if has_key else missing(chosen, site, stack=stack))]
        if not problems and chosen.gcp and not has_key:
            problems = [*_no_token(site, settings.file_of(stack), STACK_REMEDY, environ)]
        if problems:
            raise InvalidInput(problems)
    environment = {"PULUMI_BACKEND_URL": backend} if (backend := backend_of(chosen)) else {}
    if chosen.gcp is None or not (site or has_key):
        return environment
    folder = _folder(environ)
    account = f"{chosen.gcp.name}-{duty}@{chosen.gcp.project}.iam.gserviceaccount.com"
    content = _key(environ) if has_key else _federated(provider_of(chosen, site), account, site, environ, folder)
    return environment | _google(content, chosen.gcp.project, folder) | {"DOCKER_CONFIG": _docker(chosen.gcp, folder)}


def environment_of_training(chosen: project.Project, *, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables with which a job of a model's repository reaches the DVC bucket; none without a section ``google``."""
    here, site, google = hosts.here(environ), _site(environ), chosen.google
    has_key = _has_key(site, environ)
    if google is None or not (site or has_key) or (here and here.is_fork):
        return {}
    if not has_key and (problems := [*_no_token(site, project.FILE, TRAINING_REMEDY, environ)]):
        raise InvalidInput(problems)
    folder, provider = _folder(environ), f"//iam.googleapis.com/{google.pool}/providers/{site}"
    content = _key(environ) if has_key else _federated(provider, google.account, site, environ, folder)
    return _google(content, google.project, folder)


def _google(content: str, project_id: str, folder: Path) -> dict[str, str]:
    return {
        "GOOGLE_APPLICATION_CREDENTIALS": _private(folder / "google.json", content),
        # Without it, Google's client asks a metadata server that does not exist on other clouds.
        "GOOGLE_CLOUD_PROJECT": project_id,
    }


def _federated(provider: str, account: str, site: str, environ: Mapping[str, str], folder: Path) -> str:
    """A credential file that exchanges the job's token for one of an account."""
    impersonation = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
    content = {
        "type": "external_account",
        "audience": provider,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url": impersonation,
        "credential_source": _source(provider, site, environ, folder),
    }
    return json.dumps(content)


def _has_key(site: str, environ: Mapping[str, str]) -> bool:
    """Whether the job acts with a key: only if its site has signed no token for it."""
    return bool(environ.get(KEY)) and not (site and environ.get(ID_TOKENS[site]))


def _key(environ: Mapping[str, str]) -> str:
    """The key file of a service account; raises `InvalidInput` if the variable holds anything else."""
    value = environ[KEY]
    try:
        # GitLab's variables of the type file hold a path.
        text = Path(value).read_text(encoding="utf-8") if value.startswith("/") else value
        content = text if text.lstrip().startswith("{") else base64.b64decode(text, validate=True).decode()
        if json.loads(content)["type"] == "service_account":
            return content
    except (OSError, UnicodeDecodeError, binascii.Error, ValueError, KeyError, TypeError):
        pass
    raise InvalidInput.of(
        KEY,
        "is not the key of a service account",
        "The job cannot authenticate to Google.",
        "Set it to one of `pulumi stack output keys --show-secrets`, as it is there, masked and without line breaks.",
    )


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
    yield from _no_backend(chosen, stack)
    if not chosen.gcp:
        return
    problem = partial(Problem, file=settings.file_of(stack))
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


def _no_backend(chosen: Settings, stack: str) -> Iterator[Problem]:
    if not backend_of(chosen):
        yield Problem(
            file=settings.file_of(stack),
            what="model-serving:ci.backend is missing, and so is model-serving:gcp.state",
            consequence="The job cannot find the state.",
            remedy="Add the two lines under gcp.state that `make init-gcp` prints, or set a backend under ci.",
        )


def _no_token(site: str, file: str, remedy: str, environ: Mapping[str, str]) -> Iterator[Problem]:
    if not environ.get(ID_TOKENS[site]):
        yield Problem(
            file=file,
            what=f"the job has no {ID_TOKENS[site]}",
            consequence="It cannot authenticate to Google.",
            remedy=remedy,
        )


def _source(provider: str, site: str, environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Source of the job's token, read again whenever Google's token expires."""
    if site == "gitlab":
        return {"file": _private(folder / "token", environ[GITLAB_TOKEN])}
    return {
        "url": f"{environ[GITHUB_URL]}&audience={quote(provider, safe='')}",
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
