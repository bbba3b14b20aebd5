"""A registry without any image."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler


class EmptyRegistry(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""
