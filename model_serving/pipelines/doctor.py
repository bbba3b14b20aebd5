"""The command ``doctor``: says of every setup step of docs/ci.md whether it is done, and how to do it.

It only reads: the stack files here, and the settings of GitLab or GitHub as far as the token may see them.
"""

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import yaml

from model_serving.git import Git
from model_serving.hosts import github_setup, gitlab, gitlab_setup, merge_requests, setup
from model_serving.hosts.access import Access, Patience
from model_serving.hosts.merge_requests import Kind
from model_serving.hosts.setup import Check, Environment, Step, Verdict
from model_serving.pipelines import credentials, generate, stacks
from model_serving.problems import Failure
from model_serving.stack.settings import Settings

HELP: Final = "say which setup steps of docs/ci.md are done on GitLab or GitHub; changes nothing"
EXAMPLE: Final = """\
examples:
  GITLAB_TOKEN=… python -m model_serving doctor --site                       of the remote `origin`, as a Maintainer
  GITHUB_TOKEN=$(gh auth token) python -m model_serving doctor --site github

Exit code 0 means that all steps are done, 1 that some are not or cannot be read.
"""
TOKENS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "gitlab": ("GITLAB_TOKEN", gitlab.TOKEN),
    "github": ("GITHUB_TOKEN", "GH_TOKEN"),
}
"""Variables with a token, the first that is set."""
SSH: Final = re.compile(
    r"(?:ssh://(?:[\w.-]+@)?|[\w.-]+@)(?P<host>[\w.-]+|\[[\da-f:.]+\])(?::\d+(?=/))?[:/]/?(?P<path>.+)", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Whose setup is read.

    Attributes:
        name: of the repository in the API; on GitLab also its number.
        own_token: the one that jobs write notes with, if it is known here.
    """

    kind: Kind
    api: str
    name: str
    token: str = field(repr=False)
    own_token: str | None = field(repr=False)

    @property
    def access(self) -> Access:
        return Access(
            site={"gitlab": "GitLab", "github": "GitHub"}[self.kind],
            api=self.api,
            token=self.token,
            loss="Nothing of the setup is known.",
            remedy=lambda _: f"Set {TOKENS[self.kind][0]} to a token that may see {self.name}, and check the address.",
            patience=Patience(retries=1),
            authorities=os.environ.get("CI_SERVER_TLS_CA_FILE"),
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "--site",
        nargs="?",
        const="auto",
        choices=("auto", "gitlab", "github"),
        required=True,
        help="examine the site of this repository; name it if the host's name does not tell",
    )
    parser.add_argument("--repository", help="address of the repository; by default that of the remote origin")
    parser.add_argument("--api", help="address of the site's API; by default the usual one of the repository's host")


def run(options: argparse.Namespace) -> int:
    place = place_of(options.site, options.repository, options.api, os.environ)
    steps, title = examine(place)
    print(setup.report(title, steps))
    return 0 if all(step.state == "done" for step in steps) else 1


def examine(place: Place) -> tuple[list[Step], str]:
    """All steps, and a title.

    Raises:
        SiteError: if the token does not see the repository at all.
        InvalidInput: with all mistakes of the stack files.
    """
    chosen = {each.name: stacks.read(each.name) for each in generate.environments(stacks.FOLDER)}
    environments = [_environment(name, settings) for name, settings in chosen.items()]
    found: gitlab_setup.Found | github_setup.Found
    if place.kind == "gitlab":
        found = gitlab_setup.read(place.access, place.name, environments, own_token=place.own_token)
        title = f"GitLab, project {found.path}"
        own = {"projectId": found.id}
    else:
        found = github_setup.read(place.access, place.name, environments)
        title = f"GitHub, repository {found.name}"
        own = {"repositoryId": found.id, "ownerId": found.owner}
    files = [_stack_file(name, settings, place.kind, own) for name, settings in chosen.items()]
    return [*setup.examined([*files, _generated()]), *found.steps], title


def place_of(site: str, repository: str | None, api: str | None, environ: Mapping[str, str]) -> Place:
    """Which repository, from the options, else from the job, else from the remote origin."""
    in_job: dict[Kind, tuple[str, str]] = {
        "gitlab": ("CI_API_V4_URL", "CI_PROJECT_ID"),
        "github": ("GITHUB_API_URL", "GITHUB_REPOSITORY"),
    }
    for kind, (address, name) in in_job.items():
        if repository is None and environ.get(address) and site in ("auto", kind):
            return _place(kind, environ[address], environ[name], environ)
    address = _https(repository or _origin())
    parts = (urlsplit(address).hostname or "").split(".")
    kinds: tuple[Kind, ...] = ("gitlab", "github")
    known = next((kind for kind in kinds if kind == site or (site == "auto" and kind in parts)), None)
    if known is None:
        raise Failure(
            f"{address} could be on GitLab or on GitHub\n"
            "  Their settings are read in different ways.\n"
            "  Write `--site gitlab` or `--site github`."
        )
    base = (api or merge_requests.usual_api(known, address)).rstrip("/")
    return _place(known, base, merge_requests.project_name(address, base), environ)


def _place(kind: Kind, api: str, name: str, environ: Mapping[str, str]) -> Place:
    token = next((environ[variable] for variable in TOKENS[kind] if environ.get(variable)), None)
    if token is None:
        raise Failure(
            f"{' and '.join(TOKENS[kind])} are not set\n"
            "  A site shows its settings to no one without a token.\n"
            f"  {gitlab_setup.NEEDS if kind == 'gitlab' else github_setup.NEEDS}"
        )
    return Place(kind=kind, api=api, name=name, token=token, own_token=environ.get(gitlab.TOKEN))


def _origin() -> str:
    done = Git(folder=stacks.PROJECT).run("remote", "get-url", "origin")
    if done.code:
        raise Failure(
            "this checkout has no remote origin\n"
            "  It does not tell where its pipelines run.\n"
            "  Write --repository https://gitlab.example.com/group/serving.git."
        )
    return done.text


def _https(address: str) -> str:
    """The address for browsers, without an account."""
    if ssh := SSH.fullmatch(address):
        return f"https://{ssh['host']}/{ssh['path']}"
    with suppress(ValueError):  # a bracket that is not closed
        parts = urlsplit(address)
        if parts.hostname and parts.scheme in ("http", "https"):
            return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    # Without the address, which may have a token in it.
    raise Failure(
        "the address of the repository is none on a site: it has no host, or is for neither HTTP nor SSH\n"
        "  It does not tell where its pipelines run.\n"
        "  Write --repository https://gitlab.example.com/group/serving.git."
    )


def _environment(name: str, chosen: Settings) -> Environment:
    content = yaml.safe_load((stacks.FOLDER / f"Pulumi.{name}.yaml").read_text(encoding="utf-8"))
    # Pulumi writes the salt of a passphrase there, and the address of any other provider of secrets.
    needs_passphrase = "encryptionsalt" in content
    return Environment(name=name, approval=bool(chosen.ci and chosen.ci.approval), passphrase=needs_passphrase)


def _stack_file(name: str, chosen: Settings, kind: Kind, own: Mapping[str, int]) -> Check:
    def examine() -> Verdict:
        wrong = [problem.what for problem in credentials.missing(chosen, kind, stack=name)]
        return Verdict(found="complete", wrong=[*wrong, *_other_ids(chosen, kind, own)])

    return Check(
        name=f"settings of {name}",
        remedy=f"Correct stacks/Pulumi.{name}.yaml as docs/ci.md says, then run `make pipelines`.",
        access="",
        examine=examine,
    )


def _other_ids(chosen: Settings, kind: Kind, own: Mapping[str, int]) -> Iterator[str]:
    """IDs of another repository, whose jobs Google would trust in the place of this one's."""
    identity = getattr(chosen.gcp.identity, kind) if chosen.gcp else None
    if identity is None:
        return
    written = identity.model_dump(by_alias=True)
    for key, value in own.items():
        if written[key] != value:
            yield f"model-serving:gcp.identity.{kind}.{key} is {written[key]}, and that of this repository is {value}"


def _generated() -> Check:
    def examine() -> Verdict:
        stale: Sequence[str] = [str(path.relative_to(stacks.PROJECT)) for path in generate.stale()]
        return Verdict(found="in step with the stack files", wrong=[f"{path} is out of date" for path in stale])

    return Check(
        name="jobs per environment", remedy="Run `make pipelines` and commit the result.", access="", examine=examine
    )
