"""A release's model, with what its runtime lacks: it computes beside the server, and refuses what does not fit it."""

from __future__ import annotations

import asyncio
import inspect
import math
import multiprocessing
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import uvloop
from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse

from .errors import EncodingFailed, Refused, stated_status

if TYPE_CHECKING:
    from collections.abc import Iterator

_T = TypeVar("_T")
_END: Final = object()
_CLIENTS: Final = range(400, 500)
ROWS_AND_COLUMNS: Final = 2
METHODS: Final = frozenset({"predict", "predict_proba", "transform"})
ESTIMATORS: Final = frozenset({"mlserver_catboost", "mlserver_lightgbm", "mlserver_sklearn", "mlserver_xgboost"})
"""Runtimes whose predictions take as long as the request is large, whatever its values are."""
QUICK_SECONDS: Final = 0.005
QUICK_VALUES: Final = 1000
QUICK_IN_A_ROW: Final = 20
"""Twice as many are counted at most, and a slow one halves the count: one that another process held up is forgiven."""


class Interrupted(Exception):
    """The model has ended itself instead of raising an error."""


class Beside:
    """An event loop in a thread of its own, in which a model is loaded and asked.

    One prediction at a time computes, as in MLServer's own loop, and those that wait for something run at once. The
    server's loop stays free meanwhile.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._loop = uvloop.new_event_loop()
        # A daemon: the process ends although a prediction still computes.
        threading.Thread(target=self._loop.run_forever, name="model", daemon=True).start()

    async def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Waits for a coroutine in the model's loop; one whose waiter was cancelled is not begun any more."""
        # asyncio.run_coroutine_threadsafe does the same with two futures, which takes twice as long.
        call = _Call(coroutine, self)
        self.calls += 1
        self._loop.call_soon_threadsafe(call.begin)
        try:
            return cast(_T, await call.answer)
        except asyncio.CancelledError:
            self._loop.call_soon_threadsafe(call.cancel)
            raise

    @property
    def is_free(self) -> bool:
        return not self.calls

    async def each(self, items: AsyncIterator[_T]) -> AsyncIterator[_T]:
        """The items of an iterator that belongs to the model's loop, for the server's."""
        async for item in _across(items, self._loop):
            yield item


