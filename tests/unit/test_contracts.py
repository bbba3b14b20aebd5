"""Traffic waits for a contract until the check's pod has said that it is kept, or the engine knows the Job."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Final

import pytest

from components.serving.contract import KEPT
from components.serving.contracts import first, prints
from server import contract

SECONDS: Final = 20
"""After which a test that waits for what does not come fails."""


def run(coroutine: Coroutine[None, None, object]) -> object:
    # Not asyncio.run, which forgets the loop that the SDK has made for the thread.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(coroutine, SECONDS))
    finally:
        loop.close()


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


async def never() -> None:
    await asyncio.Event().wait()


async def failing() -> None:
    raise RuntimeError("the Job has failed")


def test_the_program_waits_for_what_the_check_prints() -> None:
    assert KEPT == contract.KEPT


def test_a_line_is_noticed_while_the_command_goes_on() -> None:
    assert run(prints(KEPT, shell(f"echo something else; echo '{KEPT}'; exec sleep 600")))


@pytest.mark.parametrize("script", ["true", "false", f"echo 'not: {KEPT}'", f"echo '{KEPT}' >&2"])
def test_a_command_that_ends_without_the_line_has_not_printed_it(script: str) -> None:
    assert not run(prints(KEPT, shell(script)))


def test_whatever_is_known_first_is_enough() -> None:
    async def known() -> None:
        pass

    run(first(known(), never()))
    run(first(never(), known()))


def test_a_check_that_has_failed_is_not_waited_for_any_longer() -> None:
    with pytest.raises(RuntimeError, match="the Job has failed"):
        run(first(failing(), never()))


def test_no_command_outlives_the_wait(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def started() -> None:
        while not (pid.exists() and pid.read_text()):
            await asyncio.sleep(0.01)

    run(first(started(), prints(KEPT, shell(f"echo $$ > {pid}; exec sleep 600"))))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
