"""Images: a runtime per distinct lock, and on top of it one image per model version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import pulumi_docker_build as docker_build
from pulumi import ComponentResource, Input, Output, ResourceHook, ResourceHookBinding, ResourceOptions

from model_serving.catalog import Release, object_name
from model_serving.images import artefacts
from model_serving.images.builds import CONTENT_LABEL, dockerfile_of
from model_serving.images.runtimes import Runtime

COMPRESSION_LEVELS: Final = {"gzip": 6, "zstd": 1}
"""zstd at its fastest leaves as many bytes as gzip does by default."""


@dataclass(frozen=True, kw_only=True)
class BuildArgs:
    """Where images are built and pushed to.

    Attributes:
        registry: host, port and path without a scheme, e.g. ``localhost:5000``.
        builder: name of a buildx builder; None is the machine's default.
        compression: of layers, ``gzip`` or ``zstd``; None is gzip with Docker's media types.
    """

    registry: Input[str]
    builder: str | None = None
    compression: str | None = None

    @property
    def pushed(self) -> Mapping[str, Any]:
        """Arguments that push an image; the provider's ``push`` is short for an export without options."""
        if not self.compression:
            return {"push": True}
        registry = docker_build.ExportRegistryArgs(
            compression=docker_build.CompressionType(self.compression),
            # Without a level, the provider leaves the compression out as well (0.0.22).
            compression_level=COMPRESSION_LEVELS[self.compression],
            # Docker's media types know no zstd, neither in these layers nor in those of an image below.
            oci_media_types=True,
        )
        return {"push": False, "exports": [docker_build.ExportArgs(registry=registry)]}


@dataclass(frozen=True, kw_only=True)
class RuntimeImageArgs:
    """An image of locked packages.

    Attributes:
        repository: name in the registry.
        tag: hash of everything that decides the image.
        base: image with Python and its venv module.
        dockerfile: path of the Dockerfile.
        context: folder with requirements.lock.
        wheels: folder with every wheel of the lock, or None to ask the package index.
        digest: of the image, if it is in the registry and nothing is to be built.
    """

    build: BuildArgs
    repository: str
    tag: str
    base: str
    dockerfile: str
    context: str
    wheels: str | None = None
    digest: str | None = None

    @classmethod
    def of(
        cls,
        recipe: Runtime,
        *,
        build: BuildArgs,
        repository: str,
        base: str,
        dockerfile: Path,
        digest: str | None = None,
    ) -> Self:
        """The image of a recipe."""
        return cls(
            build=build,
            repository=repository,
            tag=recipe.tag,
            base=base,
            dockerfile=str(dockerfile),
            context=str(recipe.context),
            wheels=str(recipe.wheels) if recipe.wheels else None,
            digest=digest,
        )


