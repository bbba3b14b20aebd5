"""Serves until it is ended: ``python -m tests.hosts --port-file F --log F``."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from tests.hosts.server import serving


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hosts", description=__doc__)
    parser.add_argument("--port-file", type=Path, required=True, help="file that gets the port, once it can be asked")
    parser.add_argument("--log", type=Path, help="file that gets a line of JSON per request")
    options = parser.parse_args()
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    with serving(log=options.log) as server:
        # Whole or not at all: who waits for the file reads it at once.
        unfinished = options.port_file.with_suffix(".new")
        unfinished.write_text(server.url.rpartition(":")[2])
        unfinished.rename(options.port_file)
        ended.wait()


if __name__ == "__main__":
    main()
