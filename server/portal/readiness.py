"""Which versions are ready, asked of their servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

import httpx

from .served import Version

ASK_SECONDS: Final = 2.0
KNOWN_SECONDS: Final = 1.0
"""For which an answer is used again: however often clients ask, each server is asked once a second."""


class Readiness:
    """Asks all servers at once, and remembers the answers for a second."""

    def __init__(self, versions: Sequence[Version]) -> None:
        self._versions = versions
        self._client = httpx.AsyncClient(timeout=ASK_SECONDS, trust_env=False)
        self._asking = asyncio.Lock()
        self._known: dict[Version, bool] = {}
        self._until = 0.0

    async def of_all(self) -> Mapping[Version, bool]:
        """Version -> whether it can serve."""
        async with self._asking:
            if time.monotonic() >= self._until:
                found = await asyncio.gather(*map(self._is_ready, self._versions))
                self._known = dict(zip(self._versions, found, strict=True))
                self._until = time.monotonic() + KNOWN_SECONDS
            return self._known

    async def _is_ready(self, version: Version) -> bool:
        try:
            response = await self._client.get(version.ready_url)
        except httpx.HTTPError:
            return False
        return bool(response.status_code == HTTPStatus.OK)
