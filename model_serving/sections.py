"""Building blocks of settings: the base class, shared formats, rules between settings, and error messages."""

import difflib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Final, TypeAlias, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from model_serving.problems import Problem

_NAME_OF_A_HOST: Final = re.compile(r"(?!-)[a-zA-Z0-9_-]{1,63}(?<!-)(\.(?!-)[a-zA-Z0-9_-]{1,63}(?<!-))*")
LONGEST_HOST: Final = 253
_OTHERS_NAMESPACE: Final = re.compile(
    r"default|(kube|gke|gmp)-.*|(asm|cnrm|config-management|gatekeeper|istio)-system|config-management-monitoring"
)
"""Namespaces of Kubernetes, of GKE and of its add-ons."""


def reachable(address: str) -> str:
    """Refuses an address, with or without a scheme, to which nothing could connect."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        # "Port out of range 0-65535", "Invalid IPv6 URL"
        raise ValueError(f"which is not an address: {error}") from None
    if port == 0:
        raise ValueError("whose port is 0")
    if parts.netloc.endswith(":"):
        raise ValueError("whose port is missing")
    if "@" in parts.netloc:
        raise ValueError("which has a user's name in it")
    if "?" in address or "#" in address:
        raise ValueError("which has a query or a fragment")
    if not _NAME_OF_A_HOST.fullmatch(host) or len(host) > LONGEST_HOST or host.rpartition(".")[2].isdigit():
        try:
            ip_address(host)
        except ValueError:
            raise ValueError(f"whose host, {host}, is neither a name nor an address") from None
    return address


def possible_bucket(address: str) -> str:
    """Refuses a bucket that Google would not have let anyone create, and a service that nothing could connect to."""
    found = re.match(r"gs://([^/?]*)", address)
    if found and not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", found[1]):
        raise ValueError(f"whose bucket, {found[1]}, has a name that Google refuses")
    return reachable(address) if address.startswith("https://") else address


def _range(cidr: str) -> str:
    address, _, length = cidr.partition("/")
    try:
        ip_address(address)
        network = ip_network(cidr, strict=False)
    except ValueError:
        raise ValueError("which is not a range of addresses") from None
    if network.network_address != ip_address(address):
        raise ValueError(f"which is an address inside the range {network}")
    if length != str(network.prefixlen):
        raise ValueError(f"which is written {network}")
    return cidr


def possible_branch(name: str) -> str:
    """Refuses what git does not take for a branch, and a branch with ``refs/heads/``."""
    # https://git-scm.com/docs/git-check-ref-format
    if re.search(r"\.\.|//|/\.|@\{|^[./-]|[./]$|\.lock(/|$)", name) or name.startswith("refs/") or name == "@":
        raise wrong(
            f"is {name}, which is not the name of a branch",
            "Nothing would be deployed from it.",
            "Write the branch without refs/heads/, e.g. main.",
        )
    return name


def no_truth(value: Any) -> Any:
    """Refuses true and false in the place of a number; pydantic takes them for 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a number")
    return value


def _own_namespace(name: str) -> str:
    if _OTHERS_NAMESPACE.fullmatch(name):
        raise wrong(
            f"is {name}",
            "It belongs to the cluster: its own pods would be cut off from the network, and `pulumi destroy` would "
            "delete it.",
            "Write a namespace that contains nothing else, which the program creates.",
        )
    return name


LONGEST_LABEL: Final = 63
LONGEST_SHOWN: Final = 500
"""Characters of a wrong value in a message."""
_COMPONENT: Final = r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*"
IMAGE_PATH: Final = rf"{_COMPONENT}(/{_COMPONENT})*"
"""Of a repository of images, https://pkg.go.dev/github.com/distribution/reference."""
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=LONGEST_LABEL)]
DnsName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", max_length=LONGEST_HOST)
]
Namespace = Annotated[DnsLabel, AfterValidator(_own_namespace)]
"""A namespace of this project's own."""
Cidr = Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"), AfterValidator(_range)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]+(:\d+)?$"), AfterValidator(reachable)]

REMOTE_PATTERN: Final = r"^(((gs|s3)://[^/\s?#@]+|az://[^/\s?#]+)(/\S*)?|file:///\S+)$"
RemoteUrl = Annotated[str, Field(pattern=REMOTE_PATTERN), AfterValidator(possible_bucket)]
"""A remote for large files: a bucket of Google's, of S3 or of Azure with an optional path, or a folder."""

Branch = Annotated[str, Field(min_length=1, pattern=r"^[\w./-]+$"), AfterValidator(possible_branch)]
Identifier = Annotated[int, Field(gt=0, lt=1 << 63), BeforeValidator(no_truth)]
"""An ID that GitLab or GitHub assigns once and, unlike a name, never reuses."""


_NUMBERS: Final = (int, int | None, float, float | None)


