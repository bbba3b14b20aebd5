"""What settings are made of: the base class, shared formats, how a rule refuses, and how a mistake is told."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from model_serving.problems import Problem

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]
"""A Kubernetes quantity: ``500m`` is half a core, ``512Mi`` is 536,870,912 bytes."""
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
DnsName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
Cidr = Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]+(:\d+)?$")]

REMOTE_PATTERN: Final = r"^((gs|s3|az)://[^/\s]+(/\S*)?|file:///\S+)$"
RemoteUrl = Annotated[str, Field(pattern=REMOTE_PATTERN)]
"""A remote for large files: a bucket of Google's, of S3 or of Azure with an optional path, or a folder."""


class Section(BaseModel):
    """A part of the stack file. Keys are camelCase there, as in Pulumi's own files, and unknown ones are refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, coerce_numbers_to_str=False)


def wrong(what: str, consequence: str, remedy: str) -> PydanticCustomError:
    """What a rule raises, in the three parts in which this project says a mistake; ``what`` follows the key."""
    # The texts go in as context and not as a template: a brace in a value must not be read as a placeholder.
    return PydanticCustomError("setting", "{what}", {"what": what, "consequence": consequence, "remedy": remedy})


def problems_of(
    error: ValidationError,
    settings: type[BaseModel],
    *,
    file: str,
    prefix: str = "",
    retired: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Every mistake of a file, each with its key, its value, what it would cause and its cure.

    Args:
        error: what validating the file's content raised.
        settings: what the file holds.
        file: as the reader knows it.
        prefix: of the keys in the file.
        retired: key that was there once -> what to write instead.
    """
    teller = _Teller(settings, file, prefix, retired or {})
    return [teller.problem(details) for details in error.errors(include_url=False)]


class _Teller:
    def __init__(self, settings: type[BaseModel], file: str, prefix: str, retired: Mapping[str, str]) -> None:
        self._settings = settings
        self._file = file
        self._prefix = prefix
        self._retired = retired

    def problem(self, details: ErrorDetails) -> Problem:
        key = self._prefix + ".".join(str(part) for part in details["loc"] if part != "[key]")
        context = details.get("ctx", {})
        match details["type"]:
            case "setting":
                what, consequence, remedy = f"{key} {context['what']}", context["consequence"], context["remedy"]
            case "extra_forbidden":
                what = f"{key} is no setting"
                consequence = "It would be ignored, and what it says would not happen."
                remedy = self._nearest(str(details["loc"][-1]), self._section_at(details["loc"][:-1]))
            case "missing":
                what = f"{key} is missing"
                consequence, remedy = self._advice(details)
            case _:
                what = f"{key} is {json.dumps(details['input'], default=str)}"
                consequence, remedy = self._advice(details)
        return Problem(file=self._file, what=what, consequence=consequence, remedy=remedy)

    def _advice(self, details: ErrorDetails) -> tuple[str, str]:
        """What the setting itself says of a wrong value, else the rule that the value breaks."""
        section, key = self._field_at(details["loc"])
        for info in section.model_fields.values():
            extra = info.json_schema_extra
            if info.alias == key:
                if isinstance(extra, dict) and "remedy" in extra:
                    return str(extra["consequence"]), str(extra["remedy"])
                consequence = f"It is meant for this: {info.description}"
                if info.examples:
                    return consequence, f"Write for example {' or '.join(map(str, info.examples))}."
                return consequence, f"{details['msg']}."
        return "What it says would not happen.", f"{details['msg']}."

    def _nearest(self, key: str, section: type[BaseModel]) -> str:
        if key in self._retired:
            return self._retired[key]
        known = [str(info.alias) for info in section.model_fields.values()]
        close = difflib.get_close_matches(key, known, n=1)
        return f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(sorted(known))}."

    def _section_at(self, location: tuple[int | str, ...]) -> type[BaseModel]:
        """The deepest section on the way to a place in the file."""
        section: type[BaseModel] = self._settings
        for part in location:
            for info in section.model_fields.values():
                if info.alias == part:
                    section = next(sections_in(info.annotation), section)
        return section

    def _field_at(self, location: tuple[int | str, ...]) -> tuple[type[BaseModel], str]:
        """The setting that a place belongs to: an entry of a list or a mapping is described where the list is."""
        for end in range(len(location), 0, -1):
            section = self._section_at(location[: end - 1])
            if any(info.alias == location[end - 1] for info in section.model_fields.values()):
                return section, str(location[end - 1])
        return self._settings, str(location[0])


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from sections_in(argument)
