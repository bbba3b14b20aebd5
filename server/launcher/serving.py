"""MLServer, put together from its parts: with requests that are checked, and an answer to everything."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
import uvicorn
from mlserver import MLModel, ModelSettings, Settings
from mlserver.batching import load_batching
from mlserver.errors import MLServerError
from mlserver.handlers import DataPlane, ModelRepositoryHandlers, get_custom_handlers
from mlserver.logging import logger
from mlserver.metrics import MetricsServer
from mlserver.parallel import InferencePoolRegistry
from mlserver.registry import MultiModelRegistry
from mlserver.repository import ModelRepository
from mlserver.rest.app import create_app
from mlserver.rest.logging import disable_health_access_logs
from mlserver.rest.responses import Response, ServerSentEvent
from mlserver.types import InferenceRequest, InferenceResponse, TensorData
from mlserver.utils import extract_headers, insert_headers
from prometheus_client import Counter
from pydantic import ValidationError
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.responses import StreamingResponse
from starlette.routing import Route

from . import binary, errors, outputs, rpc
from .errors import Refused
from .limits import RETRY_SECONDS, Application, Bounds, Limits, Receive, Scope, Send
from .model import Checked
from .protocol import mistakes, optional_inputs

KEEP_ALIVE_SECONDS: Final = 3660
"""An idle connection must be closed by the proxy and never by the server: a request that is sent while the server
closes its end fails, and is not sent again because it is a POST. Google's load balancers keep connections for 600 s,
Envoy for an hour; uvicorn closes them after 5 s."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
MODEL: Final = "/v2/models/{model_name}"


class NotReady(MLServerError):  # type: ignore[misc]
    """The model is still being loaded. MLServer calls that the client's mistake."""

    headers: Final = {"Retry-After": str(RETRY_SECONDS)}

    def __init__(self, name: str) -> None:
        super().__init__(f"model {name} is not ready yet", HTTPStatus.SERVICE_UNAVAILABLE)


