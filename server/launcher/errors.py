"""Errors, and the form in which clients get them: ``{"error": …}`` whatever the status is."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from mlserver.errors import MLServerError
from mlserver.logging import logger
from mlserver.rest.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from . import binary
from .limits import Application, Message, Receive, Scope, Send, answer

SHOWN: Final = 500
"""Characters of the text of an error: MLflow's repeat the request."""


class Refused(MLServerError):  # type: ignore[misc]
    """The client got something wrong; 400 unless the exception behind it says another status."""

    def __init__(self, text: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(shown(text), status)


class EncodingFailed(Exception):
    """What a model predicted has no form in the protocol. MLServer calls it the client's mistake."""


PREFIX: Final = f"{Refused.__module__}.{Refused.__qualname__}: "
"""What MLServer puts before the text of an error that comes from a worker."""


def stated_status(error: BaseException) -> int | None:
    """The HTTP status that an exception carries; None if it says nothing of one."""
    ask = getattr(error, "get_http_status_code", None)  # MLflow's exceptions
    status = ask() if callable(ask) else getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def shown(text: str) -> str:
    """A text that is no longer than a client wants to read."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def of_model(error: BaseException) -> str:
    """What a client is told of an exception of the model."""
    return shown(f"the model failed: {type(error).__name__}: {error}")


def install(app: FastAPI) -> Application:
    """Gives an application's errors their form; returns the application that uvicorn is to serve."""
    app.add_exception_handler(MLServerError, _stated)
    app.add_exception_handler(HTTPException, _stated)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return _Answered(app)


def told(error: Exception) -> tuple[int, str]:
    """Status and text of an exception, as clients get them."""
    if not isinstance(error, MLServerError | HTTPException):
        return HTTPStatus.INTERNAL_SERVER_ERROR, of_model(error)
    status = stated_status(error) or HTTPStatus.INTERNAL_SERVER_ERROR
    text = str(getattr(error, "detail", error)).removeprefix(PREFIX)
    # Of a worker, which has logged the traceback.
    is_models = status == HTTPStatus.INTERNAL_SERVER_ERROR
    return status, shown(f"the model failed: {text}") if is_models else text


async def _stated(_: Request, error: Exception) -> Response:
    status, text = told(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error(text)
    return Response({"error": text}, status, getattr(error, "headers", None))


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is installed for
    return Response({"error": of_validation(error.errors())}, HTTPStatus.BAD_REQUEST)


async def _failed(_: Request, error: Exception) -> Response:
    return Response({"error": of_model(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)


def of_request(error: binary.Malformed | ValidationError) -> Refused:
    """The refusal of a request that is not one of the protocol."""
    if isinstance(error, ValidationError):
        return Refused(of_validation(error.errors(include_url=False, include_input=False)))
    return Refused(str(error))


def of_validation(errors: Sequence[Any]) -> str:
    """What Pydantic found in a request, in one line."""
    found = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in errors]
    return shown("not a request of the V2 protocol: " + "; ".join(found))


class _Answered:
    """Ends here what Starlette raises again after it was answered: uvicorn would close the connection without a word.

    Starlette does so for servers that log it, https://www.starlette.io/exceptions/#errors-and-handled-exceptions. A
    proxy that has the connection in its pool gives it to another client, who then gets no answer.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = complete = False

        async def sent(message: Message) -> None:
            nonlocal begun, complete
            begun = True
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            if scope["type"] != "http" or (begun and not complete):
                # The client can only tell from a closed connection that this answer is not whole.
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if not begun:
                await answer(send, HTTPStatus.INTERNAL_SERVER_ERROR, of_model(error))
