"""How the traffic of a model waits for its versions: until their pods are ready and their contracts are kept.

The program watches them itself. Pulumi waits for a Deployment as well, but for a model that cannot be loaded until the
Deployment's deadline and without the reason, and it learns that a Job has succeeded 3 s after its pod has.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pulumi

from components.manifest import Manifest
from components.providers import Reach
from components.serving import rollout_status
from components.serving.contract import Check
from components.serving.rollout_status import Failed, Judge

if TYPE_CHECKING:
    from components.serving.watch import Watch

JOB_SECONDS: Final = 60
"""For which a Job's end is awaited after its own deadline."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """What has to be over before a version gets traffic.

    Attributes:
        title: model and version.
        pods: its Deployment, whose ``metadata`` is among the outputs.
        seconds: for its pods to be ready.
        check: of its contract; None if there is none.
    """

    title: str
    pods: Manifest
    seconds: float
    check: Check | None


class Rollouts:
    """The rollouts of the models in a namespace."""

    def __init__(self, reach: Reach, namespace: pulumi.Input[str]) -> None:
        self._reach = reach
        self._namespace = namespace
        self._changed: set[str] = set()
        self._undecided = 0
        self._decided = asyncio.Event()
        self._watch: asyncio.Task[Watch] | None = None
        self.changes = pulumi.ResourceHook("pods-change", self._note_change)
        """Has to be bound to each Deployment, before it is created or updated."""

    def proven(self, version: Version) -> pulumi.Output[None]:
        """Known once a version can get traffic; at once in a preview."""
        if pulumi.runtime.is_dry_run():
            return pulumi.Output.from_input(None)
        self._undecided += 1
        return pulumi.Output.from_input(self._prove(version))

    def _note_change(self, args: pulumi.ResourceHookArgs) -> None:
        self._changed.add(args.urn)

    async def _prove(self, version: Version) -> None:
        try:
            await self._roll_out(version)
            if version.check:
                await self._check(version, version.check)
        except Failed as failed:
            pulumi.log.error(str(failed), version.pods)
        else:
            return
        finally:
            self._undecided -= 1
            if not self._undecided:
                self._decided.set()
        # An error ends the program: each of several versions is judged, and those that can be released are.
        await self._decided.wait()
        raise pulumi.RunError(f"{version.title} was not released; its Deployment's error says why")

    async def _roll_out(self, version: Version) -> None:
        metadata = await _value(version.pods.metadata)
        judge = functools.partial(
            rollout_status.rollout,
            uid=metadata["uid"],
            generation=metadata["generation"],
            changed=await _value(version.pods.urn) in self._changed,
        )
        try:
            await self._until(judge, version, version.seconds)
        except Failed as failed:
            unchanged = "No traffic was moved to it, and what served before still serves."
            raise Failed(f"{version.title} did not start: {failed}\n  {unchanged}") from None

    async def _check(self, version: Version, check: Check) -> None:
        metadata = await _value(check.job.metadata)
        judge = functools.partial(rollout_status.check, uid=metadata["uid"])
        await self._until(judge, version, check.seconds + JOB_SECONDS)

    async def _until(self, judge: Judge, version: Version, seconds: float) -> None:
        def say(state: str) -> None:
            pulumi.log.info(state and f"{version.title}: {state}", version.pods, ephemeral=True)

        self._watch = self._watch or asyncio.ensure_future(self._begin())
        watch = await self._watch
        await watch.until(judge, seconds=seconds, say=say)

    async def _begin(self) -> Watch:
        # Imported here: a preview does not wait for the client.
        from components.serving.watch import Watch  # noqa: PLC0415

        kubeconfig = await _value(pulumi.Output.from_input(self._reach.kubeconfig))
        return Watch(kubeconfig, self._reach.context, await _value(pulumi.Output.from_input(self._namespace)))


async def _value(output: pulumi.Output[Any]) -> Any:
    """What an output will be. Whoever is cancelled while waiting must not cancel the SDK's own future as well."""
    return await asyncio.shield(output.future())
