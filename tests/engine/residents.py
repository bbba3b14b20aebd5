"""Stand-ins that live in the process of the tests.

Each command of the engine starts three of them, and a new process takes half a second to load what it needs.
"""

from __future__ import annotations

import json
import socketserver
import threading
from pathlib import Path
from typing import Final

from tests.engine.provider import listen
from tests.engine.standin import provider

_ACCEPT_SECONDS: Final = 0.1


class Residents:
    """Serves a stand-in of its own to each ``plugin.py`` that connects, until that ends.

    Attributes:
        socket: what to connect to, the environment variable STANDIN_SOCKET of ``plugin.py``.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._server = socketserver.ThreadingUnixStreamServer(str(socket), _Handler)
        self._server.daemon_threads = True
        serve = {"poll_interval": _ACCEPT_SECONDS}
        threading.Thread(target=self._server.serve_forever, kwargs=serve, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        wanted = json.loads(self.rfile.readline())
        environ = wanted["environ"]
        server, port = listen(provider(wanted["package"]).of(environ))
        self.wfile.write(f"{port}\n".encode())
        # The engine ends what it has started.
        self.rfile.read()
        server.stop(None)
