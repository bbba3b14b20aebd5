"""Lists which images of a stack's registry nothing needs any more, and removes them.

An image goes only if all of this is known of it: this project made it, no state of any stack in the backend refers to
it, no stack file serves it or would go back to it, and it is not among the newest of its model. Whatever cannot be read
stops the command before anything is removed. A version that goes and is still in models/ is built again when a stack
asks for it.

The registry is listed before the states are read: what is used in between is in a state, and what is pushed in between
is not in the list.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from model_serving import catalog
from model_serving.catalog import Catalog
from model_serving.git import Git
from model_serving.images import runtimes
from model_serving.images.builds import CONTENT_LABEL
from model_serving.images.registry import Image, Registry
from model_serving.pipelines import recover, rollback, stacks
from model_serving.pipelines.backend import Backend, BackendError
from model_serving.pipelines.credentials import backend_of
from model_serving.pipelines.holders import Machine
from model_serving.pipelines.locks import Verdict, judge
from model_serving.problems import InvalidInput
from model_serving.stack import live
from model_serving.stack.settings import Settings

NAME: Final = "prune"
HELP: Final = "list the images that nothing needs any more, and remove them"
EXAMPLE: Final = """\
example:
  python -m model_serving prune --stack local --apply

Without --apply it only lists. It looks at the registry of the stack, and at every stack that shares it.
"""
KEPT_VERSIONS: Final = 5
"""So many of a model stay for rollbacks, where the stack says nothing."""
ARTIFACT_REGISTRY: Final = ".pkg.dev"
RUNTIME: Final = "runtime"
"""Repository of the runtime images."""
_RUNTIME_TAG: Final = re.compile(r"[0-9a-f]{12}")
_REFERENCE: Final = re.compile(r"/([a-z0-9]+(?:[._-]+[a-z0-9]+)*):([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MEGABYTE: Final = 1_000_000

Name = tuple[str, str]
"""Repository and tag."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What has to stay, each with who needs it, and what is this project's at all.

    Attributes:
        versions: model -> versions that are released here, or were.
        contents: of those in models/: the hash of the folder.
        served: images that a stack file serves, or would go back to.
        locks: releases in models/ -> tags of the runtime images that they are built on.
        contexts: tags of runtime images that were built from this checkout.
        tags: images that a state refers to.
        digests: those that a state refers to, be it with a tag or not.
    """

    versions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    contents: Mapping[Name, str] = field(default_factory=dict)
    served: Mapping[Name, str] = field(default_factory=dict)
    locks: Mapping[Name, frozenset[str]] = field(default_factory=dict)
    contexts: frozenset[str] = frozenset()
    tags: Mapping[Name, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What becomes of an image, and why."""

    image: Image
    stays: bool
    why: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="whose registry")
    parser.add_argument(
        "--keep",
        type=_positive,
        metavar="N",
        help=f"newest versions of each model that stay (default: gcp.registry.keepVersions, else {KEPT_VERSIONS})",
    )
    parser.add_argument(
        "--unreleased",
        action="store_true",
        help="also versions of this project's models that are neither in models/ nor in git",
    )
    parser.add_argument("--apply", action="store_true", help="remove what is listed as going")


def run(options: argparse.Namespace) -> int:
    return _prune(options.stack, options.keep, unreleased=options.unreleased, applies=options.apply)


def _prune(stack: str, keep: int | None, *, unreleased: bool, applies: bool) -> int:
    chosen = stacks.read(stack)
    name = chosen.image_registry
    cleans_itself = name.partition("/")[0].endswith(ARTIFACT_REGISTRY)
    kept = keep or (chosen.gcp.registry.keep_versions if chosen.gcp else KEPT_VERSIONS)
    sharing = {each: read for each in stacks.names() if (read := stacks.read(each)).image_registry == name}
    released = catalog.read(stacks.PROJECT / "models")
    versions = _versions(released)
    registry = Registry(name)
    images = _read(registry, name, versions)
    if applies and not cleans_itself:
        _refuse_during_update(os.environ.get("PULUMI_BACKEND_URL", ""))
    fates = decide(images, needs(released, versions, sharing), keep=kept, unreleased=unreleased)
    print(table(fates))
    going = [fate.image for fate in fates if not fate.stays]
    print(f"\n{len(fates) - len(going)} stay, {len(going)} go, which frees {_shown(freed(fates))}.")
    if cleans_itself:
        # Its tags cannot be taken away, and an image with a tag cannot be deleted (docker_config.immutable_tags,
        # components/google/registry.py); in one of somebody else's, the policies are theirs.
        print(
            "Nothing is removed from Artifact Registry: it does not delete an image whose tag never moves.\n"
            "Images without a tag go by its own cleanup policies, see docs/gcp.md."
        )
    elif going and not applies:
        print(f"Nothing was removed. To do it: make prune STACK={stack} APPLY=true")
    elif applies:
        _remove(registry, fates)
    return 0


