"""``python -m portal FILE``: serves the portal of what the file lists."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

import uvicorn

from .app import Portal
from .served import read

PORT: Final = 8080
KEEP_ALIVE_SECONDS: Final = 3660
"""As long as the model servers': the proxy closes an idle connection, and never the server."""
MOST_CONNECTIONS: Final = 200


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves what concerns all models of a stack.")
    parser.add_argument("file", type=Path, help="list of what is served, as the program writes it")
    parser.add_argument("--port", type=int, default=PORT, help=f"port to listen on, {PORT} by default")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on, all of them by default")  # noqa: S104
    options = parser.parse_args()
    portal = Portal(read(options.file), os.environ.get("MODEL_SERVING_PORTAL", "development"))
    uvicorn.run(
        portal.app(os.environ.get("MODEL_SERVING_ALLOWED_ORIGINS", "").split()),
        host=options.host,
        port=options.port,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        limit_concurrency=MOST_CONNECTIONS,
    )


if __name__ == "__main__":
    main()