class RuntimeImage(ComponentResource):
    """The packages of one lock with what they run: MLServer, or the portal.

    It leaves the base image alone: who sets ``base`` answers for its updates.
    """

    def __init__(self, name: str, args: RuntimeImageArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:RuntimeImage", name, None, opts)
        if args.digest:
            self.reference: Output[str] = _reference(args.build, args.repository, args.tag, args.digest)
            self.register_outputs({"reference": self.reference})
            return
        named = {"wheels": docker_build.ContextArgs(location=args.wheels)} if args.wheels else {}
        image = _image(
            self,
            name,
            args.build,
            repository=args.repository,
            tag=args.tag,
            dockerfile=args.dockerfile,
            context=docker_build.BuildContextArgs(location=args.context, named=named),
            build_args={"BASE": args.base, "PIP_NO_INDEX": "1" if args.wheels else "0"},
        )
        self.reference = image.ref
        self.register_outputs({"reference": self.reference})


@dataclass(frozen=True, kw_only=True)
class ModelImageArgs:
    """The image of one model version.

    Attributes:
        runtime: reference of the runtime image, by digest; None if nothing is to be built.
        folder: the release's folder, the build context.
        content_hash: hash of that folder.
        artefacts: folder with the files that the release has pointers for, if it has any: a context of its own, which
            need not be there until the image is built.
        before: in this order before the image is built, which it is not if one of them fails.
        after: when it is in the registry.
        digest: of the image, if it is in the registry and nothing is to be built.
    """

    build: BuildArgs
    model: str
    version: str
    runtime: Input[str] | None
    dockerfile: str
    folder: str
    content_hash: str
    artefacts: str | None = None
    before: Sequence[ResourceHook] = ()
    after: Sequence[ResourceHook] = ()
    digest: str | None = None

    @classmethod
    def of(
        cls,
        release: Release,
        *,
        build: BuildArgs,
        version: str,
        runtime: Input[str] | None,
        digest: str | None,
        fetched: ResourceHook,
        removed: ResourceHook,
        before: Sequence[ResourceHook] = (),
    ) -> Self:
        """The image of a release; ``fetched`` brings its large files before, and ``removed`` takes them away."""
        large = bool(release.pointers)
        return cls(
            build=build,
            model=release.name,
            version=version,
            runtime=runtime,
            dockerfile=str(dockerfile_of(release)),
            folder=str(release.folder),
            content_hash=release.content_hash,
            artefacts=str(artefacts.context_of(release)) if large else None,
            before=[*before, fetched] if large else [*before],
            after=[removed] if large else [],
            digest=digest,
        )

    @property
    def repository(self) -> str:
        # Names in a registry have no capitals.
        return object_name(self.model)


class ModelImage(ComponentResource):
    """A released model on its runtime; its only layer is the release's folder.

    It does not delete what it pushed: an image that is no longer served is what a rollback runs. That is then found by
    its digest and not built: another build would be another image, which a registry with immutable tags refuses.
    """

    def __init__(self, name: str, args: ModelImageArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ModelImage", name, None, opts)
        if args.digest:
            self.reference: Output[str] = _reference(args.build, args.repository, args.version, args.digest)
            self.digest: Output[str] = Output.from_input(args.digest)
            self.register_outputs({"reference": self.reference})
            return
        named = {"artefacts": docker_build.ContextArgs(location=args.artefacts)} if args.artefacts else None
        image = _image(
            self,
            name,
            args.build,
            repository=args.repository,
            tag=args.version,
            dockerfile=args.dockerfile,
            context=docker_build.BuildContextArgs(location=args.folder, named=named),
            build_args={"RUNTIME": args.runtime, "MODEL": args.model},
            labels={CONTENT_LABEL: args.content_hash},
            before=args.before,
            after=args.after,
        )
        self.reference = image.ref
        self.digest = image.digest
        self.register_outputs({"reference": self.reference})


def _reference(build: BuildArgs, repository: str, tag: str, digest: str) -> Output[str]:
    return Output.concat(build.registry, f"/{repository}:{tag}@{digest}")


def _image(
    parent: ComponentResource,
    name: str,
    build: BuildArgs,
    *,
    repository: str,
    tag: str,
    before: Sequence[ResourceHook] = (),
    after: Sequence[ResourceHook] = (),
    **arguments: Any,
) -> docker_build.Image:
    dockerfile = arguments.pop("dockerfile")
    return docker_build.Image(
        name,
        tags=[Output.concat(build.registry, f"/{repository}:{tag}")],
        dockerfile=docker_build.DockerfileArgs(location=dockerfile),
        builder=docker_build.BuilderConfigArgs(name=build.builder) if build.builder else None,
        # A preview would build without pushing: minutes of work that show nothing.
        build_on_preview=False,
        **build.pushed,
        # Deleting the resource deletes the image from the registry, and a rollback would have nothing to run.
        opts=ResourceOptions(
            parent=parent,
            retain_on_delete=True,
            hooks=ResourceHookBinding(
                before_create=[*before], before_update=[*before], after_create=[*after], after_update=[*after]
            ),
        ),
        **arguments,
    )