def _read(registry: Registry, name: str, versions: Mapping[str, frozenset[str]]) -> list[Image]:
    listed = registry.repositories()
    if listed is None:
        print(f"{name} does not say which repositories it has: only the models that are known here are looked at.")
    repositories = sorted({*versions, RUNTIME} if listed is None else listed)
    print(f"reading {len(repositories)} repositories of {name}", flush=True)
    return registry.images(repositories)


# what is needed


def needs(released: Catalog, versions: Mapping[str, frozenset[str]], sharing: Mapping[str, Settings]) -> Needs:
    """Asks stack files, git and backends what has to stay.

    Args:
        released: the catalog.
        versions: model -> versions that are released here, or were.
        sharing: the stacks whose images are in the registry.

    Raises:
        BackendError: if not every state can be read.
        InvalidInput: if a stack file is wrong.
    """
    releases = [release for name in released.names() for release in released.releases(name)]
    tags, digests = _referred(_states(sharing))
    contexts = runtimes.CONTEXTS
    return Needs(
        versions=versions,
        contents={(release.name, release.version): release.content_hash for release in releases},
        served=_served(released, sharing),
        locks={
            (release.name, release.version): frozenset(
                runtimes.tag_of(release, chosen.images) for chosen in sharing.values()
            )
            for release in releases
        },
        contexts=frozenset(path.name for path in contexts.iterdir()) if contexts.is_dir() else frozenset(),
        tags=tags,
        digests=digests,
    )


