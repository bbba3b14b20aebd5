"""What MLServer imports as the implementation of a release, in the server as in its workers.

A module of its own, because MLServer loads an implementation's module again each time it asks for it.
"""

from __future__ import annotations

from typing import Final

from mlserver import MLModel, ModelSettings

from .loading import NoImplementation
from .model import checked

IMPLEMENTATION: Final = f"{__name__}.model"
ORIGINAL: Final = "model_serving_implementation"
"""The parameter that has the release's own implementation; MLServer hands parameters on to its workers."""


def wrap(settings: ModelSettings) -> ModelSettings:
    """Settings of the same release, of which MLServer loads what this module makes of it."""
    setattr(settings.parameters, ORIGINAL, settings.implementation_)
    settings.implementation_ = IMPLEMENTATION
    return settings


def model(settings: ModelSettings) -> MLModel:
    """The release's model.

    Raises:
        NoImplementation: if its class cannot be imported.
    """
    release = settings.model_copy(update={"implementation_": getattr(settings.parameters, ORIGINAL)})
    try:
        implementation = checked(release.implementation)
    except (Exception, SystemExit) as error:
        raise NoImplementation(str(error)) from error
    return implementation(settings)
