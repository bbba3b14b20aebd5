"""The portal: the page, and the endpoints of the V2 protocol that concern the whole stack.

https://github.com/kserve/open-inference-protocol and, for the index of the repository,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .page import Page
from .readiness import Readiness
from .served import Version

PREFIX: Final = "/mlapi/v2"
NAME: Final = "model-serving"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository")
MOST_BYTES: Final = 1024
"""Of the body of a request for the index, whose only member is ``ready``."""
LEAST_BYTES_TO_PACK: Final = 2048
"""Of an answer: what a page loads is packed, and what clients ask for every second is not."""


class Portal:
    """The endpoints.

    Args:
        versions: those that are deployed.
        release: version of the portal, for the server's metadata and the API description.
    """

    def __init__(self, versions: Sequence[Version], release: str) -> None:
        self._readiness = Readiness(versions)
        self._release = release
        self._page = Page(versions, release)

    def app(self, allowed_origins: Sequence[str] = ()) -> Starlette:
        """The application; browsers on pages of the allowed origins may use it."""
        routes = [
            Route(PREFIX, self.metadata),
            Route(f"{PREFIX}/health/live", self.live),
            Route(f"{PREFIX}/health/ready", self.ready),
            Route(f"{PREFIX}/repository/index", self.index, methods=["POST"]),
            *self._page.routes(),
        ]
        middleware = [Middleware(GZipMiddleware, minimum_size=LEAST_BYTES_TO_PACK, compresslevel=6)]
        if allowed_origins:
            middleware.append(
                Middleware(
                    CORSMiddleware, allow_origins=[*allowed_origins], allow_methods=["GET", "POST"], allow_headers=["*"]
                )
            )
        return Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: _error})

    async def metadata(self, _: Request) -> JSONResponse:
        return JSONResponse({"name": NAME, "version": self._release, "extensions": EXTENSIONS})

    async def live(self, _: Request) -> JSONResponse:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> JSONResponse:
        """Whether every version that gets traffic can serve."""
        ready = all(is_ready for version, is_ready in (await self._readiness.of_all()).items() if version.weight)
        return JSONResponse({"ready": ready}, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def index(self, request: Request) -> JSONResponse:
        """Every deployed version; with ``{"ready": true}`` those that can serve."""
        only_ready = await _asked(request)
        listed = [
            {
                "name": version.model,
                "version": version.version,
                "state": "READY" if is_ready else "UNAVAILABLE",
                "reason": "",
            }
            for version, is_ready in (await self._readiness.of_all()).items()
            if is_ready or not only_ready
        ]
        return JSONResponse(listed)


async def _asked(request: Request) -> bool:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request is larger than {MOST_BYTES} bytes")
    try:
        document: Any = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("ready", False), bool):
        raise HTTPException(HTTPStatus.BAD_REQUEST, 'write {}, or {"ready": true} for what can serve now')
    return bool(document.get("ready", False))


async def _error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is installed for
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