def _versions(released: Catalog) -> dict[str, frozenset[str]]:
    """Those in models/, and those that were there in any commit that this checkout has."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name in released.names():
        found[name] |= {release.version for release in released.releases(name)}
    options = ("--all", "--format=", "--name-only", "--diff-filter=A", "--relative")
    listed = Git(folder=stacks.PROJECT).run("log", *options, "--", "models/*/*/model-settings.json")
    for line in listed.text.split():
        _, name, version, _ = line.split("/", 3)
        found[name].add(version)
    return {name: frozenset(versions) for name, versions in found.items()}


def _served(released: Catalog, sharing: Mapping[str, Settings]) -> dict[Name, str]:
    found: dict[Name, str] = {}
    for stack, chosen in sharing.items():
        models = live.resolve(chosen, released, file=f"stacks/Pulumi.{stack}.yaml")
        with ThreadPoolExecutor(max(1, len(models))) as pool:
            targets = pool.map(partial(_target, stack, released), [model.name for model in models])
            for model, target in zip(models, targets, strict=True):
                found |= {(model.name, version): f"a rollback of {stack} needs it" for version in target}
        for model in models:
            for each in model.versions:
                found[model.name, each.release.version] = f"stacks/Pulumi.{stack}.yaml serves it"
    return found


def _target(stack: str, released: Catalog, model: str) -> Iterable[str]:
    try:
        return rollback.find(stack, model, released).weights
    except InvalidInput:  # nothing is older
        return ()


def _states(sharing: Mapping[str, Settings]) -> dict[str, str]:
    """Stack -> its state as text, of every stack in every backend that may refer to the registry."""
    here = os.environ.get("PULUMI_BACKEND_URL", "")
    declared = {backend_of(chosen) for chosen in sharing.values()} - {here, ""}
    environments = [{**os.environ}, *({**os.environ, "PULUMI_BACKEND_URL": url} for url in sorted(declared))]
    found: dict[str, str] = {}
    with ThreadPoolExecutor(4) as pool:
        for environ in environments:
            names = Backend(stack="", environ=environ).stacks()
            print(f"reading {len(names)} states", flush=True)
            backends = [Backend(stack=name, environ=environ) for name in names]
            for name, state in zip(names, pool.map(_state, backends), strict=True):
                found[name] = found.get(name, "") + state
    return found


def _state(backend: Backend) -> str:
    try:
        return str(backend.state())
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(
            f"the state of {backend.stack} is not what Pulumi writes: {error!r}\n"
            "  Which images it refers to cannot be known, so nothing was removed.\n"
            f"  Look at it with `pulumi stack export --stack {backend.stack}`, and mend it."
        ) from None


def _referred(states: Mapping[str, str]) -> tuple[dict[Name, str], dict[str, str]]:
    """Every image that is named anywhere in a state, by whatever kind of resource and under whatever address."""
    tags: dict[Name, str] = {}
    digests: dict[str, str] = {}
    for stack, text in states.items():
        why = f"the state of {stack} refers to it"
        tags |= dict.fromkeys(_REFERENCE.findall(text), why)
        digests |= dict.fromkeys(_DIGEST.findall(text), why)
    return tags, digests


# what becomes of each


def decide(images: Sequence[Image], needed: Needs, *, keep: int, unreleased: bool = False) -> list[Fate]:
    """What becomes of each image.

    Args:
        images: all that the registry has.
        needed: what has to stay.
        keep: how many of the newest versions of each model stay.
        unreleased: whether a version that was never released here, such as an experiment, is this project's as well.
    """
    models = [image for image in images if image.repository != RUNTIME]
    fates = _with_their_twins(_fates_of_models(models, needed, keep, unreleased=unreleased))
    bases = [image for image in images if image.repository == RUNTIME]
    fates += _with_their_twins([_fate_of_runtime(base, fates, needed) for base in bases])
    return sorted(fates, key=_place)


def _fates_of_models(images: Iterable[Image], needed: Needs, keep: int, *, unreleased: bool) -> list[Fate]:
    fates = []
    own: defaultdict[str, list[Image]] = defaultdict(list)
    for image in images:
        if reason := _foreign(image, needed, unreleased=unreleased):
            fates.append(Fate(image=image, stays=True, why=reason))
        else:
            own[image.repository].append(image)
    for versions in own.values():
        versions.sort(key=lambda image: catalog.order(image.tag), reverse=True)  # type: ignore[arg-type,return-value]
        for place, image in enumerate(versions):
            reason = _used(image, needed) or (f"one of the newest {keep}" if place < keep else "")
            why = reason or f"nothing refers to it, newer versions: {place}"
            fates.append(Fate(image=image, stays=bool(reason), why=why))
    return fates


def _foreign(image: Image, needed: Needs, *, unreleased: bool) -> str:
    """Why an image is not this project's; empty if it is."""
    name = (image.repository, image.tag)
    content = image.labels.get(CONTENT_LABEL)
    # One that lost all of its parts to an interrupted run says nothing of itself, and nobody can pull it.
    is_remainder = bool(image.parts) and not image.blobs
    if image.repository not in needed.versions or (content is None and not is_remainder):
        return "not a model of this project"
    is_released = unreleased or image.tag in needed.versions[image.repository]
    if not is_released or catalog.order(image.tag) is None:
        return "not a release of this project, in models/ or in git"
    if content and content != needed.contents.get(name, content):
        return f"has another content than models/{image.repository}/{image.tag}"
    return ""


def _used(image: Image, needed: Needs) -> str:
    """Who needs an image; empty if nobody does."""
    name = (image.repository, image.tag)
    by_digest = (needed.digests.get(digest) for digest in (image.digest, *image.parts))
    return next(filter(None, by_digest), "") or needed.tags.get(name) or needed.served.get(name, "")


