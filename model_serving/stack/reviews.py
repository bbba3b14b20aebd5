"""A review: a release that a merge request adds, served before it is merged, beside what its stack serves.

Labels say to which merge request its objects belong and until when they stay, so that they can be found without any
state. On Google Cloud they are in a namespace of their own, with a gateway and a registry of their own, because nobody
has approved yet what runs there. Elsewhere they are in the stack's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from model_serving.images.builds import REVIEWS
from model_serving.stack.google import REVIEW
from model_serving.stack.settings import Settings

_REQUEST: Final = "MODEL_SERVING_REVIEW"
_UNTIL: Final = "MODEL_SERVING_REVIEW_UNTIL"
"""Environment variables of the program when it serves a review instead of a stack."""
REQUEST_LABEL: Final = "model-serving/review"
UNTIL_LABEL: Final = "model-serving/review-until"
URL_VARIABLE: Final = "REVIEW_URL"
"""In the file from which GitLab takes the address of a review's environment."""
GATEWAY: Final = "gateway"
"""Name of a stack's Gateway."""
OWN_GATEWAY: Final = f"{REVIEW}-{GATEWAY}"
"""Name of the Gateway that only serves reviews."""
PATH: Final = "/mlapi/review"
"""Public path of all reviews, below that of the models."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a stack serves reviews.

    Attributes:
        gateway: name of the Gateway, in the same namespace.
        registry: of their images, from which no stack runs anything.
    """

    namespace: str
    gateway: str
    registry: str

    @classmethod
    def of(cls, settings: Settings) -> Place:
        if settings.gcp:
            namespace, registry = settings.review_namespace, settings.gcp.review_registry
            return cls(namespace=namespace, gateway=OWN_GATEWAY, registry=registry)
        registry = f"{settings.image_registry}/{REVIEWS}"
        return cls(namespace=settings.namespace, gateway=GATEWAY, registry=registry)


@dataclass(frozen=True, kw_only=True)
class Review:
    """What a merge request adds to a stack.

    Attributes:
        request: number of the merge request.
        until: when it is removed, in seconds since 1970.
    """

    request: int
    until: int

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Review | None:
        """The review that the program has been called for; None if it serves a stack."""
        if _REQUEST not in environ:
            return None
        return cls(request=int(environ[_REQUEST]), until=int(environ[_UNTIL]))

    def environment(self) -> dict[str, str]:
        """Calls the program for this review."""
        return {_REQUEST: str(self.request), _UNTIL: str(self.until)}

    @property
    def name(self) -> str:
        """First part of the names of its objects."""
        return f"review-{self.request}"

    @property
    def labels(self) -> dict[str, str]:
        """Of all of its objects and pods."""
        return {REQUEST_LABEL: str(self.request), UNTIL_LABEL: str(self.until)}

    @property
    def deadline(self) -> str:
        """When it is removed, for people."""
        return f"{datetime.fromtimestamp(self.until, UTC):%Y-%m-%d %H:%M} UTC"

    def path(self, model: str) -> str:
        """Public path of a model."""
        return f"{PATH}/{self.request}/v2/models/{model}"
