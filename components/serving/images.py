"""The images of the releases that a stack serves, and of the runtimes under them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi import Output

from components.serving import hooks
from components.serving.image import BuildArgs, ModelImage, ModelImageArgs, RuntimeImage, RuntimeImageArgs
from model_serving.catalog import Release
from model_serving.images import builds, portal, runtimes
from model_serving.images.builds import Plan
from model_serving.images.runtimes import Runtime
from model_serving.stack.settings import Settings

if TYPE_CHECKING:
    from components.google.platform import Platform


class ModelImages:
    """The images of the stack's releases, each declared once."""

    def __init__(self, settings: Settings, platform: Platform | None, releases: Sequence[Release], plan: Plan) -> None:
        """Declares the images.

        Args:
            settings: say how images are built.
            platform: has the registry that they are pushed to, unless the settings name another.
            releases: those that will be served.
            plan: what becomes of each of their images.
        """
        self._settings = settings.images
        self._build = BuildArgs(
            registry=settings.registry or (platform.registry.url if platform else ""),
            builder=settings.images.builder,
            compression=settings.images.compression,
        )
        self._plan = plan
        self._runtimes: dict[str, RuntimeImage] = {}
        # A registry that the stack names is asked; the platform's own has immutable tags and may not be there yet.
        self._guard = hooks.released_models_never_change(ask_registry=bool(settings.registry))
        self._fetched = hooks.large_files_are_fetched(str(settings.remote))
        self._removed = hooks.large_files_are_removed()
        self._images = {release.label: self._declare(release) for release in releases}

    def of(self, release: Release) -> ModelImage:
        return self._images[release.label]

    def portal(self) -> Output[str]:
        """Declares the portal's image; returns its reference by digest."""
        return self._of_packages(
            portal.REPOSITORY,
            portal.recipe_of(self._settings),
            repository=portal.REPOSITORY,
            dockerfile=portal.DOCKERFILE,
            digest=self._plan.reused.get(portal.image_name(self._settings)),
        ).reference

    def _declare(self, release: Release) -> ModelImage:
        digest = self._plan.reused.get(builds.image_of(release))
        return ModelImage(
            release.label,
            ModelImageArgs.of(
                release,
                build=self._build,
                version=release.version,
                runtime=None if digest else self._runtime(release).reference,
                digest=digest,
                before=[self._guard],
                fetched=self._fetched,
                removed=self._removed,
            ),
        )

    def _runtime(self, release: Release) -> RuntimeImage:
        runtime = runtimes.runtime_of(release, self._settings)
        if runtime.tag not in self._runtimes:
            self._runtimes[runtime.tag] = self._of_packages(
                builds.runtime_resource(runtime.tag),
                runtime,
                repository=builds.RUNTIME,
                dockerfile=runtimes.DOCKERFILE,
                digest=self._plan.reused.get(builds.runtime_image(runtime.tag)),
            )
        return self._runtimes[runtime.tag]

    def _of_packages(
        self, name: str, recipe: Runtime, *, repository: str, dockerfile: Path, digest: str | None
    ) -> RuntimeImage:
        args = RuntimeImageArgs.of(
            recipe,
            build=self._build,
            repository=repository,
            base=self._settings.base,
            dockerfile=dockerfile,
            digest=digest,
        )
        return RuntimeImage(name, args)
