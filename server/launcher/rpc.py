"""gRPC: the endpoints of REST with the same limits, checks and texts, and with gRPC's own codes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import grpc
import numpy as np
from mlserver import Settings
from mlserver.grpc.converters import ModelInferResponseConverter, ModelMetadataResponseConverter
from mlserver.grpc.dataplane_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
)
from mlserver.grpc.dataplane_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from mlserver.grpc.interceptors import PromServerInterceptor
from mlserver.grpc.servicers import InferenceServicer
from mlserver.grpc.utils import to_metadata
from mlserver.handlers import DataPlane, ModelRepositoryHandlers
from mlserver.logging import logger
from mlserver.types import InferenceRequest, InferenceResponse, TensorData
from mlserver.utils import extract_headers, insert_headers
from pydantic import ValidationError

from . import binary, errors, outputs
from .errors import EncodingFailed, Refused
from .limits import BINARY_GROWTH, VALUE_BYTES, Limits, Refusal, TooLate

CODES: Final[Mapping[int, grpc.StatusCode]] = {
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
"""Of statuses of REST; any other is the client's mistake below 500, and the model's from there on."""
FLOATS: Final = {"fp32_contents": "float32", "fp64_contents": "float64"}
"""Field -> its values' type for NumPy."""
ONLY_UNCOMPRESSED: Final = ("grpc.compression_enabled_algorithms_bitset", 1)
"""gRPC limits a message before it unpacks it: 8 MB could become gigabytes.
https://grpc.github.io/grpc/core/group__grpc__arg__keys.html"""


class Service(InferenceServicer):  # type: ignore[misc]
    """MLServer's endpoints, of which those that ask the model are within the limits.

    Args:
        plane: what REST asks as well.
        handlers: of MLServer's repository.
        limits: that REST has as well: what waits is counted together.
    """

    def __init__(self, plane: DataPlane, handlers: ModelRepositoryHandlers, limits: Limits) -> None:
        super().__init__(plane, handlers)
        self._plane = plane
        self._limits = limits

    async def ModelReady(self, request: ModelReadyRequest, context: Any) -> ModelReadyResponse:  # noqa: N802 - gRPC's name
        async with self._told(context):
            return ModelReadyResponse(ready=await self._plane.model_ready(request.name, request.version or None))

    async def ModelMetadata(self, request: ModelMetadataRequest, context: Any) -> ModelMetadataResponse:  # noqa: N802
        async with self._told(context):
            metadata = await self._plane.model_metadata(request.name, request.version or None)
            return ModelMetadataResponseConverter.from_types(metadata)

    async def ModelInfer(self, request: ModelInferRequest, context: Any) -> ModelInferResponse:  # noqa: N802 - gRPC's name
        size = request.ByteSize()
        async with self._told(context), self._limits.turn(size, parsed_bytes(request, size)):
            payload = asked(request, context.invocation_metadata())
            response = await self._plane.infer(payload, request.model_name, request.model_version or None)
            _set_metadata(response, context)
            return answered(response, raw=bool(request.raw_input_contents))

    async def ModelStreamInfer(  # noqa: N802 - gRPC's name
        self, requests: AsyncIterator[ModelInferRequest], context: Any
    ) -> AsyncIterator[ModelInferResponse]:
        async with self._told(context), self._limits.turn() as extend:
            first = await anext(aiter(requests), None)
            if first is None:
                raise Refused("there is no request in the stream")

            async def payloads() -> AsyncIterator[InferenceRequest]:
                yield asked(first, context.invocation_metadata())
                async for request in requests:
                    yield asked(request, context.invocation_metadata())

            answers = self._plane.infer_stream(payloads(), first.model_name, first.model_version or None)
            async for response in answers:
                yield answered(response, raw=bool(first.raw_input_contents))
                extend()

    @asynccontextmanager
    async def _told(self, context: Any) -> AsyncIterator[None]:
        """Answers an exception with a code and the text that REST has."""
        try:
            yield
        except Refusal as refusal:
            self._limits.count(refusal)
            late = isinstance(refusal, TooLate)
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED if late else code_of(refusal.status), str(refusal))
        except Exception as error:
            status, text = errors.told(error)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                logger.exception("a call failed")
            await context.abort(code_of(status), text)


def code_of(status: int) -> grpc.StatusCode:
    """The code that stands for a status of REST."""
    is_models = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return CODES.get(status, grpc.StatusCode.INTERNAL if is_models else grpc.StatusCode.INVALID_ARGUMENT)


def parsed_bytes(request: ModelInferRequest, size: int) -> int:
    """About how much memory a request of so many bytes takes as values of Python."""
    raw = sum(map(len, request.raw_input_contents))
    values = sum(len(content) for tensor in request.inputs for _, content in tensor.contents.ListFields())
    return size - raw + BINARY_GROWTH * raw + VALUE_BYTES * values