class Section(BaseModel):
    """A part of the stack file. Keys are camelCase, as in Pulumi's own files; unknown keys are refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _number_is_not_a_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        allowed = cls.model_fields[str(info.field_name)].annotation
        return no_truth(value) if allowed in _NUMBERS else value


Violation: TypeAlias = tuple[str, str, str]
"""A broken rule: the key, relative to its section, and what is wrong with it; the consequence; the remedy."""
Rule: TypeAlias = Callable[[Any], Iterable[Violation]]
"""Compares settings of one section, whose type is the annotation of the first parameter."""


def wrong(what: str, consequence: str, remedy: str) -> PydanticCustomError:
    """The error that a validator of a single value raises; ``what`` follows the key."""
    # The texts are passed as context and not as a template: a brace in a value must not be read as a placeholder.
    return PydanticCustomError("setting", "{what}", {"what": what, "consequence": consequence, "remedy": remedy})


def violations(section: Section, rules: Iterable[Rule]) -> Iterator[Violation]:
    """Applies rules to a section and to all sections inside it.

    A rule that reads an invalid setting is skipped, see `valid_part`.
    """
    forms = {rule: next(iter(inspect.signature(rule, eval_str=True).parameters.values())).annotation for rule in rules}
    for place, part in _sections_below("", section):
        for rule, form in forms.items():
            if isinstance(part, form):
                try:
                    yield from ((f"{place}{what}", consequence, remedy) for what, consequence, remedy in rule(part))
                except AttributeError as error:
                    if not isinstance(error.obj, Section) or error.name not in type(error.obj).model_fields:
                        raise  # a mistake of the rule


def _sections_below(place: str, value: object) -> Iterator[tuple[str, Section]]:
    if isinstance(value, Section):
        yield place, value
        inside = {str(type(value).model_fields[name].alias): each for name, each in value}
    else:
        inside = value if isinstance(value, dict) else {}
    for key, each in inside.items():
        yield from _sections_below(f"{place}{key}.", each)


def valid_part(form: type[Section], values: Mapping[str, Any]) -> Section:
    """A section without its invalid settings; reading one of those raises AttributeError.

    If a key is misspelt, the setting that was probably meant is invalid too.
    """
    names = {str(info.alias): name for name, info in form.model_fields.items()}
    invalid = {names[near] for key in values.keys() - names for near in difflib.get_close_matches(key, names, n=1)}
    valid: dict[str, Any] = {}
    for key in names.keys() & values.keys():
        try:
            valid[names[key]] = _valid_value(form.model_fields[names[key]], values[key])
        except ValidationError:
            invalid.add(names[key])
    section = form.model_construct(**valid)
    for name in invalid - valid.keys():
        vars(section).pop(name, None)  # the default, which does not apply
    return section


def _valid_value(info: FieldInfo, value: Any) -> Any:
    try:
        return TypeAdapter(info.rebuild_annotation()).validate_python(value)
    except ValidationError:
        form = next(sections_in(info.annotation), None)
        if form is None or not issubclass(form, Section) or not isinstance(value, dict):
            raise
        if get_origin(info.annotation) is dict:
            return {key: valid_part(form, each) for key, each in value.items() if isinstance(each, dict)}
        return valid_part(form, value)


def problems_of(error: ValidationError, settings: type[BaseModel], *, file: str, prefix: str = "") -> list[Problem]:
    """Every mistake in a file, each with its key, value, consequence and remedy.

    The file has the form ``settings``, and is named as the reader knows it; ``prefix`` is that of its keys.
    """

    def problem(details: ErrorDetails) -> Problem:
        location = details["loc"]
        key = prefix + ".".join(str(part) for part in location if part != "[key]")
        match details["type"]:
            case "setting":
                context = details["ctx"]
                what, consequence, remedy = f"{key} {context['what']}", context["consequence"], context["remedy"]
            case "extra_forbidden":
                what, consequence = f"unknown setting {key}", "It would have no effect."
                remedy = _nearest(settings, location)
            case "missing":
                what, (consequence, remedy) = f"{key} is missing", _advice(settings, details)
            case kind:
                # A validator that raises a ValueError says what is wrong, and the setting what to write.
                reason = f", {details['ctx']['error']}" if kind == "value_error" else ""
                value = json.dumps(details["input"], default=str)
                shown = value if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]}…"
                what = f"{key} is {shown}{reason}"
                consequence, remedy = _advice(settings, details)
        return Problem(file=file, what=what, consequence=consequence, remedy=remedy)

    return [problem(details) for details in error.errors(include_url=False)]


def _advice(settings: type[BaseModel], details: ErrorDetails) -> tuple[str, str]:
    """Consequence and remedy of a wrong value: the setting's own, else its purpose and the constraint it breaks."""
    _, info = _place(settings, details["loc"])
    if info is None:
        return "It would have no effect.", f"{details['msg']}."
    extra = info.json_schema_extra
    if isinstance(extra, dict) and "remedy" in extra:
        return str(extra["consequence"]), str(extra["remedy"])
    if details["type"] == "model_type":
        return f"Meaning of the setting: {info.description}", "Input should be a valid dictionary, e.g. {}."
    examples = " or ".join(map(str, info.examples or ()))
    # An example shows a form, but not how long is too long.
    limit = f"{details['msg']}. " if details["type"] in {"string_too_long", "too_long"} else ""
    return (
        f"Meaning of the setting: {info.description}",
        f"{limit}Write for example {examples}." if examples else f"{details['msg']}.",
    )


def _nearest(settings: type[BaseModel], location: tuple[int | str, ...]) -> str:
    section, _ = _place(settings, location[:-1])
    known = [str(info.alias) for info in section.model_fields.values()]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(sorted(known))}."


def _place(settings: type[BaseModel], location: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The innermost section and setting at a place; an entry of a list or mapping belongs to the setting."""
    section, setting = settings, None
    for part in location:
        for info in section.model_fields.values():
            if info.alias == part:
                setting = info
                section = next(sections_in(info.annotation), section)
                break
    return section, setting


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from sections_in(argument)
