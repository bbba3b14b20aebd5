"""The API description of a stack: OpenAPI 3.1, made of what is served.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from . import schemas
from .served import Version

PATH: Final = "/mlapi/openapi.json"
PREFIX: Final = "/mlapi/v2"
VERSION_HEADER: Final = "x-model-version"
DESCRIPTION: Final = (
    "Models of this stack, served in the Open Inference Protocol (V2). Requests and answers are JSON; tensors may also "
    "be binary, with the header Inference-Header-Content-Length, as tritonclient and KServe's client send them."
)
ERRORS: Final[Mapping[str, str]] = {
    "400": "The request is not JSON, not of the V2 protocol, or does not fit the model.",
    "404": "There is no such model or version.",
    "408": "The rest of the request did not come in time.",
    "413": "The request is too large.",
    "500": "The model raised an exception.",
    "503": "The model is loading, takes too long or has too many requests waiting.",
}


def document(versions: Sequence[Version], release: str) -> dict[str, Any]:
    """The description.

    Args:
        versions: those that are deployed, each model's one after the other.
        release: version of the portal.
    """
    components = schemas.common()
    components |= {name: schema for version in versions for name, schema in schemas.of(version).items()}
    models = [(name, [*group]) for name, group in groupby(versions, key=lambda version: version.model)]
    paths = dict(_of_stack())
    for name, group in models:
        paths |= dict(_of_model(name, group))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Models", "version": release, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": "stack"}, *({"name": name} for name, _ in models)],
        "paths": paths,
        "components": {"schemas": components, "responses": _errors()},
    }


def _of_stack() -> Iterator[tuple[str, dict[str, Any]]]:
    yield PREFIX, {"get": _operation("stack", "metadata", "Metadata of the server", "ServerMetadata")}
    yield f"{PREFIX}/health/live", {"get": _operation("stack", "live", "Whether the portal answers", "Live")}
    ready = _operation("stack", "ready", "Whether every version with traffic can serve", "Ready")
    ready["responses"]["503"] = _answer("A version with traffic cannot serve.", "Ready")
    yield f"{PREFIX}/health/ready", {"get": ready}
    index = _operation(
        "stack", "index", "The deployed versions, and which can serve", "RepositoryIndex", ["400", "413"]
    )
    index["requestBody"] = {"content": {"application/json": {"schema": _reference("IndexRequest")}}}
    yield f"{PREFIX}/repository/index", {"post": index}


def _of_model(name: str, versions: Sequence[Version]) -> Iterator[tuple[str, dict[str, Any]]]:
    path, answering = f"{PREFIX}/models/{name}", [version for version in versions if not version.shadow]
    busy = [version for version in answering if version.weight] or answering
    chosen = {
        "name": VERSION_HEADER,
        "in": "header",
        "required": False,
        "description": "Chooses a version; without it, the weights do.",
        "schema": {"type": "string", "enum": [version.version for version in answering]},
    }
    for place, item in _operations(path, name, name, busy).items():
        yield place, {**item, "parameters": [chosen]}
    for version in versions:
        title = f"{name} {version.version}"
        yield from _operations(f"{path}/versions/{version.version}", name, title, [version]).items()


def _operations(path: str, tag: str, title: str, versions: Sequence[Version]) -> dict[str, dict[str, Any]]:
    """The three paths of a model or of one of its versions, answered by any of the versions."""
    # No model's name has two dots in a row.
    name = title.replace(" ", "..")
    ready = _operation(tag, f"ready_{name}", f"Whether {title} can serve", None, ["404", "503"])
    return {
        path: {"get": _operation(tag, f"metadata_{name}", f"Metadata of {title}", "ModelMetadata", ["404"])},
        f"{path}/ready": {"get": ready},
        f"{path}/infer": {"post": _infer(tag, name, title, versions)},
    }


def _infer(tag: str, name: str, title: str, versions: Sequence[Version]) -> dict[str, Any]:
    operation = _operation(tag, f"infer_{name}", f"Ask {title}", None, [*ERRORS])
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": _body(versions, "request")},
    }
    operation["responses"]["200"] = {
        "description": "The answer.",
        "content": {"application/json": _body(versions, "response")},
    }
    return operation


def _body(versions: Sequence[Version], part: str) -> dict[str, Any]:
    references = [_reference(schemas.name_of(version, part)) for version in versions]
    body: dict[str, Any] = {"schema": references[0] if len(references) == 1 else {"anyOf": references}}
    examples = {version.version: {"value": _example(version, part)} for version in versions if part in version.about}
    return {**body, "examples": examples} if examples else body


def _example(version: Version, part: str) -> Mapping[str, Any]:
    # A response.json need not name the model that gives it, as each answer does.
    named = {"model_name": version.model, "model_version": version.version} if part == "response" else {}
    return {**named, **version.about[part]}


def _operation(tag: str, name: str, summary: str, schema: str | None, errors: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": _answer("The answer.", schema),
            **{status: {"$ref": f"#/components/responses/{status}"} for status in errors},
        },
    }


def _answer(description: str, schema: str | None) -> dict[str, Any]:
    content = {"content": {"application/json": {"schema": _reference(schema)}}} if schema else {}
    return {"description": description, **content}


def _errors() -> dict[str, Any]:
    errors = {status: _answer(description, "Error") for status, description in ERRORS.items()}
    retry = {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}
    errors["503"]["headers"] = {"Retry-After": retry}
    return errors


def _reference(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}