class _Call:
    """A coroutine of the model, and who waits for it in the server's loop."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], beside: Beside) -> None:
        self._coroutine = coroutine
        self._beside = beside
        self._task: asyncio.Task[Any] | None = None
        self._asker = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = self._asker.create_future()

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(lambda task: self._asker.call_soon_threadsafe(self._end, task))

    async def _run(self) -> Any:
        # Not in begin(): what came during a prediction is begun at once, and then each waits for those before it.
        if self.answer.cancelled():
            return None
        return await _contained(self._coroutine)

    def cancel(self) -> None:
        if self._task:
            self._task.cancel()

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._beside.calls -= 1
        # It is not begun if nobody waited for it.
        self._coroutine.close()
        if self.answer.cancelled() or task.cancelled():
            return
        error = task.exception()
        if error:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(task.result())


async def _contained(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """What would end a loop, or look as if the server had cancelled a request, is a failure like another."""
    try:
        return await coroutine
    except SystemExit as error:
        raise Interrupted(f"sys.exit({error})") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        raise Interrupted("it has cancelled itself") from error


async def _across(items: AsyncIterator[_T], loop: asyncio.AbstractEventLoop) -> AsyncIterator[_T]:
    async def following() -> Any:
        return await anext(items, _END)

    while True:
        item = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(following(), loop))
        if item is _END:
            return
        yield item


class Checked(MLModel):  # type: ignore[misc]
    """Mixed in before the class of a release's implementation."""

    _beside: Beside | None = None
    _may_be_quick = False
    _quick_in_a_row = 0

    async def load(self) -> bool:
        if multiprocessing.parent_process() is None:
            # A worker of MLServer needs none: the server is another process.
            self._beside = Beside()
        return await self.beside(super().load())

    async def unload(self) -> bool:
        return await self.beside(super().unload())

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        _check_outputs(self._estimator, payload)
        prediction = self._timed(super().predict, payload)
        response = await (prediction if self._is_quick(payload) else self.beside(prediction))
        if not isinstance(response, InferenceResponse):
            raise TypeError(f"predict() returned {type(response).__name__}, not an InferenceResponse")
        return response

    def _is_quick(self, payload: InferenceRequest) -> bool:
        """Whether a prediction holds up the server less than the way to another thread and back would.

        The thread must have nothing to do: there is one prediction at a time.
        """
        return (
            self._may_be_quick
            and self._quick_in_a_row >= QUICK_IN_A_ROW
            and self._beside is not None
            and self._beside.is_free
            and sum(math.prod(tensor.shape) for tensor in payload.inputs) <= QUICK_VALUES
        )

    async def _timed(self, predict: Callable[[InferenceRequest], Any], payload: InferenceRequest) -> Any:
        began = time.perf_counter()
        try:
            return await _stating(predict, payload)
        finally:
            is_quick = time.perf_counter() - began < QUICK_SECONDS
            count = self._quick_in_a_row
            self._quick_in_a_row = min(count + 1, 2 * QUICK_IN_A_ROW) if is_quick else count // 2

    async def predict_stream(self, payloads: AsyncIterator[InferenceRequest]) -> AsyncIterator[InferenceResponse]:
        if self._beside is None:
            async for response in super().predict_stream(payloads):
                yield response
            return
        # What it is asked comes from the server's loop, and its answers from the model's.
        asked = _across(payloads, asyncio.get_running_loop())
        async for response in self._beside.each(super().predict_stream(asked)):
            yield response

    async def beside(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs something of the model where it does not hold up the server."""
        return await (self._beside.run(coroutine) if self._beside else _contained(coroutine))

    @property
    def _estimator(self) -> Any:
        # MLServer's runtimes keep there what they have loaded; it has no public name.
        return getattr(self, "_model", None)

    def handler(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A custom handler of the model, which runs beside the server as its predictions do."""
        if not inspect.iscoroutinefunction(method):
            return method

        @wraps(method)
        async def handle(*arguments: Any, **options: Any) -> Any:
            return await self.beside(method(*arguments, **options))

        # FastAPI would look for the types of parameters in this module.
        handle.__signature__ = inspect.signature(method, eval_str=True)  # type: ignore[attr-defined]
        return handle

    def decode_request(self, inference_request: InferenceRequest, default_codec: Any = None) -> Any:
        with _clients_mistake("the request"):
            decoded = super().decode_request(inference_request, default_codec)
        return _fitting(self._estimator, decoded, has_metadata=bool(self.inputs))

    def decode(self, request_input: Any, default_codec: Any = None) -> Any:
        with _clients_mistake(request_input.name):
            return super().decode(request_input, default_codec)

    def encode_response(self, payload: Any, default_codec: Any = None) -> InferenceResponse:
        with _models_mistake(payload):
            return super().encode_response(payload, default_codec)

    def encode(self, payload: Any, request_output: Any, default_codec: Any = None) -> Any:
        with _models_mistake(payload):
            return super().encode(payload, request_output, default_codec)


def checked(implementation: Any) -> type[Any]:
    """The class of a release's models.

    Raises:
        TypeError: if the implementation is not a class of models.
    """
    if not (isinstance(implementation, type) and issubclass(implementation, MLModel)):
        raise TypeError(f"{implementation!r} is not a subclass of mlserver.MLModel")
    package = implementation.__module__.partition(".")[0]
    members = {"__module__": implementation.__module__, "_may_be_quick": package in ESTIMATORS}
    return type(implementation.__name__, (Checked, implementation), members)


async def _stating(predict: Callable[[InferenceRequest], Any], payload: InferenceRequest) -> Any:
    """Keeps the status of an exception that carries one: a worker hands on nothing else of it than MLServer's."""
    try:
        return await predict(payload)
    except MLServerError:
        raise
    except Exception as error:
        status = stated_status(error)
        if status is not None and status in _CLIENTS:
            raise Refused(str(error), status) from error
        raise


@contextmanager
def _clients_mistake(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Refused(f"{what} cannot be decoded: {type(error).__name__}: {error}") from error


@contextmanager
def _models_mistake(payload: object) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise EncodingFailed(f"{type(payload).__name__} has no form in the protocol: {error}") from error


def _fitting(estimator: Any, decoded: Any, *, has_metadata: bool) -> Any:
    """What an estimator is given, if it has the number of features, or their names, that it was fitted with.

    Raises:
        Refused: if it has not.
    """
    count = features(estimator)
    if count is None:
        return decoded
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None and hasattr(decoded, "columns") and not has_metadata:
        missing = [str(name) for name in names if name not in decoded.columns]
        if missing:
            raise Refused(f"the columns {', '.join(missing)} are missing; the model was fitted with {', '.join(names)}")
        # Their order in the request means nothing, but scikit-learn insists on it.
        return decoded[[*names]]
    shape = getattr(decoded, "shape", None)
    if shape is None or len(shape) != ROWS_AND_COLUMNS:
        raise Refused(f"the model expects a table of {count} features; its request has the shape {shape}")
    if shape[1] != count:
        raise Refused(f"the model expects {count} features; the request has {shape[1]}")
    return decoded


def _check_outputs(estimator: Any, payload: InferenceRequest) -> None:
    """Outputs are the names of methods to MLServer's runtime for scikit-learn, which not every estimator has."""
    for output in payload.outputs or ():
        if output.name in METHODS and features(estimator) is not None and not hasattr(estimator, output.name):
            raise Refused(f"the model has no output {output.name}")


def features(estimator: Any) -> int | None:
    """How many features an estimator was fitted with, in the public ways of scikit-learn, XGBoost and LightGBM."""
    for name in ("n_features_in_", "num_features", "num_feature"):
        found = getattr(estimator, name, None)
        if callable(found):
            found = found()
        # A number of NumPy's is one as well.
        if found is not None and hasattr(found, "__index__"):
            return int(found)
    return None
