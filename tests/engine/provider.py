"""A provider without a cloud: Pulumi's provider protocol over resources that are kept in a file.

What the engine sends and gets is the real thing (check, diff, create, read, update, delete, invoke over gRPC); only the
cloud behind it is a JSON file that a test may read and edit. Subclasses say what a package's resources look like.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeVar

import grpc
from google.protobuf import any_pb2, empty_pb2, json_format, struct_pb2  # type: ignore[import-untyped]
from google.rpc import status_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from tests.engine.store import Faults, Properties, Refused, Request, Store

UNKNOWN: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What the protocol writes for a value that a preview cannot know."""
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a marker, the protocol's own

Path_ = tuple[str | int, ...]
"""Where a property is, from the resource down: ``("ipAllocationPolicy", "stackType")``."""


def secret(value: Any) -> Properties:
    return {_SIGNATURE: _SECRET, "value": value}


def is_secret(value: Any) -> bool:
    return isinstance(value, dict) and _SIGNATURE in value


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _answered(method: _Method) -> _Method:
    """Turns what the cloud refuses into the protocol's error."""

    @functools.wraps(method)
    def answering(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except Refused as error:
            context.abort(error.code, str(error))

    return answering  # type: ignore[return-value]


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """The protocol. What a subclass may say of its package's resources is in the first methods.

    Attributes:
        can_make_again: whether making what is there already does no harm, as with an image that is pushed twice.
    """

    package: ClassVar[str]
    can_make_again: ClassVar[bool] = False

    def __init__(self, state: Path, faults: Path | None, environ: Mapping[str, str] | None = None) -> None:
        self.store = Store(state / f"{self.package}.json")
        self.faults = Faults(faults, self.store)
        self.environ: Mapping[str, str] = environ or {}
        self.config: Properties = {}

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """The stand-in that a plugin's environment asks for, see tests/engine/standin.py."""
        faults = environ.get("STANDIN_FAULTS")
        return cls(Path(environ["STANDIN_STATE"]), Path(faults) if faults else None, environ)

    # What subclasses know.

    def problems(self, token: str, inputs: Properties) -> Iterator[tuple[str, str]]:
        """What is wrong with a resource's inputs: property, reason."""
        yield from ()

    def defaulted(self, token: str, name: str, inputs: Properties, old: Properties, seed: str) -> Properties:
        """The inputs with what the provider fills in, such as generated names."""
        return inputs

    def identify(self, request: Request) -> str:
        """What the cloud calls a new resource."""
        return request.name

    def computed(self, request: Request) -> Properties:
        """The outputs that the cloud decides."""
        return {}

    def answer(self, request: Request) -> Properties:
        """The state of a resource after it was made or changed.

        Raises:
            Refused: if the cloud does not take what it is asked for.
        """
        outputs: Properties = merged(request.inputs, self.computed(request))
        return outputs

    def changes(self, token: str, state: Properties, old: Properties, new: Properties) -> Iterator[Path_]:
        """Where what the program asks for differs: from the state, or from what it asked for before (``old``)."""
        yield from differences(old, new)

    def inputs_now(self, request: Request, found: Mapping[str, Any]) -> Properties:
        """What would have to be asked for to get what the cloud has now, ``found``."""
        decided = self.computed(dataclasses.replace(request, inputs=found["inputs"]))
        now = {key: value for key, value in found["outputs"].items() if key in request.inputs}
        inputs: Properties = _asked_for(now, request.inputs, decided)
        return inputs

    def planned(self, token: str, inputs: Properties) -> Properties:
        """The outputs that a preview of a new resource knows, with UNKNOWN for those that it cannot know."""
        return inputs

    def replaced_by(self, token: str, path: Path_) -> bool:
        """Whether another value there takes another resource."""
        return False

    def config_replaced_by(self, key: str) -> bool:
        """Whether another provider configuration makes other resources of all its resources."""
        return False

    def before_create(self, request: Request, content: dict[str, Any]) -> None:
        """Raises Refused if the cloud would not have this resource now."""

    def before_delete(self, request: Request, content: dict[str, Any]) -> bool:
        """Raises Refused if the cloud would not let it go; false if it is only to be forgotten."""
        return True

    def ask(self, token: str, arguments: Properties, content: dict[str, Any]) -> Properties:
        """Answers a function of the package."""
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"the stand-in for {self.package} does not know {token}")

    # The protocol.

    def Handshake(self, request: Any, context: Any) -> provider_pb2.ProviderHandshakeResponse:  # noqa: N802
        return provider_pb2.ProviderHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> plugin_pb2.PluginInfo:  # noqa: N802
        return plugin_pb2.PluginInfo(version=self.environ.get("STANDIN_VERSION", "0.0.1"))

    def GetSchema(self, request: Any, context: Any) -> provider_pb2.GetSchemaResponse:  # noqa: N802
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": self.package}))

    def Attach(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802
        return empty_pb2.Empty()

    def CheckConfig(self, request: provider_pb2.CheckRequest, context: Any) -> provider_pb2.CheckResponse:  # noqa: N802
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: Any) -> provider_pb2.DiffResponse:  # noqa: N802
        paths = list(differences(read(request.old_inputs), read(request.news)))
        return _diff_response({path: self.config_replaced_by(str(path[0])) for path in paths}, delete_first=False)

    def Configure(self, request: Any, context: Any) -> provider_pb2.ConfigureResponse:  # noqa: N802
        self.config = read(request.args)
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    @_answered
    def Check(self, request: provider_pb2.CheckRequest, context: Any) -> provider_pb2.CheckResponse:  # noqa: N802
        token, name = _token_and_name(request.urn)
        news, olds = read(request.news), read(request.olds)
        seed = hashlib.sha256(request.randomSeed or request.urn.encode()).hexdigest()
        failures = [
            provider_pb2.CheckFailure(property=place, reason=reason) for place, reason in self.problems(token, news)
        ]
        return provider_pb2.CheckResponse(
            inputs=write(self.defaulted(token, name, news, olds, seed)), failures=failures
        )

    @_answered
    def Diff(self, request: provider_pb2.DiffRequest, context: Any) -> provider_pb2.DiffResponse:  # noqa: N802
        token, name = _token_and_name(request.urn)
        state, old, new = read(request.olds), read(request.old_inputs), read(request.news)
        changed = self.changes(token, state, old, new)
        paths = {path: self.replaced_by(token, path) for path in changed if path[0] not in request.ignoreChanges}
        # Two cannot have one name at one time: the real provider deletes first then, too.
        same = any(paths.values()) and self.identify(Request(token=token, name=name, inputs=new)) == request.id
        return _diff_response(paths, delete_first=same)

    @_answered
    def Create(self, request: provider_pb2.CreateRequest, context: Any) -> provider_pb2.CreateResponse:  # noqa: N802
        token, name = _token_and_name(request.urn)
        inputs = read(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=write(self.planned(token, inputs)))
        wanted = Request(token=token, name=name, inputs=inputs)
        made = Request(token=token, name=name, inputs=inputs, identifier=self.identify(wanted))
        half_made = self.faults.meet("create", made)
        with self.store.open() as content:
            is_there = made.key in content["resources"] or made.key in content["deleted"]
            if is_there and not self.can_make_again:
                raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"Error 409: {made.identifier} already exists")
            self.before_create(made, content)
            outputs = self.answer(made)
            content["resources"][made.key] = {
                "token": token,
                "id": made.identifier,
                "name": name,
                "inputs": inputs,
                "outputs": outputs,
            }
        if half_made:
            _leave_half_made(made, outputs, context)
        return provider_pb2.CreateResponse(id=made.identifier, properties=write(outputs))

    @_answered
    def Read(self, request: provider_pb2.ReadRequest, context: Any) -> provider_pb2.ReadResponse:  # noqa: N802
        token, name = _token_and_name(request.urn)
        asked = Request(token=token, name=name, inputs=read(request.inputs), identifier=request.id)
        self.faults.meet("read", asked)
        with self.store.open() as content:
            found = content["resources"].get(asked.key)
        if not found:
            return provider_pb2.ReadResponse()
        # What is there now; an import brings no inputs and takes those of whoever made the resource.
        inputs = self.inputs_now(asked, found) if asked.inputs else found["inputs"]
        return provider_pb2.ReadResponse(id=request.id, inputs=write(inputs), properties=write(found["outputs"]))

    @_answered
    def Update(self, request: provider_pb2.UpdateRequest, context: Any) -> provider_pb2.UpdateResponse:  # noqa: N802
        token, name = _token_and_name(request.urn)
        inputs = read(request.news)
        wanted = Request(token=token, name=name, inputs=inputs, identifier=request.id)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=write(merged(inputs, self.computed(wanted))))
        self.faults.meet("update", wanted)
        with self.store.open() as content:
            if wanted.key not in content["resources"]:
                raise Refused(grpc.StatusCode.NOT_FOUND, f"Error 404: {request.id} was not found")
            outputs = self.answer(wanted)
            content["resources"][wanted.key] |= {"inputs": inputs, "outputs": outputs}
        return provider_pb2.UpdateResponse(properties=write(outputs))

    @_answered
    def Delete(self, request: provider_pb2.DeleteRequest, context: Any) -> empty_pb2.Empty:  # noqa: N802
        token, name = _token_and_name(request.urn)
        asked = Request(token=token, name=name, inputs={}, identifier=request.id)
        self.faults.meet("delete", asked)
        with self.store.open() as content:
            if found := content["resources"].get(asked.key):
                going = Request(token=token, name=name, inputs=found["inputs"], identifier=request.id)
                if self.before_delete(going, content):
                    del content["resources"][asked.key]
        return empty_pb2.Empty()

    @_answered
    def Invoke(self, request: provider_pb2.InvokeRequest, context: Any) -> provider_pb2.InvokeResponse:  # noqa: N802
        with self.store.open() as content:
            answer = self.ask(request.tok, read(request.args), content)
        return provider_pb2.InvokeResponse(**{"return": write(answer)})