def asked(request: ModelInferRequest, metadata: Iterable[tuple[str, str | bytes]]) -> InferenceRequest:
    """The request that a message stands for.

    Raises:
        Refused: if it is not one of the protocol.
    """
    inputs = [
        {**_named(each), "shape": [*each.shape], "datatype": each.datatype, "data": []} for each in request.inputs
    ]
    document = {
        "id": request.id or None,
        "parameters": _parameters(request.parameters),
        "inputs": inputs,
        "outputs": [*map(_named, request.outputs)] or None,
    }
    try:
        binary.Wanted(document)
        payload = InferenceRequest.model_validate(document)
        for tensor, values in zip(payload.inputs, _values(request), strict=True):
            tensor.data = TensorData.model_construct(values)
    except (binary.Malformed, ValidationError) as error:
        raise errors.of_request(error) from None
    insert_headers(payload, {key: value for key, value in metadata if isinstance(value, str)})
    return payload


def _named(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "parameters": _parameters(tensor.parameters)}


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    # Each is one of several fields, of which only the one that is set is listed.
    return {key: next((value for _, value in each.ListFields()), None) for key, each in parameters.items()} or None


def _values(request: ModelInferRequest) -> Iterator[Any]:
    """The values of each input."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Refused(f"raw_input_contents has {len(raw)} parts; there are {len(request.inputs)} inputs")
    for place, tensor in enumerate(request.inputs):
        fields = tensor.contents.ListFields()
        if len(fields) + bool(raw) > 1:
            raise Refused(f"{tensor.name} has its values in more than one form")
        if raw:
            yield binary.unpacked(tensor.name, tensor.datatype, memoryview(raw[place]))
        else:
            yield next((_listed(tensor.datatype, field.name, content) for field, content in fields), [])


def _listed(datatype: str, field: str, content: Any) -> Any:
    if field == "bytes_contents":
        return binary.as_text([*content])
    if field in FLOATS and datatype in ("FP32", "FP64"):
        # NaN is a missing number here as well.
        return binary.Values(np.array(content, FLOATS[field]))
    return [*content]


def answered(response: InferenceResponse, *, raw: bool) -> ModelInferResponse:
    """The message of an answer.

    Args:
        response: of the model.
        raw: whether values are as they are in memory, or each in a field of its type, which FP16 does not have.

    Raises:
        EncodingFailed: if a value has no form in a message.
    """
    raw = raw or any(output.datatype == "FP16" for output in response.outputs)
    contents = [*map(_packed, response.outputs)]
    # Copies: the model may answer with the same object again.
    copies = [
        output.model_copy(update={"data": TensorData.model_construct([] if raw else _listed_again(output, content))})
        for output, content in zip(response.outputs, contents, strict=True)
    ]
    message = ModelInferResponseConverter.from_types(response.model_copy(update={"outputs": copies}))
    if raw:
        message.raw_output_contents.extend(contents)
    return message


def _packed(output: Any) -> bytes:
    content = outputs.packed(output)
    if content is None:
        raise EncodingFailed(f"{output.name} lacks values, for which gRPC has no form; ask for it over REST")
    return content


def _listed_again(output: Any, content: bytes) -> list[Any]:
    values = binary.unpacked(output.name, str(output.datatype), memoryview(content))
    return [value.encode() if isinstance(value, str) else value for value in values]


def _set_metadata(response: InferenceResponse, context: Any) -> None:
    if headers := extract_headers(response):
        context.set_trailing_metadata(to_metadata(headers))


class Server:
    """Answers on MLServer's port for gRPC.

    MLServer's own limits answers to the size of requests, unpacks messages without a limit, and gives those that are
    not answered yet five seconds when it stops.

    Args:
        settings: MLServer's.
        service: that answers.
        limits: of messages, and of the time for those that are not answered yet when it stops.
    """

    def __init__(self, settings: Settings, service: Service, limits: Limits) -> None:
        self._address = f"{settings.host}:{settings.grpc_port}"
        self._interceptors = (
            [PromServerInterceptor(enable_handling_time_histogram=True)] if settings.metrics_endpoint else []
        )
        self._largest = settings.grpc_max_message_length or limits.bounds.request_bytes
        self._grace = limits.bounds.answer_seconds
        self._service = service
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Serves until it is stopped."""
        options = [("grpc.max_receive_message_length", self._largest), ONLY_UNCOMPRESSED]
        # Here, because it belongs to the event loop that runs.
        self._server = grpc.aio.server(interceptors=self._interceptors, options=options)
        add_GRPCInferenceServiceServicer_to_server(self._service, self._server)
        self._server.add_insecure_port(self._address)
        await self._server.start()
        await self._server.wait_for_termination()

    async def stop(self) -> None:
        """Takes no more requests, and waits until those that have begun are answered."""
        if self._server:
            await self._server.stop(self._grace)
