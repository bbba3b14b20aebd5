"""What the settings of every part of a stack are made of: the base class, shared formats, and how a rule refuses."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]
"""A Kubernetes quantity: ``500m`` is half a core, ``512Mi`` is 536,870,912 bytes."""
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
Cidr = Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]+(:\d+)?$")]


class Section(BaseModel):
    """A part of the stack file. Keys are camelCase there, as in Pulumi's own files, and unknown ones are refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, coerce_numbers_to_str=False)


def wrong(what: str, consequence: str, remedy: str) -> PydanticCustomError:
    """What a rule raises, in the three parts in which this project says a mistake; ``what`` follows the key."""
    # The texts go in as context and not as a template: a brace in a value must not be read as a placeholder.
    return PydanticCustomError("setting", "{what}", {"what": what, "consequence": consequence, "remedy": remedy})