def _fate_of_runtime(base: Image, models: Sequence[Fate], needed: Needs) -> Fate:
    going = {(fate.image.repository, fate.image.tag) for fate in models if not fate.stays}
    for release, tags in needed.locks.items():
        if base.tag in tags and release not in going:
            return Fate(image=base, stays=True, why=f"a build of {':'.join(release)} needs it")
    if reason := _used(base, needed):
        return Fate(image=base, stays=True, why=reason)
    above = [fate for fate in models if fate.image.is_built_on(base)]
    if remaining := [fate for fate in above if fate.stays]:
        return Fate(image=base, stays=True, why=f"{remaining[0].image} is built on it")
    # Nothing in it says whose it is: what is known is what this checkout built, and on what its models are built.
    if not _RUNTIME_TAG.fullmatch(base.tag) or not (above or base.tag in needed.contexts):
        return Fate(image=base, stays=True, why="nobody here knows who needs it")
    return Fate(image=base, stays=False, why="no image that stays is built on it")


def _with_their_twins(fates: Sequence[Fate]) -> list[Fate]:
    """The fates, with those kept that are the same image as one that stays: it would go with all of its tags."""
    kept: dict[Name, Image] = {}
    for fate in fates:
        if fate.stays:
            kept |= dict.fromkeys(_manifests(fate.image), fate.image)
    return [
        Fate(image=fate.image, stays=True, why=f"the same image as {shared}")
        if not fate.stays and (shared := next((kept[each] for each in _manifests(fate.image) if each in kept), None))
        else fate
        for fate in fates
    ]


def _manifests(image: Image) -> list[Name]:
    """What its removal removes: repositories have manifests of their own."""
    return [(image.repository, digest) for digest in (image.digest, *image.parts)]


def _place(fate: Fate) -> tuple[bool, str, bool, object, str]:
    order = catalog.order(fate.image.tag)
    return (fate.image.repository == RUNTIME, fate.image.repository, order is None, order or 0, fate.image.tag)


def freed(fates: Iterable[Fate]) -> int:
    """Bytes that only images have that go."""
    sizes: dict[bool, dict[str, int]] = {True: {}, False: {}}
    for fate in fates:
        sizes[fate.stays] |= fate.image.blobs
    return sum(size for digest, size in sizes[False].items() if digest not in sizes[True])


def table(fates: Iterable[Fate]) -> str:
    """A row for each image."""
    rows = [("IMAGE", "VERSION", "SIZE", "", "WHY")]
    for fate in fates:
        image = fate.image
        rows.append((image.repository, image.tag, _shown(image.size), "stays" if fate.stays else "goes", fate.why))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].rjust(widths[2]), row[3].ljust(widths[3])])
        + f"  {row[4]}"
        for row in rows
    )


def _shown(size: int) -> str:
    return f"{size / _MEGABYTE:.1f} MB"


# removal


def _refuse_during_update(url: str) -> None:
    """A backend in a folder of this machine tells who is updating; in a bucket, only an update itself would see it."""
    if not url.startswith(recover.SCHEME):
        return
    here = Machine.here()
    for path in sorted(Path(url.removeprefix(recover.SCHEME), ".pulumi", "locks").rglob("*.json")):
        try:
            verdict = judge(recover.read_lock(path), {}, here, None)
        except FileNotFoundError:  # the update is done
            continue
        except (OSError, ValueError, KeyError) as error:
            verdict = Verdict(state="unknown", who="somebody", why=f"its lock {path} cannot be read: {error}")
        if verdict.state != "dead":
            raise BackendError(
                f"stack {path.parent.name} is being updated by {verdict.who} ({verdict.why}).\n"
                "  It may need an image that its state does not tell of yet, so nothing was removed.\n"
                "  Run the same again when the update is done."
            )


def _remove(registry: Registry, fates: Iterable[Fate]) -> None:
    """Runtimes first: once the models are gone, nobody could tell whose they were."""
    removals = [*_removals(fate.image for fate in fates if not fate.stays)]
    for number, (image, digests) in enumerate(removals, start=1):
        for digest in digests:
            registry.delete(image.repository, digest)
        print(f"[{number}/{len(removals)}] removed {image}", flush=True)
    print("The space is free when the registry has collected its garbage." if removals else "There was nothing to do.")


def _removals(images: Iterable[Image]) -> Iterator[tuple[Image, list[str]]]:
    """Each image with its manifests, what is below before what tells of it: an interrupted run is gone on with."""
    for image in sorted(images, key=lambda image: image.repository != RUNTIME):
        yield image, [*image.parts, image.digest]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {text}; write 1 or more, the newest version has to stay")
    return number
