"""What a stood-in cloud remembers, in a file that a test may read and edit, and what goes wrong there on request."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

POLL_SECONDS: Final = 0.05
Properties = dict[str, Any]


class Refused(Exception):
    """What the cloud answers when it does not do what it is asked."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One resource as a call names it.

    Attributes:
        token: type, e.g. ``gcp:storage/bucket:Bucket``.
        name: name in the program, the last part of the URN.
        inputs: what the program asks for, defaults included.
        identifier: what the cloud calls the resource; empty before it exists.
    """

    token: str
    name: str
    inputs: Properties
    identifier: str = ""

    @property
    def key(self) -> str:
        """Where the resource is in the file. Some clouds give one id to resources of different types."""
        return f"{self.token}::{self.identifier}"


class Store:
    """The cloud's memory: a JSON file, shared by every process of one package, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = path.with_suffix(".lock")

    @contextlib.contextmanager
    def open(self) -> Iterator[dict[str, Any]]:
        """The content, to read and change; written when the block ends well and anything differs."""
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = self._path.read_text() if self._path.exists() else "{}"
            content: dict[str, Any] = {"resources": {}, "deleted": [], "calls": {}, **json.loads(text)}
            yield content
            if (changed := json.dumps(content, sort_keys=True)) != text:
                scratch = self._path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
                scratch.write_text(changed)
                scratch.replace(self._path)


FAULTS: Final = {
    "permission-denied": (grpc.StatusCode.PERMISSION_DENIED, "Error 403: Permission denied on resource {name}."),
    "quota-exceeded": (grpc.StatusCode.RESOURCE_EXHAUSTED, "Error 403: Quota exceeded for {token}, quotaExceeded"),
    "api-not-enabled": (
        grpc.StatusCode.FAILED_PRECONDITION,
        "Error 403: API has not been used in project before or it is disabled, accessNotConfigured ({token})",
    ),
    "timeout": (grpc.StatusCode.DEADLINE_EXCEEDED, "timeout while waiting for {name} to become ready"),
}
"""What can go wrong on request. Also: ``slow`` only waits; ``half-made`` leaves the resource there, not ready."""


class Faults:
    """Failures that a test asks for, in a JSON file: a list of mappings with

    ``fault`` (a key of FAULTS, ``slow`` or ``half-made``), and optionally ``token`` and ``name`` (patterns),
    ``operation`` (default create), ``nth`` (first matching call that fails, from 1), ``times``, ``seconds`` to wait at
    most: the wait ends with the fault.
    """

    def __init__(self, path: Path | None, store: Store) -> None:
        self._path, self._store = path, store

    def meet(self, operation: str, request: Request) -> bool:
        """Waits and fails as asked; true if the resource is to be left half made."""
        half_made = False
        for fault in self._due(operation, request):
            self._wait(fault)
            if fault["fault"] in FAULTS:
                code, message = FAULTS[fault["fault"]]
                raise Refused(code, message.format(token=request.token, name=request.name))
            half_made |= fault["fault"] == "half-made"
        return half_made

    def _wait(self, fault: Properties) -> None:
        """For its seconds, or until the test takes it back."""
        until = time.monotonic() + fault.get("seconds", 0)
        while time.monotonic() < until and fault in self._all():
            time.sleep(POLL_SECONDS)

    def _all(self) -> list[Properties]:
        faults: list[Properties] = json.loads(self._path.read_text()) if self._path and self._path.exists() else []
        return faults

    def _due(self, operation: str, request: Request) -> list[Properties]:
        due = []
        for fault in self._all():
            if fault["fault"] not in {*FAULTS, "slow", "half-made"}:
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"the stand-in knows no fault {fault['fault']}")
            if (
                fault.get("operation", "create") == operation
                and fnmatch.fnmatchcase(request.token, fault.get("token", "*"))
                and fnmatch.fnmatchcase(request.name, fault.get("name", "*"))
            ):
                key = json.dumps(fault, sort_keys=True)
                with self._store.open() as content:
                    content["calls"][key] = call = content["calls"].get(key, 0) + 1
                first = fault.get("nth", 1)
                if first <= call < first + fault.get("times", 1):
                    due.append(fault)
        return due
