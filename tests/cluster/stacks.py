"""Changes of the stack local for a while, and releases that nobody has seen yet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.conftest import Project

MODEL = "iris-dtc"


class Stack:
    """The stack file of a checkout, in which it says of the iris model what a test wants."""

    def __init__(self, project: Project) -> None:
        self._path = project.folder / "stacks" / "Pulumi.local.yaml"
        self.before = self._path.read_text()

    def serve(self, settings: str) -> None:
        """Takes the place of the model's settings, as YAML in one line."""
        assert f"    {MODEL}: {{}}\n" in self.before
        self._path.write_text(self.before.replace(f"    {MODEL}: {{}}\n", f"    {MODEL}: {settings}\n"))

    def restore(self) -> None:
        self._path.write_text(self.before)


@contextmanager
def stack_of(project: Project) -> Iterator[Stack]:
    stack = Stack(project)
    try:
        yield stack
    finally:
        stack.restore()


@contextmanager
def releases(project: Project, count: int) -> Iterator[list[Path]]:
    """Copies of the iris model, the newest last; gone afterwards, and the traffic back on 1.0."""
    # The registry keeps what was published, also for the next run of these tests.
    first = time.time_ns() // 1_000_000
    folders = [project.release(MODEL, f"1.0.{first + index}", like="1.0") for index in range(count)]
    try:
        yield folders
    finally:
        project.run("rm", "--recursive", "--force", *map(str, folders))
        project.up()
