"""The release of a version, from its folder to all traffic on it, against the bare way."""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from model_serving import catalog
from model_serving.images import runtimes
from model_serving.images.registry import Registry
from model_serving.pipelines import engine, stacks
from model_serving.pipelines.redact import Redactor
from tests.bench import images
from tests.bench.bare import PATH, Bare
from tests.bench.checkout import (
    ENVIRONMENT,
    LIKE,
    MODEL,
    PROJECT,
    STACK,
    STAMP,
    Checkout,
    Failed,
    copy_release,
    kubectl,
)
from tests.bench.figures import Row, Section
from tests.bench.progress import Progress
from tests.bench.watch import watching

TITLE: Final = "Release of a version"
BAR: Final = 1.7
BUILT, READY, MOVED, ENDED = "image pushed", "pods ready", "all traffic", "commands ended"
IMAGE: Final = "docker-build:index:Image"
CHECKING: Final = "the contract is being checked"
"""What the program says of a Deployment once its pods are ready, see components/serving/rollout_status.py."""
Times = dict[str, float]
"""What has happened -> seconds after the beginning."""


def measure(checkout: Checkout, runs: int, progress: Progress) -> Section:
    registry, runtime = _images()
    versions = [f"1.{STAMP}.{number}" for number in range(runs + 1)]
    bare_way = Bare(_deployment(), registry=registry, runtime=runtime)
    ours: list[Times] = []
    bare: list[Times] = []
    pushed: list[tuple[float, float]] = []
    with bare_way.deployed(_release_beside(checkout, versions[0])):
        checkout.release(versions[0])
        checkout.up()
        for before, version in progress.each("release", [*itertools.pairwise(versions)]):
            bare.append(_bare_release(bare_way, _release_beside(checkout, version), checkout))
            ours.append(_our_release(checkout, version))
            own, previous = (f"{registry}/{MODEL}:{each}" for each in (version, before))
            known = images.new_kibibytes(bare_way.image(version), bare_way.image(before))
            pushed.append((images.new_kibibytes(own, previous), known))
            whole = images.all_kibibytes(own)
    rows = _rows(ours, bare)
    own_size, bare_size = zip(*pushed, strict=True)
    rows.append(Row(what="pushed to the registry", unit="KiB", values=own_size, baseline="bare way", base=bare_size))
    rows.append(
        Row(what="pushed, of the whole image", unit="KiB", values=own_size, baseline="all of it", base=[whole] * runs)
    )
    text = (
        f"A copy of the model `{MODEL}` under a new version. Here: `pulumi up`, as `make up` runs Pulumi. "
        "The bare way: `buildctl build` with the same Dockerfile and a push, `kubectl apply` and `kubectl rollout "
        "status`, on one Deployment with the same pod, which is updated in place; it checks no contract. Here the "
        "contract is kept before traffic moves. Both are asked through the gateway every 50 ms: all traffic is on the "
        "new version from when on nobody else answers."
    )
    return Section(title=TITLE, text=text, rows=rows)


def _rows(ours: list[Times], bare: list[Times]) -> list[Row]:
    def of(runs: list[Times], what: str) -> list[float]:
        return [times[what] for times in runs]

    return [
        Row(
            what=f"{what} after",
            unit="s",
            values=of(ours, what),
            baseline="bare way",
            base=of(bare, what),
            bar=BAR if what == MOVED else None,
        )
        for what in (BUILT, READY, MOVED, ENDED)
    ]


def _our_release(checkout: Checkout, version: str) -> Times:
    url, request = checkout.outputs["models"][MODEL]["url"], _request(checkout)
    slug = version.replace(".", "-")
    times: Times = {}
    with watching(f"{url}/infer", request) as watch:
        began = time.perf_counter()
        checkout.release(version)

        def note(event: Mapping[str, Any]) -> None:
            made, said = event.get("resOutputsEvent", {}).get("metadata", {}), event.get("diagnosticEvent", {})
            if slug in made.get("urn", "") and made["type"] == IMAGE:
                times.setdefault(BUILT, time.perf_counter() - began)
            if slug in said.get("urn", "") and CHECKING in said["message"]:
                times.setdefault(READY, time.perf_counter() - began)

        log = io.StringIO()
        command = ["up", "--yes", "--skip-preview", "--stack", STACK]
        code = engine.run(
            command,
            redactor=Redactor(()),
            on_event=note,
            folder=checkout.folder,
            environ=ENVIRONMENT,
            out=log,
        )
        if code:
            raise Failed(f"pulumi {' '.join(command)} ended with {code}:\n{log.getvalue()}")
        times[ENDED] = time.perf_counter() - began
        times[MOVED] = watch.wait_for(version) - began
    return times


def _bare_release(bare: Bare, folder: Path, checkout: Checkout) -> Times:
    url = checkout.outputs["endpoint"] + PATH
    times: Times = {}
    with watching(f"{url}/infer", _request(checkout)) as watch:
        began = time.perf_counter()
        bare.build(folder)
        times[BUILT] = time.perf_counter() - began
        bare.apply(folder.name)
        bare.await_rollout()
        times[READY] = times[ENDED] = time.perf_counter() - began
        times[MOVED] = watch.wait_for(folder.name) - began
    return times


def _release_beside(checkout: Checkout, version: str) -> Path:
    """A release that the program does not see."""
    target = checkout.folder.parent / "beside" / MODEL / version
    copy_release(checkout.folder / "models" / MODEL / LIKE, target)
    return target


def _request(checkout: Checkout) -> Path:
    return checkout.folder / "models" / MODEL / LIKE / "request.json"


def _deployment() -> dict[str, Any]:
    listed = json.loads(kubectl("get", "deployments", f"--selector=app.kubernetes.io/name={MODEL}", "--output=json"))
    found: dict[str, Any] = listed["items"][0]
    return found


def _images() -> tuple[str, str]:
    """The registry, and by digest the runtime image of the model in it."""
    settings = stacks.read(STACK)
    release = catalog.read(PROJECT / "models").get(MODEL, LIKE)
    tag = runtimes.runtime_of(release, settings.images).tag
    reference = f"{settings.registry}/runtime:{tag}"
    found = Registry(settings.image_registry).find("runtime", tag)
    if not settings.registry or not found:
        raise Failed(f"{reference} is not in the registry: run `make up`")
    return settings.registry, f"{reference}@{found.digest}"
