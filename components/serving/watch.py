"""What there is in a namespace, kept up to date by watches."""

from __future__ import annotations

import asyncio
import atexit
import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import urllib3
from kubernetes import client, config, watch

from components.serving.rollout_status import Failed, Judge, Object, Objects
from model_serving.stack.cluster_api import connect

PAUSE_SECONDS: Final = 1
"""Before the API server is asked again after an error."""
SILENCE_SECONDS: Final = 30
"""After which the API server is asked again: a connection may have been lost without a sign."""
END_SECONDS: Final = 2
"""For which the end of a thread is awaited."""
KINDS: Final = {
    "Deployments": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "ReplicaSets": "/apis/apps/v1/namespaces/{namespace}/replicasets",
    "Jobs": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "pods": "/api/v1/namespaces/{namespace}/pods",
}
"""What is watched: paths by kind."""
REFUSED: Final = frozenset({401, 403})
"""Status of an answer that asking again does not change."""


class Watch:
    """The Deployments, ReplicaSets, Jobs and pods of a namespace."""

    def __init__(self, kubeconfig: str, context: str | None, namespace: str) -> None:
        """Begins to watch; has to be called in an event loop.

        Args:
            kubeconfig: its content, as JSON; or a path; empty for the one that kubectl would read.
            context: None uses its current context.
            namespace: which is watched.
        """
        self._namespace = namespace
        self._loop = asyncio.get_running_loop()
        self._kinds: dict[str, dict[str, Object]] = {}
        self._objects = Objects()
        self._trouble: str | None = None
        self._refused = False
        self._news = asyncio.Event()
        self._end = threading.Event()
        self._streams: dict[str, watch.Watch] = {}
        self._threads: list[threading.Thread] = []
        self._run(self._begin, kubeconfig, context)
        # However the program ends: Python may crash if a thread still reads then.
        atexit.register(self._close)

    async def until(self, judge: Judge, *, seconds: float, say: Callable[[str], None]) -> None:
        """Waits until something is over.

        Args:
            judge: says whether it is.
            seconds: how long to wait at most.
            say: is told what it waits for, each time that changes, and nothing at the end.

        Raises:
            Failed: if it failed, or was not over in time; the text says why.
        """
        deadline, said = time.monotonic() + seconds, None
        while (state := self._judged(judge)) is not None:
            if state != said:
                say(state)
                said = state
            try:
                await asyncio.wait_for(self._news.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise Failed(f"not done after {seconds:g} s: {state}") from None
        if said:
            say("")

    def _judged(self, judge: Judge) -> str | None:
        state = judge(self._objects)
        if state is None or self._trouble is None:
            return state
        if self._refused:
            raise Failed(self._trouble)
        return f"{state}; {self._trouble}"

    def _begin(self, kubeconfig: str, context: str | None) -> None:
        try:
            api = connect(kubeconfig, context)
        except config.ConfigException as error:
            self._tell(trouble=f"the kubeconfig cannot be used: {error}", refused=True)
            return
        for kind in KINDS:
            self._run(self._follow, kind, _asking(api, kind, self._namespace))

    def _run(self, function: Callable[..., None], *arguments: object) -> None:
        # A daemon, so that the program does not wait for the next news when it is done.
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _close(self) -> None:
        self._end.set()
        for stream in self._streams.values():
            stream.stop()
        for thread in self._threads:
            thread.join(END_SECONDS)

    def _follow(self, kind: str, ask: Callable[..., urllib3.HTTPResponse]) -> None:
        while not self._end.is_set():
            try:
                listed = json.loads(ask().data)
                things = {thing["metadata"]["uid"]: thing for thing in listed["items"]}
                self._tell(kind, things)
                version = listed["metadata"]["resourceVersion"]
                self._streams[kind] = stream = watch.Watch(return_type="object")
                if self._end.is_set():
                    return
                events = stream.stream(ask, resource_version=version)
                with suppress(urllib3.exceptions.ReadTimeoutError):
                    self._take(kind, things, events)
            except client.ApiException as error:
                self._tell(
                    trouble=f"the API server answers {error.status} {error.reason} about {kind}",
                    refused=error.status in REFUSED,
                )
                self._end.wait(PAUSE_SECONDS)
            except urllib3.exceptions.HTTPError as error:
                # By its kind: the text is another one each time.
                kind_of_error = type(getattr(error, "reason", error)).__name__
                self._tell(trouble=f"the API server does not answer: {kind_of_error}")
                self._end.wait(PAUSE_SECONDS)

    def _take(self, kind: str, things: dict[str, Object], events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            thing = event["raw_object"]
            things = {uid: other for uid, other in things.items() if uid != thing["metadata"]["uid"]}
            if event["type"] != "DELETED":
                things[thing["metadata"]["uid"]] = thing
            self._tell(kind, things)

    def _tell(
        self,
        kind: str = "",
        things: dict[str, Object] | None = None,
        *,
        trouble: str | None = None,
        refused: bool = False,
    ) -> None:
        """Hands news from a thread to the event loop."""

        def take() -> None:
            if things is not None:
                self._kinds[kind] = things
                # Once for all that wait, of whom there is one for each version.
                self._objects = Objects({uid: thing for each in self._kinds.values() for uid, thing in each.items()})
            self._trouble, self._refused = trouble, refused
            self._news.set()
            self._news = asyncio.Event()

        with suppress(RuntimeError):  # Which is raised when the program has ended.
            self._loop.call_soon_threadsafe(take)


def _asking(api: client.ApiClient, kind: str, namespace: str) -> Callable[..., urllib3.HTTPResponse]:
    """Lists or watches a kind, as the methods of the client's typed APIs do: to import their models takes a second."""

    def ask(
        *, watch: bool = False, resource_version: str | None = None, _preload_content: bool = False
    ) -> urllib3.HTTPResponse:
        query = {"watch": "true", "resourceVersion": resource_version} if watch else {}
        request = api.param_serialize(
            "GET",
            KINDS[kind],
            {"namespace": namespace},
            [*query.items()],
            {"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        answer = api.call_api(*request, _request_timeout=(SILENCE_SECONDS, SILENCE_SECONDS))
        if answer.status != HTTPStatus.OK:
            raise client.ApiException(status=answer.status, reason=answer.reason)
        response: urllib3.HTTPResponse = answer.response
        return response

    return ask
