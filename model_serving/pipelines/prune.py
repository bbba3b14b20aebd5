"""The command ``prune``: lists the images of a stack's registry that are no longer needed, and removes them.

An image is only removed if this project made it, no state of any stack in the backend refers to it, no stack file
serves it or could roll back to it, and it is not among the newest versions of its model. If anything cannot be read,
nothing is removed. A removed version that is still in models/ is rebuilt when a stack names it.

The registry is listed before the states are read: images used in between are in a state, and images pushed in between
are not in the list.
"""

import argparse
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from model_serving import catalog
from model_serving.catalog import Catalog, object_name
from model_serving.git import Git
from model_serving.images import portal, runtimes
from model_serving.images.builds import CONTENT_LABEL, REVIEWS
from model_serving.images.registry import Image, Registry
from model_serving.pipelines import backend, locks, rollback, stacks
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.credentials import backend_of
from model_serving.problems import Failure, InvalidInput, aligned
from model_serving.stack import live
from model_serving.stack.settings import Settings

HELP: Final = "list the images that are no longer needed, and remove them"
EXAMPLE: Final = """\
example:
  python -m model_serving prune --stack local --apply

Without --apply it only lists. It considers the stack's registry and all stacks that share it.
"""
KEPT_VERSIONS: Final = 5
"""Versions of each model to keep for rollbacks, unless the stack says otherwise."""
ARTIFACT_REGISTRY: Final = ".pkg.dev"
RUNTIME: Final = "runtime"
"""Repository of the runtime images."""
_RECIPE_TAG: Final = re.compile(r"[0-9a-f]{12}")
"""Tag of a runtime or portal: a hash of what it is built from."""
_REFERENCE: Final = re.compile(r"/([a-z0-9]+(?:[._-]+[a-z0-9]+)*):([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MEGABYTE: Final = 1_000_000

Name = tuple[str, str]
"""Repository and tag."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Images that have to stay and why, and how to recognise this project's images.

    Attributes:
        versions: repository of a model -> versions that are or were released here.
        contents: content hash of each release in models/.
        locks: releases in models/ -> tags of the runtime images that they are built on.
        contexts: tags of runtime and portal images that were built from this checkout.
        tags: images to which a state refers, or that a stack file serves or could roll back to -> why they stay.
        digests: digests to which a state refers -> why they stay.
    """

    versions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    contents: Mapping[Name, str] = field(default_factory=dict)
    locks: Mapping[Name, frozenset[str]] = field(default_factory=dict)
    contexts: frozenset[str] = frozenset()
    tags: Mapping[Name, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


class Fate(NamedTuple):
    """Whether an image stays, and why."""

    image: Image
    stays: bool
    why: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="stack whose registry to prune")
    parser.add_argument(
        "--keep",
        type=_positive,
        metavar="N",
        help=f"versions to keep of each model (default: gcp.registry.keepVersions, or {KEPT_VERSIONS})",
    )
    parser.add_argument(
        "--unreleased",
        action="store_true",
        help="also remove versions of this project's models that are neither in models/ nor in git, and the images of "
        "reviews, merged or not",
    )
    parser.add_argument("--apply", action="store_true", help="remove the images instead of only listing them")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {text}; write 1 or more, the newest version has to stay")
    return number


def run(options: argparse.Namespace) -> int:
    chosen = stacks.read(options.stack)
    name = chosen.image_registry
    cleans_itself = name.partition("/")[0].endswith(ARTIFACT_REGISTRY)
    keep = options.keep or (chosen.gcp.registry.keep_versions if chosen.gcp else KEPT_VERSIONS)
    sharing = {each: read for each in stacks.names() if (read := stacks.read(each)).image_registry == name}
    released = catalog.read(stacks.PROJECT / "models")
    versions = _versions(released)
    registry = Registry(name)
    images = _read(registry, name, versions)
    if options.apply and not cleans_itself:
        _refuse_during_update(sharing)
    fates = decide(images, needs(released, versions, sharing), keep=keep, unreleased=options.unreleased)
    going = [fate.image for fate in fates if not fate.stays]
    print(table(fates))
    print(f"\n{len(fates) - len(going)} stay, {len(going)} go, which frees {_shown(freed(fates))}.")
    if cleans_itself:
        # With immutable tags (docker_config.immutable_tags, components/google/registry.py), neither tags nor tagged
        # images can be deleted; in someone else's registry, the policies are theirs.
        print(
            "Nothing is removed from Artifact Registry: it does not delete images with immutable tags.\n"
            "Untagged images are deleted by its own cleanup policies, see docs/gcp.md."
        )
    elif options.apply:
        # An update may have begun since, with an image that was already there.
        _refuse_during_update(sharing)
        _remove(registry, going)
    elif going:
        print(f"Nothing was removed. To do it: make prune STACK={options.stack} APPLY=true")
    return 0


def _refuse_during_update(sharing: Mapping[str, Settings]) -> None:
    for url in _backends(sharing):
        locks.dead(url, "It may need an image that is not yet in its state, so nothing was removed.")


def _backends(sharing: Mapping[str, Settings]) -> list[str]:
    """Addresses of all backends whose states may refer to the registry; of this environment first."""
    here = Backend(stack="").url
    return [here, *sorted({backend_of(chosen) for chosen in sharing.values()} - {here, ""})]


def _read(registry: Registry, name: str, versions: Mapping[str, frozenset[str]]) -> list[Image]:
    listed = registry.repositories()
    if listed is None:
        print(f"{name} does not list its repositories: only the models known here are considered.")
    repositories = sorted({*versions, RUNTIME} if listed is None else listed)
    print(f"reading {len(repositories)} repositories of {name}", flush=True)
    return registry.images(repositories)


def _remove(registry: Registry, images: Sequence[Image]) -> None:
    # Runtimes first: without the models, nothing would show whose they were.
    for number, image in enumerate(sorted(images, key=lambda image: image.repository != RUNTIME), start=1):
        # The manifest that lists the parts goes last, so that the next run continues an interrupted one.
        for digest in (*image.parts, image.digest):
            registry.delete(image.repository, digest)
        print(f"[{number}/{len(images)}] removed {image}", flush=True)
    print("The registry's garbage collection will free the space." if images else "There was nothing to do.")


# what is needed


def needs(released: Catalog, versions: Mapping[str, frozenset[str]], sharing: Mapping[str, Settings]) -> Needs:
    """Collects what has to stay from stack files, git and backends, for the stacks that share a registry."""
    releases = {
        (release.repository, release.version): release
        for name in released.names()
        for release in released.releases(name)
    }
    tags, digests = _referred(_states(sharing))
    settings = [chosen.images for chosen in sharing.values()]
    contexts = runtimes.CONTEXTS
    return Needs(
        versions=versions,
        contents={name: release.content_hash for name, release in releases.items()},
        locks={
            name: frozenset(runtimes.tag_of(release, each) for each in settings) for name, release in releases.items()
        },
        contexts=frozenset(path.name for path in contexts.iterdir()) if contexts.is_dir() else frozenset(),
        tags=_served(released, sharing) | tags,
        digests=digests,
    )


def _versions(released: Catalog) -> dict[str, frozenset[str]]:
    """The versions in models/, now or in any commit of this checkout."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name in released.names():
        found[object_name(name)] |= {release.version for release in released.releases(name)}
    options = ("--all", "--format=", "--name-only", "--diff-filter=A", "--relative", "-z")
    listed = Git(folder=stacks.PROJECT).run("log", *options, "--", "models/*/*/model-settings.json")
    for path in filter(None, listed.text.split("\0")):
        _, name, version, _ = path.split("/", 3)
        found[object_name(name)].add(version)
    return {name: frozenset(versions) for name, versions in found.items()}


def _served(released: Catalog, sharing: Mapping[str, Settings]) -> dict[Name, str]:
    found: dict[Name, str] = {}
    for stack, chosen in sharing.items():
        file = f"stacks/Pulumi.{stack}.yaml"
        models = live.resolve(chosen, released, file=file)
        names = [model.name for model in models]
        with ThreadPoolExecutor() as pool:
            targets = [*zip(names, pool.map(partial(_target, stack, released), names), strict=True)]
        rollbacks = [(object_name(name), version) for name, target in targets for version in target]
        found |= dict.fromkeys(rollbacks, f"a rollback of {stack} needs it")
        served = [(each.release.repository, each.release.version) for model in models for each in model.versions]
        if chosen.has_portal:
            served.append((portal.REPOSITORY, portal.tag_of(chosen.images)))
        found |= dict.fromkeys(served, f"{file} serves it")
    return found


def _target(stack: str, released: Catalog, model: str) -> Iterable[str]:
    try:
        return rollback.find(stack, model, released).weights
    except InvalidInput:  # nothing is older
        return ()


def _states(sharing: Mapping[str, Settings]) -> dict[str, str]:
    """Stack -> its state as text, for all stacks in all backends that may refer to the registry."""
    found: defaultdict[str, str] = defaultdict(str)
    with ThreadPoolExecutor(4) as pool:
        for url in _backends(sharing):
            environ = {**os.environ, backend.URL: url}
            names = Backend(stack="", environ=environ).stacks()
            print(f"reading {len(names)} states", flush=True)
            states = pool.map(_state, [Backend(stack=name, environ=environ) for name in names])
            for name, state in zip(names, states, strict=True):
                found[name] += state
    return found


def _state(stack: Backend) -> str:
    try:
        return str(stack.state())
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(
            f"the state of {stack.stack} is malformed: {error!r}\n"
            "  The images to which it refers are not known, so nothing was removed.\n"
            f"  Look at it with `pulumi stack export --stack {stack.stack}`, and repair it."
        ) from None


def _referred(states: Mapping[str, str]) -> tuple[dict[Name, str], dict[str, str]]:
    """Tags and digests of all images in states, in any kind of resource and under any address."""
    tags: dict[Name, str] = {}
    digests: dict[str, str] = {}
    for stack, text in states.items():
        why = f"the state of {stack} refers to it"
        tags |= dict.fromkeys(_REFERENCE.findall(text), why)
        digests |= dict.fromkeys(_DIGEST.findall(text), why)
    return tags, digests


# the fate of each image


def decide(images: Sequence[Image], needed: Needs, *, keep: int, unreleased: bool = False) -> list[Fate]:
    """Decides which images of a registry stay.

    ``keep`` newest versions of each model do. With ``unreleased``, versions that were never released here, such as
    experiments, count as this project's.
    """
    models = [image for image in images if image.repository != RUNTIME]
    fates = _with_their_twins(_fates_of_models(models, needed, keep, unreleased=unreleased))
    bases = [_fate_of_runtime(image, fates, needed) for image in images if image.repository == RUNTIME]
    return sorted([*fates, *_with_their_twins(bases)], key=_place)


def _fates_of_models(images: Iterable[Image], needed: Needs, keep: int, *, unreleased: bool) -> list[Fate]:
    fates = []
    own: defaultdict[str, list[Image]] = defaultdict(list)
    for image in images:
        if image.repository.startswith(f"{REVIEWS}/"):
            fates.append(Fate(image, not unreleased, "an image of a review"))
        elif image.repository == portal.REPOSITORY and _RECIPE_TAG.fullmatch(image.tag):
            fates.append(_fate_of_portal(image, needed))
        elif reason := _foreign(image, needed, unreleased=unreleased):
            fates.append(Fate(image, stays=True, why=reason))
        else:
            own[image.repository].append(image)
    for versions in own.values():
        versions.sort(key=lambda image: catalog.order(image.tag), reverse=True)  # type: ignore[arg-type,return-value]
        for place, image in enumerate(versions):
            reason = _used(image, needed) or (f"one of the newest {keep}" if place < keep else "")
            why = reason or f"nothing refers to it, newer versions: {place}"
            fates.append(Fate(image, bool(reason), why))
    return fates


def _foreign(image: Image, needed: Needs, *, unreleased: bool) -> str:
    """Why an image is not this project's; empty if it is."""
    content = image.labels.get(CONTENT_LABEL)
    # After an interrupted run, an image without its parts has no labels, and no one can pull it.
    is_remainder = bool(image.parts) and not image.blobs
    if image.repository not in needed.versions or (content is None and not is_remainder):
        return "not a model of this project"
    is_released = unreleased or image.tag in needed.versions[image.repository]
    if not is_released or catalog.order(image.tag) is None:
        return "not a release of this project, in models/ or in git"
    if content and content != needed.contents.get((image.repository, image.tag), content):
        return "differs in content from its release in models/"
    return ""


def _used(image: Image, needed: Needs) -> str:
    """Why an image is needed; empty if it is not."""
    by_digest = (needed.digests.get(digest) for digest in (image.digest, *image.parts))
    return next(filter(None, by_digest), "") or needed.tags.get((image.repository, image.tag), "")


def _fate_of_portal(image: Image, needed: Needs) -> Fate:
    why = _used(image, needed)
    if not why and image.tag not in needed.contexts:
        # As with runtimes: another project may have one of the same name in this registry.
        why = "its users are not known"
    return Fate(image, bool(why), why or "no stack refers to it")


def _fate_of_runtime(base: Image, models: Sequence[Fate], needed: Needs) -> Fate:
    going = {(fate.image.repository, fate.image.tag) for fate in models if not fate.stays}
    builds = (name for name, tags in needed.locks.items() if base.tag in tags and name not in going)
    above = [fate for fate in models if fate.image.is_built_on(base)]
    build, remaining = next(builds, None), [fate.image for fate in above if fate.stays]
    why = f"a build of {':'.join(build)} needs it" if build else _used(base, needed)
    if not why and remaining:
        why = f"{remaining[0]} is built on it"
    # The image does not say whose it is: only this checkout's builds and its models' bases are known.
    elif not why and not (_RECIPE_TAG.fullmatch(base.tag) and (above or base.tag in needed.contexts)):
        why = "its users are not known"
    return Fate(base, bool(why), why or "no remaining image is built on it")


def _with_their_twins(fates: Sequence[Fate]) -> list[Fate]:
    """Keeps images that share a manifest with one that stays: removing a manifest removes all of its tags."""
    kept = {name: fate.image for fate in fates if fate.stays for name in _manifests(fate.image)}
    return [
        Fate(fate.image, stays=True, why=f"the same image as {shared}")
        if not fate.stays and (shared := next((kept[each] for each in _manifests(fate.image) if each in kept), None))
        else fate
        for fate in fates
    ]


def _manifests(image: Image) -> list[Name]:
    """Repository and digest of each manifest: repositories do not share them."""
    return [(image.repository, digest) for digest in (image.digest, *image.parts)]


def _place(fate: Fate) -> tuple[bool, str, bool, object, str]:
    order = catalog.order(fate.image.tag)
    return (fate.image.repository == RUNTIME, fate.image.repository, order is None, order or 0, fate.image.tag)


def freed(fates: Iterable[Fate]) -> int:
    """Bytes that only the removed images use."""
    sizes: dict[bool, dict[str, int]] = {True: {}, False: {}}
    for fate in fates:
        sizes[fate.stays] |= fate.image.blobs
    return sum(size for digest, size in sizes[False].items() if digest not in sizes[True])


def table(fates: Iterable[Fate]) -> str:
    """One row per image."""
    rows = [
        (image.repository, image.tag, _shown(image.size), "stays" if stays else "goes", why)
        for image, stays, why in fates
    ]
    return aligned([("IMAGE", "VERSION", "SIZE", "", "WHY"), *rows], right=2)


def _shown(size: int) -> str:
    return f"{size / _MEGABYTE:.1f} MB"