def read(properties: struct_pb2.Struct) -> Properties:
    content: Properties = json_format.MessageToDict(properties)
    return content


def write(properties: Mapping[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(dict(properties))
    return struct


def merged(under: Any, over: Any) -> Any:
    """Two trees laid over each other; a list is one value, as is a secret."""
    if not (isinstance(under, dict) and isinstance(over, dict)) or is_secret(over):
        return over
    return {**under, **{key: merged(under.get(key), value) for key, value in over.items()}}


def _asked_for(now: Any, inputs: Any, decided: Any) -> Any:
    """What is there now, without what the cloud itself added to what it was asked for."""
    if not (isinstance(now, dict) and isinstance(inputs, dict) and isinstance(decided, dict)):
        return now
    return {
        key: _asked_for(value, inputs.get(key), decided.get(key))
        for key, value in now.items()
        if key in inputs or key not in decided
    }


def differences(old: Any, new: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The deepest places at which two trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), (*path, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, (*path, index))
    elif old != new:
        yield path


def number_of(text: str) -> str:
    """A number such as Google gives to projects: always the same one for a text."""
    return str(10**11 + int(hashlib.sha256(text.encode()).hexdigest(), 16) % (9 * 10**11))


def listen(provider: Provider) -> tuple[grpc.Server, int]:
    """Serves; returns what stops it, and the port."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=32), options=[("grpc.max_receive_message_length", 400 * 2**20)]
    )
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def serve(provider: Provider) -> None:
    """Serves until the engine, which started this process, ends it."""
    server, port = listen(provider)
    # The engine interrupts at its end and waits: there is nothing to tidy up, because the state is always on disk.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    print(port, flush=True)
    server.wait_for_termination()


def _token_and_name(urn: str) -> tuple[str, str]:
    """From ``urn:pulumi:<stack>::<project>::<parent$…token>::<name>``."""
    _, _, types, name = urn.split("::", 3)
    return types.rpartition("$")[2], name


def _diff_response(paths: Mapping[Path_, bool], *, delete_first: bool) -> provider_pb2.DiffResponse:
    kinds = provider_pb2.PropertyDiff
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if paths else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=sorted({str(path[0]) for path in paths}),
        replaces=sorted({str(path[0]) for path, replaces in paths.items() if replaces}),
        deleteBeforeReplace=delete_first,
        hasDetailedDiff=True,
        detailedDiff={
            "".join(
                f"[{part}]" if isinstance(part, int) else f'["{part}"]' for part in path
            ): provider_pb2.PropertyDiff(kind=kinds.UPDATE_REPLACE if replaces else kinds.UPDATE, inputDiff=True)
            for path, replaces in paths.items()
        },
    )


def _leave_half_made(made: Request, outputs: Properties, context: grpc.ServicerContext) -> None:
    reason = f"{made.identifier} was made but is not ready: timeout while waiting for state RUNNING"
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=made.identifier, properties=write(outputs), reasons=[reason], inputs=write(made.inputs)
        )
    )
    code = grpc.StatusCode.UNKNOWN
    status = status_pb2.Status(code=code.value[0], message=reason, details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, reason)
