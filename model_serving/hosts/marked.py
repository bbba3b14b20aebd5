"""What this project writes into merge requests and issues, found again by a hidden comment in its first line.

The second line, hidden as well, says which run wrote it and which commit it is about, so that a slow run of an older
commit does not write over the result of a newer one. Whoever writes, the same rules hold on both sites; they are here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from model_serving.hosts.access import Missing, Unanswered

PREVIEW: Final = "<!-- model-serving: preview -->"
"""Marks the note with the previews of a merge request's stacks."""
ROUNDS: Final = 4
"""How often it is looked whether all is as it should be: two writers at once are done after two rounds."""
LONGEST_LABEL: Final = 50
"""GitHub's limit in characters; GitLab's is 255."""

Outcome = Literal["created", "updated", "unchanged", "outdated"]
"""What became of a note; outdated is one that a newer run had written already."""

_STAMP: Final = re.compile(r"<!-- model-serving: run (\d+), commit (\w*), content (\w+) -->")


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Who wrote a text, and about what.

    Attributes:
        run: number of the pipeline; a newer pipeline has a higher one.
        commit: the commit whose result the text shows.
        content: beginning of the body's hash: sites store a text slightly otherwise than it was sent.
    """

    run: int
    commit: str
    content: str

    def __str__(self) -> str:
        return f"<!-- model-serving: run {self.run}, commit {self.commit}, content {self.content} -->"


@dataclass(frozen=True, kw_only=True)
class Note:
    """A note as it was found.

    Attributes:
        body: without the hidden lines.
        stamp: what they say.
    """

    body: str
    stamp: Stamp


@dataclass(frozen=True, kw_only=True)
class Posted:
    """A note of our own on a site: a comment of a merge request."""

    id: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Issue:
    """An issue of our own on a site."""

    number: int
    title: str
    text: str
    is_open: bool


class Thread(Protocol):
    """The notes below one merge request, as far as they are our own."""

    def notes(self) -> Iterable[Posted]: ...
    def create(self, text: str) -> Posted: ...
    def change(self, note: int, text: str) -> None: ...
    def remove(self, note: int) -> None: ...


class Tracker(Protocol):
    """The issues of a project, as far as they are our own."""

    def issues(self, label: str) -> Iterable[Issue]: ...
    def create(self, title: str, text: str, label: str) -> None: ...
    def change(self, issue: int, title: str, text: str) -> None: ...
    def comment(self, issue: int, text: str) -> None: ...
    def close(self, issue: int) -> None: ...


def stamped(marker: str, body: str, *, run: int, commit: str) -> str:
    """A body with its hidden lines."""
    bare = body.removeprefix(marker).lstrip("\n")
    content = hashlib.sha256(bare.encode()).hexdigest()[:12]
    return f"{marker}\n{Stamp(run=run, commit=commit, content=content)}\n{bare}"


def overhead(marker: str) -> int:
    """How many characters the hidden lines take at most."""
    longest = Stamp(run=10**20, commit="0" * 64, content="0" * 12)
    return len(f"{marker}\n{longest}\n")


def read(marker: str, text: str) -> Note:
    """A note's parts. One without a stamp was changed by hand: every run is newer."""
    bare = text.removeprefix(marker).lstrip("\r\n")
    body = bare.removeprefix(str(_stamp(text))).lstrip("\r\n")
    return Note(body=body, stamp=_stamp(text))


def find(thread: Thread, marker: str) -> Note | None:
    """The newest of our notes with a marker; None if there is none."""
    notes = _marked(thread.notes(), marker)
    return read(marker, max(notes, key=_age).text) if notes else None


def settle(thread: Thread, marker: str, text: str) -> Outcome:
    """Brings it about that exactly one note has the marker, with the text of the newest run.

    Looks, writes what is missing and looks again. So it does not matter whether an unanswered request was carried
    out, or whether another run wrote at the same time: the oldest note stays and the others go. What is left is an
    older run that looks before and writes after the last look of a newer one; neither site can refuse that.

    Raises:
        SiteError: if the site does not let it.
    """
    outcome: Outcome = "unchanged"
    made: list[Posted] = []
    problem: Exception | None = None
    for _ in range(ROUNDS):
        # What was made a moment ago may be missing in a list that comes from a replica.
        notes, made = _marked([*made, *thread.notes()], marker), []
        problem = None
        try:
            if not notes:
                outcome = "created"
                made = [thread.create(text)]
                continue
            newest = max(notes, key=_age)
            is_outdated = _stamp(newest.text).run > _stamp(text).run
            if not _tidy(thread, notes, newest.text if is_outdated else text):
                return "outdated" if is_outdated else outcome
            outcome = outcome if outcome == "created" else "updated"
        except (Unanswered, Missing, OSError) as error:
            # Made or not, removed by another run, an answer that broke off: the next round sees.
            problem = error
    if problem is not None:
        raise problem
    return outcome


def settle_issue(tracker: Tracker, marker: str, title: str, text: str) -> None:
    """Brings it about that exactly one open issue has the marker; one that was closed is opened again.

    Raises:
        SiteError: if the site does not let it.
    """
    problem: Exception | None = None
    for _ in range(ROUNDS):
        issues = _issues(tracker, marker)
        if issues:
            kept, *others = [issue for issue in issues if issue.is_open] or issues[-1:]
            if not (kept.is_open and kept.title == title and _stamp(kept.text).content == _stamp(text).content):
                tracker.change(kept.number, title, text)
            for other in others:
                tracker.close(other.number)
            return
        try:
            tracker.create(title, text, label_of(marker))
        except (Unanswered, OSError) as error:
            problem = error
        else:
            return
    if problem is not None:
        raise problem


def close_issues(tracker: Tracker, marker: str, comment: str) -> bool:
    """Closes what is open with a comment; False if nothing was.

    Raises:
        SiteError: if the site does not let it.
    """
    still_open = [issue.number for issue in _issues(tracker, marker) if issue.is_open]
    for number in still_open:
        # It may be there nevertheless, and the closing is what counts.
        with suppress(Unanswered, OSError):
            tracker.comment(number, comment)
        tracker.close(number)
    return bool(still_open)


def label_of(marker: str) -> str:
    """Label by which an issue is found: ``drift::dev`` for the marker ``<!-- model-serving: drift dev -->``."""
    words = re.sub(r"<!-- (?:model-serving: )?|-->", "", marker).split()
    return "::".join(words)[:LONGEST_LABEL]


def _tidy(thread: Thread, notes: list[Posted], text: str) -> bool:
    """Leaves the oldest note alone with this text; False if it was so already."""
    first, *others = notes
    is_other = _stamp(first.text) != _stamp(text)
    if is_other:
        thread.change(first.id, text)
    for other in others:
        thread.remove(other.id)
    return is_other or bool(others)


def _marked(notes: Iterable[Posted], marker: str) -> list[Posted]:
    """Oldest first. A marker further down is a quotation."""
    own = {note.id: note for note in notes if note.text.startswith(marker)}
    return [own[number] for number in sorted(own)]


def _issues(tracker: Tracker, marker: str) -> list[Issue]:
    found = (issue for issue in tracker.issues(label_of(marker)) if issue.text.startswith(marker))
    return sorted(found, key=lambda issue: issue.number)


def _age(note: Posted) -> tuple[int, int]:
    return _stamp(note.text).run, note.id


def _stamp(text: str) -> Stamp:
    found = _STAMP.search(text[:1000])
    if found is None:
        return Stamp(run=0, commit="", content="")
    return Stamp(run=int(found[1]), commit=found[2], content=found[3])
