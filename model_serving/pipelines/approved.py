"""The approved preview of a deployment, and whether an update would still do the same.

The preview of a commit is made when the commit is merged. Another commit may have been deployed since, so the same
program may now mean something else. The deployment therefore previews again and compares each operation.

What the approved preview contains and the update no longer does is already in place, which is no difference.
"""

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from model_serving.hosts.markdown import logged
from model_serving.pipelines import engine
from model_serving.pipelines.changes import Change, Preview
from model_serving.pipelines.events import Recorder
from model_serving.pipelines.redact import Redactor
from model_serving.pipelines.values import UNKNOWN, Difference
from model_serving.problems import Failure


def read(folder: Path, stack: str) -> Preview:
    """The preview of `preview --out`.

    Raises:
        Failure: if there is none, or if it failed.
    """
    path = folder / f"{stack}.json"
    try:
        preview = Preview.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Failure(
            f"{path} is not a preview: {str(error).partition(chr(10))[0]}\n"
            "  No one has reviewed what would be deployed, so nothing was changed.\n"
            f"  Run `python -m model_serving preview --stack {stack} --out {folder}`, or omit --previewed."
        ) from None
    if preview.outcome != "ok":
        raise Failure(
            f"the preview in {path} failed: {preview.why}\n"
            "  What would be deployed is not known, so nothing was changed.\n"
            "  Fix the cause, and preview again."
        )
    return preview


def look(stack: str, *options: str, commit: str, redactor: Redactor, environ: Mapping[str, str]) -> Preview:
    """What an update would do now.

    Raises:
        Failure: if that is not known; the message contains the output.
    """
    recorder = Recorder(stack=stack, commit=commit, redactor=redactor)
    output = io.StringIO()
    code = engine.run(
        ["preview", "--stack", stack, *options],
        redactor=redactor,
        on_event=recorder.event,
        on_text=recorder.text,
        environ=environ,
        out=output,
    )
    found = recorder.preview(code)
    if found.outcome != "ok":
        raise Failure(
            f"whether the update is still the approved one is not known: {found.why}\n{output.getvalue().rstrip()}\n"
            "  Nothing was changed.\n"
            "  Fix the cause, and run this again."
        )
    return found


def differing(approved: Preview, now: Preview, *, is_continued: bool) -> list[Change]:
    """The operations of an update that were not approved.

    Args:
        approved: the approved preview.
        now: of the same commit.
        is_continued: whether an update to this commit was begun and not completed. The rest of it may change the same
            resources in another way, e.g. from the value of a half-done change.
    """
    left = Counter(map(_identity, approved.changes))
    by_identity: dict[tuple[str, ...], list[Change]] = {}
    for change in approved.changes:
        by_identity.setdefault(_identity(change), []).append(change)
    found = []
    for change in now.changes:
        identity = _identity(change)
        covers = _continues if is_continued else _covers
        if left[identity] and any(covers(each, change) for each in by_identity[identity]):
            left[identity] -= 1
        else:
            found.append(change)
    return found


def refuse(approved: Preview, differences: Iterable[Change], how: str) -> Failure:
    """The error about operations that were not approved; ``how`` is the way to approve them."""
    listed = "\n".join(f"    {logged(line)}" for change in differences for line in _listing(change, approved))
    return Failure(
        f"the update of {approved.stack} is no longer what was approved. It would also do this:\n{listed}\n"
        "  What is live has changed since the approved preview, so nothing was changed.\n"
        f"  {how}"
    )


def _listing(change: Change, approved: Preview) -> Iterator[str]:
    yield change.title
    yield from (f"  {line}" for line in change.lines())
    for each in approved.changes:
        if _identity(each) == _identity(change):
            yield f"  approved was: {each.title}"
            yield from (f"    {line}" for line in each.lines())


def _identity(change: Change) -> tuple[str, ...]:
    return change.token, change.name, change.component


def _continues(approved: Change, now: Change) -> bool:
    return not now.is_destructive or approved.is_destructive or approved.operation == "create"


def _covers(approved: Change, now: Change) -> bool:
    """Whether an operation is the approved one; what was known after apply may be known now."""
    if approved.operation != now.operation:
        return False
    if approved.operation == "update" and not approved.differences:
        return True  # the preview has said that the changes are known after apply
    if len(now.differences) + now.omitted > len(approved.differences) + approved.omitted:
        return False
    return all(any(_covers_value(each, difference) for each in approved.differences) for difference in now.differences)


def _covers_value(approved: Difference, now: Difference) -> bool:
    if now.forces and not approved.forces:
        return False
    if approved.new == UNKNOWN and (
        now.path == approved.path or now.path.startswith((f"{approved.path}.", f"{approved.path}["))
    ):
        return True
    sides = ((approved.old, now.old), (approved.new, now.new))
    return approved.path == now.path and all(old in (new, UNKNOWN) for old, new in sides)