class OneRelease(ModelRepository):  # type: ignore[misc]
    """The only release of the image, whatever else its folder holds."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings

    async def list(self) -> list[ModelSettings]:
        return [self._settings]

    async def find(self, name: str) -> Sequence[ModelSettings]:
        return [self._settings] if name == self._settings.name else []


class Plane(DataPlane):  # type: ignore[misc]
    """What REST and gRPC ask: it refuses a request that does not fit the model before the model sees it."""

    def __init__(self, settings: Settings, registry: MultiModelRegistry, optional: frozenset[str]) -> None:
        super().__init__(settings=settings, model_registry=registry)
        self._optional = optional
        self._registry = registry
        self._known: dict[MLModel, Any] = {}
        self._has_workers = bool(settings.parallel_workers)
        self._has_cache = bool(settings.cache_enabled)

    async def infer(self, payload: InferenceRequest, name: str, version: str | None = None) -> InferenceResponse:
        await self._check(payload, name, version)
        if self._has_cache:
            # Its key is the request as JSON.
            for tensor in payload.inputs:
                tensor.data = TensorData.model_construct([*tensor.data])
        answer = super().infer(payload, name, version)
        # MLServer loses the answers of all workers if one comes that nobody waits for any more.
        return await (asyncio.shield(answer) if self._has_workers else answer)

    async def infer_stream(
        self, payloads: AsyncIterator[InferenceRequest], name: str, version: str | None = None
    ) -> AsyncIterator[InferenceResponse]:
        async def fitting() -> AsyncIterator[InferenceRequest]:
            async for payload in payloads:
                await self._check(payload, name, version)
                yield payload

        await self._model(name, version)
        async for response in super().infer_stream(fitting(), name, version):
            yield response

    async def _check(self, payload: InferenceRequest, name: str, version: str | None) -> None:
        model = await self._model(name, version)
        if model not in self._known:
            self._known = {model: await model.metadata()}
        metadata = self._known[model]
        content_type = metadata.parameters.content_type if metadata.parameters else None
        found = mistakes(payload, metadata.inputs or [], content_type, self._optional)
        if found:
            raise Refused("; ".join(found))

    async def _model(self, name: str, version: str | None) -> MLModel:
        # Before MLServer counts the request: it would keep a metric for each name that a client thinks of.
        model = await self._registry.get_model(name, version)
        if not model.ready:
            raise NotReady(name)
        return model


class Inference:
    """The endpoints that ask the model. MLServer's own leave errors to FastAPI, which does not know the protocol."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def routes(self) -> list[Route]:
        return [
            Route(f"{MODEL}{version}/{word}{ending}", endpoint, methods=["POST"])
            for version in ("", "/versions/{model_version}")
            for word in ("infer", "generate")
            for ending, endpoint in (("", self.infer), ("_stream", self.stream))
        ]

    async def infer(self, request: Request) -> HttpResponse:
        asked = await _asked(request)
        response = await self._plane.infer(asked.payload, *_model_of(request))
        return _answer(response, asked.wanted)

    async def stream(self, request: Request) -> StreamingResponse:
        asked = await _asked(request)

        async def payloads() -> AsyncIterator[InferenceRequest]:
            yield asked.payload

        answers = self._plane.infer_stream(payloads(), *_model_of(request))
        # An error before the first answer still has a status of its own.
        first = await anext(answers, None)
        return _Stream(_events(first, answers, request), media_type="text/event-stream")


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A request, and the outputs that it wants as binary data."""

    payload: InferenceRequest
    wanted: binary.Wanted


async def _asked(request: Request) -> _Asked:
    # Said twice, it is not a number.
    length = ", ".join(request.headers.getlist(binary.HEADER)) or None
    try:
        text, rest = binary.split(await request.body(), length)
        document = orjson.loads(text)
        sizes, wanted = binary.sizes(document), binary.Wanted(document)
        contents = binary.parts(rest, sizes.values())
        payload = InferenceRequest.model_validate(document)
        for position, content in zip(sizes, contents, strict=True):
            tensor = payload.inputs[position]
            tensor.data = TensorData.model_construct(binary.unpacked(tensor.name, str(tensor.datatype), content))
    except orjson.JSONDecodeError as error:
        raise Refused(f"the body is not JSON: {error}") from None
    except (binary.Malformed, ValidationError) as error:
        raise errors.of_request(error) from None
    insert_headers(payload, dict(request.headers))
    return _Asked(payload=payload, wanted=wanted)


def _model_of(request: Request) -> tuple[str, str | None]:
    return request.path_params["model_name"], request.path_params.get("model_version")


def _answer(response: InferenceResponse, wanted: binary.Wanted) -> HttpResponse:
    headers = extract_headers(response)
    contents = _packed(response, wanted) if wanted else {}
    if not contents:
        return Response(response.model_dump(), headers=headers)
    document = response.model_dump(exclude={"outputs": {position: {"data"} for position in contents}})
    for position, content in contents.items():
        document["outputs"][position].setdefault("parameters", {})[binary.SIZE] = len(content)
    text = Response(document).body
    return HttpResponse(
        b"".join([text, *contents.values()]),
        media_type="application/octet-stream",
        headers={**(headers or {}), binary.HEADER: str(len(text))},
    )


def _packed(response: InferenceResponse, wanted: binary.Wanted) -> dict[int, bytes]:
    """Position -> content of each output that is wanted as binary data and has such a form."""
    packed = {
        position: outputs.packed(output) for position, output in enumerate(response.outputs) if output.name in wanted
    }
    return {position: content for position, content in packed.items() if content is not None}


class _Stream(StreamingResponse):  # type: ignore[misc]
    """Streams in the task that has asked: MLServer keeps the model's name in its context."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def _events(
    first: InferenceResponse | None, following: AsyncIterator[InferenceResponse], request: Request
) -> AsyncIterator[bytes]:
    if first is None:
        return
    yield ServerSentEvent(first).encode()
    try:
        async for response in following:
            if await request.is_disconnected():
                return
            yield ServerSentEvent(response).encode()
    except Exception as error:
        # The status is sent already: the client is told in the stream.
        logger.exception("a stream of answers failed")
        yield b"data: " + orjson.dumps({"error": errors.of_model(error)}) + b"\n\n"


