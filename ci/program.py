"""The program as Pulumi's engine asks for it, what its Automation API calls an inline program; see ci/inline.py."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc  # type: ignore[import-untyped]
from pulumi.automation._server import LanguageServer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.config import CONFIG
from pulumi.runtime.proto import language_pb2, language_pb2_grpc

PROGRAM: Final = Path(__file__).resolve().parents[1] / "__main__.py"
MODULES: Final = ("inputs", "model_images", "serving")
"""What it imports, and what that imports: everything but what single stacks need."""
REQUESTS: Final = 4
"""Of the engine's, that are answered at one time."""
CHUNK_BYTES: Final = 1 << 16
STOP_SECONDS: Final = 5
"""For a program whose engine was killed, to end what it runs."""


def serve(listener: socket.socket, *, until: int) -> NoReturn:
    """Serves the program, and ends this process with another one.

    Args:
        listener: where the engine asks for the program, maybe already.
        until: file descriptor of the other process, as ``os.pidfd_open`` gives it.
    """
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    imported = threading.Event()
    server = grpc.server(ThreadPoolExecutor(REQUESTS), options=_GRPC_CHANNEL_OPTIONS)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(Program(partial(_run, imported)), server)
    host, _ = listener.getsockname()
    port = server.add_insecure_port(f"{host}:0")
    server.start()
    threading.Thread(target=_relay, args=(listener, (host, port)), daemon=True).start()
    # Meanwhile the engine starts. What is wrong with the program is told when it is run.
    with suppress(Exception):
        for module in MODULES:
            importlib.import_module(module)
    imported.set()
    select.select([until], [], [])
    server.stop(STOP_SECONDS).wait()
    sys.stdout.flush()
    sys.stderr.flush()
    # A program that still waits for something must not keep the process.
    os._exit(0)


def _relay(listener: socket.socket, server: tuple[str, int]) -> None:
    """Joins who connects with the server, which itself cannot take over a socket that listens already."""
    while True:
        engine, _ = listener.accept()
        program = socket.create_connection(server)
        for source, target in ((engine, program), (program, engine)):
            threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class Program(LanguageServer):
    """The SDK's own, which has told a mistake when it returns it: the engine need not tell it again."""

    def Run(self, request: Any, context: Any) -> language_pb2.RunResponse:  # noqa: N802 - Pulumi's name
        ended = super().Run(request, context)  # type: ignore[no-untyped-call]
        return language_pb2.RunResponse(bail=bool(ended.error))


def _run(imported: threading.Event) -> None:
    # A module that another thread is importing is taken as it is even if that import fails then.
    imported.wait()
    # Where a language host puts it and the program looks for it.
    os.environ["PULUMI_CONFIG"] = json.dumps(CONFIG.get())
    runpy.run_path(str(PROGRAM), run_name="__main__")
