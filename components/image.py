"""Images: a runtime per distinct lock, and on top of it one image per model version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi_docker_build as docker_build
from pulumi import ComponentResource, Input, Output, ResourceHook, ResourceHookBinding, ResourceOptions

CONTENT_LABEL = "model-serving.content-hash"
"""Label of a model image: the hash of the release folder that it was built from."""


@dataclass(frozen=True, kw_only=True)
class BuildArgs:
    """Where images are built and pushed to.

    Attributes:
        registry: host, port and path without a scheme, e.g. ``localhost:5000``.
        builder: name of a buildx builder; None is the machine's default.
    """

    registry: Input[str]
    builder: str | None = None


@dataclass(frozen=True, kw_only=True)
class RuntimeImageArgs:
    """A runtime image.

    Attributes:
        tag: hash of everything that decides the image.
        base: image with Python and its venv module.
        dockerfile: path of the Dockerfile.
        context: folder with requirements.lock.
        wheels: folder with every wheel of the lock, or None to ask the package index.
    """

    build: BuildArgs
    tag: str
    base: str
    dockerfile: str
    context: str
    wheels: str | None = None


class RuntimeImage(ComponentResource):
    """MLServer with the packages of one lock.

    It leaves the base image alone: who sets ``base`` answers for its updates.
    """

    def __init__(self, name: str, args: RuntimeImageArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:RuntimeImage", name, None, opts)
        named = {"wheels": docker_build.ContextArgs(location=args.wheels)} if args.wheels else {}
        image = _image(
            self,
            name,
            args.build,
            repository="runtime",
            tag=args.tag,
            dockerfile=args.dockerfile,
            context=docker_build.BuildContextArgs(location=args.context, named=named),
            build_args={"BASE": args.base, "PIP_NO_INDEX": "1" if args.wheels else "0"},
        )
        self.reference: Output[str] = image.ref
        self.register_outputs({"reference": self.reference})


@dataclass(frozen=True, kw_only=True)
class ModelImageArgs:
    """The image of one model version.

    Attributes:
        runtime: reference of the runtime image, by digest.
        folder: the release's folder, the build context.
        content_hash: hash of that folder.
        guard: looks at an image before it is built, and fails if its version was published with other content.
    """

    build: BuildArgs
    model: str
    version: str
    runtime: Input[str]
    dockerfile: str
    folder: str
    content_hash: str
    guard: ResourceHook | None = None


class ModelImage(ComponentResource):
    """A released model on its runtime; its only layer is the release's folder.

    It does not delete what it pushed: an image that is no longer served is what a rollback runs.
    """

    def __init__(self, name: str, args: ModelImageArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ModelImage", name, None, opts)
        image = _image(
            self,
            name,
            args.build,
            repository=args.model,
            tag=args.version,
            dockerfile=args.dockerfile,
            context=docker_build.BuildContextArgs(location=args.folder),
            build_args={"RUNTIME": args.runtime, "MODEL": args.model},
            labels={CONTENT_LABEL: args.content_hash},
            guard=args.guard,
        )
        self.reference: Output[str] = image.ref
        self.digest: Output[str] = image.digest
        self.register_outputs({"reference": self.reference})


def _image(
    parent: ComponentResource,
    name: str,
    build: BuildArgs,
    *,
    repository: str,
    tag: str,
    guard: ResourceHook | None = None,
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
        push=True,
        # Deleting the resource deletes the image from the registry, and a rollback would have nothing to run.
        opts=ResourceOptions(
            parent=parent,
            retain_on_delete=True,
            hooks=ResourceHookBinding(before_create=[guard], before_update=[guard]) if guard else None,
        ),
        **arguments,
    )