class _Uvicorn(uvicorn.Server):  # type: ignore[misc]
    """Leaves signals to this process, which ends several servers in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Serving:
    """The servers of one release, and what they ask.

    Args:
        settings: MLServer's.
        release: of the model.
        bounds: of requests.
        socket: number of a bound socket that REST answers on, instead of the port of the settings.
        origins: of web pages whose scripts may ask.
    """

    def __init__(
        self,
        settings: Settings,
        release: ModelSettings,
        bounds: Bounds,
        socket: int | None = None,
        *,
        origins: Sequence[str] = (),
    ) -> None:
        settings.extensions = [*settings.extensions, binary.EXTENSION]
        self._origins = origins
        self._release = release
        self._metrics = MetricsServer(settings) if settings.metrics_endpoint else None
        self._pool = self._started_pool(settings)
        self._registry = self._made_registry()
        # Now, because MLflow's runtime replaces the inputs when it loads the model, by those of the signature.
        plane = Plane(settings, self._registry, optional_inputs(release.inputs or []))
        handlers = ModelRepositoryHandlers(repository=OneRelease(release), model_registry=self._registry)
        self._app = create_app(settings, plane, handlers)
        self._app.router.routes[:0] = Inference(plane).routes()
        refused = Counter("model_serving_refused_requests", "Requests that a limit of the server refused", ["status"])
        limits = Limits(errors.install(self._app), bounds, lambda status: refused.labels(status).inc())
        self._rest = _Uvicorn(self._configured(settings, limits, socket))
        self._grpc = rpc.Server(settings, rpc.Service(plane, handlers, limits), limits)

    def _started_pool(self, settings: Settings) -> InferencePoolRegistry | None:
        if not settings.parallel_workers:
            return None
        return InferencePoolRegistry(settings, on_worker_stop=[self._metrics.on_worker_stop] if self._metrics else [])

    def _made_registry(self) -> MultiModelRegistry:
        pool = self._pool
        return MultiModelRegistry(
            on_model_load=[*([pool.load_model] if pool else []), self._add_handlers, load_batching],
            on_model_reload=[pool.reload_model] if pool else [],
            on_model_unload=[pool.unload_model] if pool else [],
        )

    async def _add_handlers(self, model: MLModel) -> MLModel:
        for handler, method in get_custom_handlers(model):
            endpoint = model.handler(method) if isinstance(model, Checked) else method
            self._app.add_api_route(handler.rest_path, endpoint, methods=[handler.rest_method])
        return model

    def _configured(self, settings: Settings, app: Application, socket: int | None) -> uvicorn.Config:
        options = {"log_config": settings.logging_settings} if settings.logging_settings else {}
        if not settings.debug:
            disable_health_access_logs()
        return uvicorn.Config(
            self._allowing(app),
            host=settings.host,
            port=settings.http_port,
            fd=socket,
            root_path=settings.root_path,
            access_log=settings.debug,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            **options,
        )

    def _allowing(self, app: Application) -> Application:
        """Lets browsers on pages of the allowed origins in, and read errors as well."""
        if not self._origins:
            return app
        methods, shown = ["GET", "POST"], [binary.HEADER, "Retry-After"]
        allowing: Application = CORSMiddleware(
            app, allow_origins=self._origins, allow_methods=methods, allow_headers=["*"], expose_headers=shown
        )
        return allowing

    async def run(self) -> None:
        """Serves until a signal comes, and then until what has begun is answered.

        Raises:
            Exception: whatever the release raises when it is loaded; the process has to end then.
        """
        stopping = asyncio.Event()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        rest = asyncio.create_task(self._rest.serve())
        others = [asyncio.create_task(server.start()) for server in (self._grpc, self._metrics) if server]
        stop = asyncio.create_task(stopping.wait())
        load = asyncio.create_task(self._registry.load(self._release))
        await asyncio.wait([load, stop, rest, *others], return_when=asyncio.FIRST_COMPLETED)
        if load.done():
            await load
            await asyncio.wait([stop, rest, *others], return_when=asyncio.FIRST_COMPLETED)
        self._rest.should_exit = True
        await asyncio.gather(rest, self._grpc.stop())
        if self._pool:
            await self._pool.close()
        if self._metrics:
            await self._metrics.stop()
        await asyncio.gather(*others)
