"""What `make test` leaves to `make test-all`: repetitions, and variants of what is tested once already."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

import pytest

OPTION: Final = "--thorough"
MARKERS: Final = (
    "thorough(instead): part of `make test-all` only; what stands for it in `make test`",
    "as_left: of a cluster's stack, begins with whatever the test before has left serving",
    "documents: of what README.md and docs/ say, part of `make test-docs`",
)
FIGURE: Final = "figure"
Figure = Callable[[str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="everything, as `make test-all` does")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background jobs ignore it, as would the commands that tests interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = {item: marker for item in items if (marker := item.get_closest_marker("thorough"))}
    if unexplained := [item.nodeid for item, marker in marked.items() if not marker.args]:
        raise pytest.UsageError(f"say what stands for it in `make test`: {', '.join(unexplained)}")
    if not config.getoption(OPTION):
        config.hook.pytest_deselected(items=[*marked])
        items[:] = [item for item in items if item not in marked]


@pytest.fixture(scope="session")
def is_thorough(pytestconfig: pytest.Config) -> bool:
    """Whether a test that repeats something is to do it as often as `make test-all` wants it."""
    return bool(pytestconfig.getoption(OPTION))


@pytest.fixture
def figure(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Figure:
    """Takes down what a test measured."""
    title = request.node.name.removeprefix("test_").replace("_", " ")
    return lambda text: record_property(FIGURE, f"{title}: {text}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests measured, where a person who runs them looks."""
    reports = terminalreporter.getreports("passed")
    figures = [text for report in reports for name, text in report.user_properties if name == FIGURE]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write("".join(f"{line}\n" for line in figures))
