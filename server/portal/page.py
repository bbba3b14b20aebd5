"""The page at /, its files, what it lists, and the API description with Swagger UI, which shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import openapi
from .served import Version

FOLDER: Final = Path(__file__).with_name("static")
PREFIX: Final = "/portal"
"""Of its files."""
INDEX: Final = "index.html"
SWAGGER_UI: Final = ("fastapi_swagger/resources/swagger-ui-bundle.js", "fastapi_swagger/resources/swagger-ui.css")
"""The files of https://www.npmjs.com/package/swagger-ui-dist as the Python package fastapi-swagger has them. Nothing of
that package is imported."""
TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Final[Mapping[str, str]] = {
    # Scripts and styles only from files of the page: what a release says of itself cannot become one. The pictures in
    # Swagger UI's style are data.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Page:
    """Answers from memory.

    Args:
        versions: those that are deployed.
        release: version of the portal, for the API description.
    """

    def __init__(self, versions: Sequence[Version], release: str) -> None:
        swagger_ui = metadata.distribution("fastapi-swagger")
        files = [*FOLDER.iterdir(), *(Path(str(swagger_ui.locate_file(path))) for path in SWAGGER_UI)]
        self._files = {path.name: path.read_bytes() for path in files if path.suffix in TYPES}
        self._served = _json([version.public for version in versions])
        self._openapi = _json(openapi.document(versions, release))

    def routes(self) -> list[Route]:
        return [
            Route("/", self.index),
            Route(f"{PREFIX}/served.json", self.served),
            Route(f"{PREFIX}/{{name}}", self.file),
            Route(openapi.PATH, self.openapi),
        ]

    async def index(self, _: Request) -> Response:
        return self._file(INDEX)

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return self._file(name)

    async def served(self, _: Request) -> Response:
        """Every deployed version with the description of its release; readiness is in the repository's index."""
        return Response(self._served, headers=HEADERS, media_type="application/json")

    async def openapi(self, _: Request) -> Response:
        return Response(self._openapi, headers=HEADERS, media_type="application/json")

    def _file(self, name: str) -> Response:
        return Response(self._files[name], headers={**HEADERS, "Content-Type": TYPES[Path(name).suffix]})


def _json(content: Any) -> bytes:
    # Escaped, because text of a release may have halves of characters, which are not UTF-8.
    return json.dumps(content).encode("ascii")
