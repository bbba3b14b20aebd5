"""Stacks without the result of a preview: because its job ended early, or because the commit removes the stack."""

from pathlib import Path
from typing import Final

from model_serving.git import Git
from model_serving.pipelines import stacks
from model_serving.pipelines.changes import Preview
from model_serving.problems import Failure
from model_serving.stack.settings import file_of

ENDED_EARLY: Final = (
    "Its job ended before it wrote a result, and the job's log says why. The runner may have been lost, the job "
    "cancelled, its image missing, or its identity refused. Run the job again."
)


def of(stack: str, commit: str) -> Preview:
    """A preview that was expected and has written nothing: failed, with the mistakes of the stack file."""
    order, why = 0, ENDED_EARLY
    errors: tuple[str, ...] = ()
    try:
        section = stacks.read(stack).ci
        order = section.order if section else 0
    except Failure as error:
        why, errors = "The stack file has mistakes.", (str(error),)
    return Preview(stack=stack, commit=commit, order=order, outcome="failed", why=why, errors=errors)


def removed(start: str, commit: str) -> list[Preview]:
    """The stacks that pipelines have deployed and no longer will, compared with the commit where the branch begins.

    None if that commit is not known or cannot be fetched.
    """
    git = Git(folder=stacks.PROJECT)
    if not start or _cannot_have(git, start):
        return []
    listed = git.run("ls-tree", "--name-only", start, "stacks/").text.splitlines()
    before = [Path(name).name.removeprefix("Pulumi.").removesuffix(".yaml") for name in listed if "/Pulumi." in name]
    still = stacks.in_pipelines()
    return [
        Preview(stack=stack, commit=commit, outcome="removed", why=_left_behind(stack))
        for stack in before
        if stack not in still and stacks.has_ci_section(git.run("show", f"{start}:./{file_of(stack)}").text)
    ]


def _cannot_have(git: Git, commit: str) -> bool:
    """Whether a commit is neither here nor can be fetched."""
    if not git.run("cat-file", "-e", f"{commit}^{{commit}}").code:
        return False
    return bool(git.run("fetch", "--quiet", "--no-tags", "--depth", "1", "origin", commit).code)


def _left_behind(stack: str) -> str:
    what = "has no section ci any more" if stack in stacks.names() else "is deleted"
    return (
        f"Its stack file {what}. What is deployed stays, keeps serving and costs money: nothing destroys it. "
        f"If it is not needed, run pulumi destroy --stack {stack} with a checkout that has the file."
    )
