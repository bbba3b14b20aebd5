"""How traffic waits for contracts: until the pods that check them say in their logs that they are kept.

That a Job has succeeded is known 3 s after its pod has said so, because the kubelet and the controller of Jobs both
gather news for a second. So a model's route is declared when the pod of each version's check has said it, or the
engine knows the Job, whatever comes first.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Final

import pulumi

from components.serving.contract import KEPT, Check

LOOK_SECONDS: Final = 0.5
"""Between two looks at a log that has ended or cannot be read."""


class Contracts:
    """The contracts that the traffic of models waits for.

    Attributes:
        begins: hook of each check's Job, before it is made; None if nobody waits for that.
    """

    def __init__(self, namespace: pulumi.Input[str], *, kubectl: Sequence[str]) -> None:
        """Registers the hook.

        Args:
            namespace: of the models and of the checks.
            kubectl: the command with the options that lead to the cluster of the models; without one, the Jobs
                themselves are waited for.
        """
        self._namespace = pulumi.Output.from_input(namespace)
        self._kubectl = kubectl
        self._begun: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.begins = pulumi.ResourceHook("contract-check-begins", self._begin) if kubectl else None

    def kept(self, check: Check, *, pods: pulumi.Resource) -> pulumi.Output[None]:
        """Known as soon as a contract is kept; a failure of the check's Job is the failure of whatever needs this.

        Args:
            check: whose Job has the hook.
            pods: the version's server. Before it is ready there is nothing to hear.
        """
        if not self._kubectl:
            return check.job.urn.apply(lambda _: None)
        return pulumi.Output.from_input(first(_value(check.job.urn), self._says(check, pods)))

    def _begin(self, args: pulumi.ResourceHookArgs) -> None:
        self._begun[(args.new_inputs or {})["metadata"]["name"]].set()

    async def _says(self, check: Check, pods: pulumi.Resource) -> None:
        # What has the Job's name before is one that failed in an earlier update.
        await self._begun[check.name].wait()
        await _value(pods.urn)
        options = ("--namespace", str(await _value(self._namespace)), "logs", "--follow", f"job/{check.name}")
        while not await prints(KEPT, [*self._kubectl, *options]):
            await asyncio.sleep(LOOK_SECONDS)


async def _value(output: pulumi.Output[str]) -> str | None:
    """What an output will be. Who is cancelled while it waits for that must not cancel the SDK's own future with it."""
    return await asyncio.shield(output.future())


async def first(*ways: Awaitable[object]) -> None:
    """Returns when one of them does, or raises what it raises; the others are cancelled."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        # A process that one of them runs has ended then.
        await asyncio.wait(tasks)


async def prints(line: str, command: Sequence[str]) -> bool:
    """Runs a command until it prints a line; returns whether it did."""
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
    try:
        while process.stdout and (said := await process.stdout.readline()):
            if said.decode(errors="replace").rstrip() == line:
                return True
        return False
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
