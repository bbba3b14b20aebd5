"""Measures how fast the program is, as ratios to a baseline in the same run: ``make bench``."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ci import show
from tests.engine import harness

RUNS: Final = 7
MODEL: Final = "iris-dtc"
VERSION: Final = "1000.0"
"""Newer than any real release, so that it takes the traffic."""
RELEASE_SECONDS: Final = 120
POLL_SECONDS: Final = 0.1
PROJECT: Final = Path(__file__).resolve().parent


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def pulumi(*arguments: str, folder: Path = PROJECT) -> None:
    subprocess.run(["pulumi", *arguments], cwd=folder, check=True, capture_output=True)


@contextmanager
def empty_program() -> Iterator[Path]:
    """A program that declares nothing, in the same virtual environment and backend: what Pulumi costs by itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = f"{{name: python, options: {{virtualenv: {PROJECT / '.venv'}}}}}"
        (folder / "Pulumi.yaml").write_text(f"name: empty\nruntime: {options}\n")
        (folder / "__main__.py").touch()
        pulumi("stack", "select", "--create", "bench", folder=folder)
        yield folder
        pulumi("stack", "rm", "--yes", "bench", folder=folder)


def no_op_preview(stack: str) -> tuple[list[float], list[float]]:
    """The stack's preview and the empty program's, in turn, so that both see the same machine."""
    ours, empty = [], []
    with empty_program() as folder:
        for _ in range(RUNS + 1):
            empty.append(seconds(lambda: pulumi("preview", "--stack", "bench", folder=folder)))
            ours.append(seconds(lambda: pulumi("preview", "--expect-no-changes", "--stack", stack)))
    return ours[1:], empty[1:]  # the first of each warms the caches


def cloud_preview() -> tuple[list[float], list[float]]:
    """The same for the stack production, with every cloud stood in for as in the engine tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = harness.pulumi_home(folder / "home")
        empty_folder = harness.small_project(folder / "empty", "", {})
        empty = harness.Project(empty_folder, home, harness.Cloud(folder / "empty-cloud"), "bench")
        copy = harness.copy_of_project(folder / "production")
        production = harness.Project(copy, home, harness.Cloud(folder / "cloud"), "production")
        production.up()
        pairs = [(production.preview(), empty.preview()) for _ in range(RUNS + 1)][1:]
        if changed := [ours for ours, _ in pairs if ours.changes]:
            raise RuntimeError(f"a preview without a change shows one: {changed[0]}")
        return [ours.seconds for ours, _ in pairs], [nothing.seconds for _, nothing in pairs]


@contextmanager
def new_version(like: str) -> Iterator[None]:
    """A release folder that is there for a while."""
    folder = PROJECT / "models" / MODEL / VERSION
    shutil.copytree(folder.with_name(like), folder)
    settings = folder / "model-settings.json"
    settings.write_text(settings.read_text().replace(f'"{like}"', f'"{VERSION}"'))
    try:
        yield
    finally:
        shutil.rmtree(folder)


def first_prediction(url: str, request: Path) -> float:
    """Seconds until the model's own address is answered by the new version."""
    start = time.perf_counter()
    while time.perf_counter() - start < RELEASE_SECONDS:
        if f'"model_version":"{VERSION}"' in show.predict(f"{url}/infer", request):
            return time.perf_counter() - start
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"{url} was not answered by {VERSION} within {RELEASE_SECONDS} s")


def release(stack: str) -> float:
    """From the folder's appearance and `pulumi up` to the first prediction of the new version."""
    model: dict[str, Any] = show.stack_outputs(stack)["models"][MODEL]
    like = next(iter(model["versions"]))
    request = PROJECT / "models" / MODEL / like / "request.json"
    with new_version(like):
        update = threading.Thread(target=pulumi, args=("up", "--yes", "--skip-preview", "--stack", stack))
        update.start()
        try:
            elapsed = first_prediction(model["url"], request)
        finally:
            update.join()
    pulumi("up", "--yes", "--skip-preview", "--stack", stack)
    return elapsed


def row(name: str, values: list[float]) -> str:
    return f"{name:<42} {min(values):6.2f} {statistics.median(values):6.2f} {max(values):6.2f}"


def print_ratio(stack: str, ours: list[float], empty: list[float]) -> None:
    print(row("preview of an empty program", empty))
    print(row(f"preview of {stack}, nothing to change", ours))
    print(row("  ratio", [a / b for a, b in zip(ours, empty, strict=True)]))


def main() -> int:
    stack = "local"
    print(f"{'seconds':<42} {'min':>6} {'median':>6} {'max':>6}")
    print_ratio(stack, *no_op_preview(stack))
    print_ratio("production", *cloud_preview())
    ups = [seconds(lambda: pulumi("up", "--yes", "--skip-preview", "--stack", stack)) for _ in range(3)]
    print(row(f"up of {stack}, nothing to change", ups))
    print(row("new version: first prediction after", [release(stack) for _ in range(3)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
