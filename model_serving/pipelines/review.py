"""The command ``review``: serves the releases that a merge request adds, until it is merged or closed.

It keeps no state between runs. Each run removes what an earlier one of the same merge request has left, by its labels,
and serves the releases again: Pulumi works with a state of its own in a temporary folder. So there is no lock to wait
for, a killed run leaves nothing that has to be corrected, and the job needs no access to the state of a stack.

The program is the stack's own, see components/serving/review.py.
"""

import argparse
import json
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from model_serving import catalog
from model_serving.catalog import Catalog, Release
from model_serving.git import Git
from model_serving.hosts import Site, here
from model_serving.hosts.setup import PASSPHRASE
from model_serving.pipelines import backend, engine, redact, stacks
from model_serving.pipelines.branch import Branch
from model_serving.pipelines.review_objects import ReviewObjects
from model_serving.problems import Failure, InvalidInput
from model_serving.stack import gke, live, settings
from model_serving.stack.google import GcpSettings
from model_serving.stack.models import ALL_TRAFFIC
from model_serving.stack.pipelines import ReviewSettings
from model_serving.stack.reviews import URL_VARIABLE, Review
from model_serving.stack.settings import NAMESPACE, Settings

HELP: Final = "serve the releases that a merge request adds, under a path of its own, until it is merged"
EXAMPLE: Final = """\
examples:
  python -m model_serving review --stack dev                    in a job of a merge request
  python -m model_serving review --stack dev --request 12       on a laptop, on the branch
  python -m model_serving review --stack dev --request 12 --remove
  python -m model_serving review --stack dev --expired

A release counts as added if the target branch does not have it. Exit code: 0 if the releases answer as their contracts
say, or if there is none; 1 otherwise, and then none of them is served.
"""
HOUR: Final = 3600
_NOT_SERVED: Final = ("agent", "agentToken", "ci")
"""Sections of a stack that a review has no use for."""
_ONE_POD: Final = ("versions", "shadow", "keepWarm", "replicas", "autoscaling")
"""Settings of a model that a review leaves out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "--stack", required=True, help="stack that serves the releases, with `review` in its ci section"
    )
    parser.add_argument(
        "--request", type=_positive, metavar="N", help="number of the merge request (default: the job's)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"write {URL_VARIABLE}=<address> there, for GitLab's environment"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--remove", action="store_true", help="remove what is served for the merge request")
    instead.add_argument(
        "--expired", action="store_true", help="remove what is served for longer than the stack allows"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {text}; write the number of a merge request, 1 or more")
    return number


def run(options: argparse.Namespace) -> int:
    chosen, site = stacks.read(options.stack), here(os.environ)
    # Before the cluster is asked for. Only what is served needs the setting: what is left on a stack has to go.
    hours = 0 if options.expired or options.remove else _allowed(chosen, site, options.stack).hours
    with _reached(chosen, options.stack) as reached:
        return _run(options, reached, site, hours)


@contextmanager
def _reached(chosen: Settings, stack: str) -> Iterator[Settings]:
    """The settings with a way to the cluster: on Google Cloud as whoever runs this, never through the agent."""
    if chosen.gcp is None:
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="review-") as folder:
        file = Path(folder) / "kubeconfig"
        file.write_text(json.dumps(_kubeconfig(chosen.gcp, stack)), encoding="utf-8")
        # These addresses are those of the models' gateway.
        gateway = chosen.gateway.model_copy(update={"endpoint": None, "cluster_endpoint": None})
        yield chosen.model_copy(update={"kubeconfig": str(file), "kube_context": None, "gateway": gateway})


def _kubeconfig(gcp: GcpSettings, stack: str) -> dict[str, Any]:
    cluster = gcp.cluster_name
    try:
        printed = subprocess.run([gke.LOGIN], capture_output=True, text=True, encoding="utf-8", check=True).stdout
        described = gke.describe(cluster, json.loads(printed)["status"]["token"])
        host = described["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["endpoint"]
    except subprocess.CalledProcessError as error:
        raise _unreached(stack, cluster, error.stderr.strip()) from None
    except (OSError, HTTPException, ValueError) as error:
        raise _unreached(stack, cluster, str(error)) from None
    except KeyError:
        raise _unreached(stack, cluster, "it has no DNS endpoint") from None
    return gke.kubeconfig(cluster.name, host)


def _unreached(stack: str, cluster: gke.ClusterName, what: str) -> Failure:
    return Failure(
        f"the cluster {cluster.name} in {cluster.location} cannot be reached: {what}\n"
        "  What this merge request adds is not served, or still is.\n"
        f"  {stack} has to be deployed with `review` in its ci section. On a laptop, run `gcloud auth login` first; "
        "a job needs `credentials --duty review`, as docs/ci.md says."
    )


def _run(options: argparse.Namespace, chosen: Settings, site: Site | None, hours: int) -> int:
    stack = options.stack
    objects = ReviewObjects(chosen, stack=stack)
    if options.expired:
        if not _remove_expired(objects):
            print("nothing has reached its time")
        return 0
    request = options.request or (site.request if site else None)
    if request is None:
        raise InvalidInput.of(
            "--request",
            "is missing, and this is not a job of a merge request",
            "Nothing was changed, because it is not known which merge request this is for.",
            "Add the number of the merge request, e.g. `--request 12`.",
        )
    if options.remove:
        print(f"!{request}: {'removed' if objects.remove(request) else 'nothing to remove'}")
        return 0
    until = int(time.time()) + hours * HOUR
    urls = _serve(chosen, objects, stack=stack, review=Review(request=request, until=until))
    if options.out:
        options.out.write_text(f"{URL_VARIABLE}={urls[0]}\n" if urls else "", encoding="utf-8")
    return 0


def _remove_expired(objects: ReviewObjects) -> list[int]:
    expired = objects.expired()
    for request in expired:
        objects.remove(request)
        print(f"!{request}: removed, because its time is over")
    return expired


def _allowed(chosen: Settings, site: Site | None, stack: str) -> ReviewSettings:
    """What the stack says of reviews; refuses what may not be served."""
    if site and site.is_fork:
        raise Failure(
            "this merge request comes from a fork.\n"
            "  Its code is not trusted, so nothing of it is served.\n"
            "  Review the code, push its branch to this repository, and open a merge request from there."
        )
    if chosen.ci is None or chosen.ci.review is None:
        raise InvalidInput.of(
            settings.file_of(stack),
            f"{NAMESPACE}:ci.review is missing",
            "This stack serves nothing that is not merged.",
            "Write `review: {}` under ci and run `make pipelines`, or name a stack that has it.",
        )
    return chosen.ci.review


def _serve(chosen: Settings, objects: ReviewObjects, *, stack: str, review: Review) -> list[str]:
    """Serves what the checkout adds; returns the addresses."""
    # First of all: whatever happens from here on, an older content is not taken for this one's.
    objects.remove(review.request)
    _remove_expired(objects)
    released = catalog.read(Path("models"))
    added = added_releases(released, Path.cwd(), here(os.environ))
    if not added:
        print("this merge request adds no release: there is nothing to serve")
        return []
    is_known = chosen.gateway.endpoint and chosen.gateway.cluster_endpoint
    content = stack_of_review(chosen, added, endpoint="" if is_known else f"http://{objects.gateway()}")
    # Here, because the program would name the file of a stack that nobody has.
    live.resolve(stacks.parse(stack, json.dumps({"config": content})), released, file=settings.file_of(stack))
    began, code = time.monotonic(), 1
    try:
        code = _up(f"{stack}-{review.name}", content, review)
    finally:
        if code:
            objects.remove(review.request)
    if code:
        raise Failure(
            f"what this merge request adds does not work on {stack}: the log above says why.\n"
            "  It is not served.\n"
            "  Correct the release and push again."
        )
    endpoint = content[f"{NAMESPACE}:gateway"]["endpoint"]
    urls = [f"{endpoint}{review.path(name)}/infer" for name in sorted({each.name for each in added})]
    _tell(added, urls, review, time.monotonic() - began)
    return urls


def _tell(added: list[Release], urls: list[str], review: Review, seconds: float) -> None:
    names = ", ".join(f"{each.name} {each.version}" for each in added)
    text = f"served until {review.deadline}, after {seconds:.0f} s: {names}"
    print("\n".join(["", text, *(f"  {url}" for url in urls)]))
    if site := here(os.environ):
        site.summary("\n".join([text, "", *(f"- {url}" for url in urls)]))


def added_releases(released: Catalog, folder: Path, site: Site | None) -> list[Release]:
    """The releases of a checkout that the branch into which it will be merged does not have."""
    target = site.target if site else Branch.of_laptop().target
    git = Git(folder=folder)
    place = f"refs/remotes/origin/{target}"
    fetched = git.run("fetch", "--quiet", "--no-tags", "origin", f"+refs/heads/{target}:{place}")
    listed = git.run("ls-tree", "-r", "--name-only", "-z", place, "models/")
    if not target or listed.code:
        said = listed.last_words or fetched.last_words or "there is none"
        raise Failure(
            f"the branch into which this is merged cannot be read: {said}\n"
            "  Which releases are new is not known, so nothing is served.\n"
            "  Run this on a branch, in a clone whose remote origin has the default branch."
        )
    known = {str(Path(path).parent) for path in listed.text.split("\0")}
    return [
        release
        for name in released.names()
        for release in released.releases(name)
        if f"models/{release.name}/{release.version}" not in known
    ]


def stack_of_review(chosen: Settings, added: list[Release], *, endpoint: str) -> dict[str, Any]:
    """The configuration of a review: where its stack serves, and the added releases, with a pod each.

    ``endpoint`` is the gateway's, where the stack has no other.
    """
    content = chosen.model_dump(mode="json", by_alias=True, exclude_unset=True)
    content = {key: value for key, value in content.items() if key not in _NOT_SERVED and value is not None}
    gateway = content.get("gateway", {})
    found = {"endpoint": endpoint, "clusterEndpoint": endpoint}
    content["gateway"] = found | {key: value for key, value in gateway.items() if value is not None}
    own = content.get("models", {})
    content["models"] = {}
    for release in added:
        kept = {key: value for key, value in own.get(release.name, {}).items() if key not in _ONE_POD}
        content["models"][release.name] = {**kept, "versions": _shares(release.name, added)}
    return {f"{NAMESPACE}:{key}": value for key, value in content.items()}


def _shares(model: str, added: list[Release]) -> dict[str, int]:
    """All traffic to the newest, which is the last."""
    versions = [release.version for release in added if release.name == model]
    return dict.fromkeys(versions, 0) | {versions[-1]: ALL_TRAFFIC}


def _up(stack: str, content: Mapping[str, Any], review: Review) -> int:
    """Serves a configuration as a stack that is forgotten afterwards; returns Pulumi's exit code."""
    with _forgotten_stack(stack, content) as environ:
        return engine.run(
            ["up", "--yes", "--skip-preview", "--stack", stack],
            redactor=redact.for_environment(environ),
            environ={**environ, **review.environment()},
        )


@contextmanager
def _forgotten_stack(stack: str, content: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """A stack with its state in a temporary folder; hands out the environment for it."""
    file = Path(settings.file_of(stack))
    with tempfile.TemporaryDirectory(prefix="review-") as folder:
        environ = {**os.environ, backend.URL: f"file://{folder}", PASSPHRASE: secrets.token_hex()}
        environ.pop(f"{PASSPHRASE}_FILE", None)
        try:
            # JSON is YAML.
            file.write_text(json.dumps({"config": content}), encoding="utf-8")
            made = subprocess.run(
                ["pulumi", "stack", "init", stack, "--non-interactive"],
                env=environ,
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
            )
            if made.returncode:
                raise Failure(
                    f"pulumi could not make a stack in a temporary folder: {made.stderr.strip()}\n"
                    "  Nothing of the merge request is served.\n"
                    "  Run the job again."
                )
            yield environ
        finally:
            file.unlink(missing_ok=True)
