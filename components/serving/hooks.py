"""What happens at single steps of an update, beside the registration of resources: the program's resource hooks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pulumi

from components.serving.route import leaves_out
from model_serving.images import artefacts, builds


def released_models_never_change(*, ask_registry: bool) -> pulumi.ResourceHook:
    """Refuses an image whose release has other content than was published under its version; in a preview, too.

    Args:
        ask_registry: whether the registry tells of an image that is new to the state. If not, its tags are immutable.
    """

    def refuse(args: pulumi.ResourceHookArgs) -> None:
        new, old = args.new_inputs or {}, args.old_inputs or {}
        unknown_to_state: dict[str, str] | None = None if ask_registry else {}
        labels = old.get("labels", unknown_to_state)
        content, folder = new["labels"][builds.CONTENT_LABEL], new["context"]["location"]
        builds.refuse_other_content(new["tags"][0], content, folder=folder, previous=labels)

    return pulumi.ResourceHook("released-models-never-change", refuse, opts=pulumi.ResourceHookOptions(on_dry_run=True))


def large_files_are_fetched(remote: str) -> pulumi.ResourceHook:
    """Fills the folder of large files that an image is built from.

    Args:
        remote: address of the DVC remote.
    """

    async def fetch(args: pulumi.ResourceHookArgs) -> None:
        folder, context = _build_contexts(args)
        loop = asyncio.get_running_loop()

        def say(message: str) -> None:
            loop.call_soon_threadsafe(pulumi.log.info, message)

        # In a thread, because it may take minutes, and the program declares other things meanwhile.
        await asyncio.to_thread(artefacts.fetch, folder, context, remote=remote, say=say)

    return pulumi.ResourceHook("large-files-are-fetched", fetch)


def large_files_are_removed() -> pulumi.ResourceHook:
    """Empties that folder once the image is in the registry."""
    return pulumi.ResourceHook("large-files-are-removed", lambda args: artefacts.remove(_build_contexts(args)[1]))


def traffic_moves_before_servers_go(seconds: float) -> pulumi.ResourceHook:
    """Gives a gateway time to follow a model's route.

    What the traffic has left is deleted next, and a gateway that learns of both at once may take the server first.

    Args:
        seconds: how long the gateway may take.
    """

    async def settle(args: pulumi.ResourceHookArgs) -> None:
        if args.old_inputs and args.new_inputs and leaves_out(args.old_inputs, args.new_inputs):
            await asyncio.sleep(seconds)

    return pulumi.ResourceHook("traffic-moves-before-servers-go", settle)


def _build_contexts(args: pulumi.ResourceHookArgs) -> tuple[Path, Path]:
    """The folders that an image is built from: its release's, and that of its large files."""
    context = (args.new_inputs or {})["context"]
    return Path(context["location"]), Path(context["named"]["artefacts"]["location"])
