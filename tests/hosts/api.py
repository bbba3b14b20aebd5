"""What the stand-ins of both sites share: questions, answers, pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request, read."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes
    base: str

    def json(self) -> dict[str, Any]:
        """The body, which both sites are sent as JSON.

        Raises:
            Answer: if it is anything else.
        """
        if self.headers.get("content-type") != "application/json":
            raise Answer(415, {"message": "The provided content-type is not supported."})
        content: dict[str, Any] = json.loads(self.content)
        return content


@dataclass(eq=False)
class Answer(Exception):
    """What is answered; raised where there is nothing else to do.

    Attributes:
        is_cut: whether the connection breaks off in its midst.
    """

    status: int
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False


def page(question: Question, items: Sequence[Any], *, default: int) -> Answer:
    """A page of a list, with the address of the next one in the Link header."""
    size = min(int(question.query.get("per_page", default)), 100)
    number = int(question.query.get("page", 1))
    shown = items[(number - 1) * size : number * size]
    headers = {}
    if number * size < len(items):
        query = urlencode({**question.query, "per_page": size, "page": number + 1})
        headers["Link"] = f'<{question.base}{question.path}?{query}>; rel="next"'
    return Answer(200, list(shown), headers)
