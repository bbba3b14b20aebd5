"""This project's notes and issues on a site, found again by a hidden comment in their first line.

A second hidden line records the run and the commit, so that a slow run of an older commit does not overwrite a newer
result. The rules are the same on both sites.
"""

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from model_serving.hosts.access import Missing, Unanswered

PREVIEW: Final = "<!-- model-serving: preview -->"
"""Marker of the note with the previews of a merge request."""
ROUNDS: Final = 4
"""Number of checks of the state: two concurrent writers settle after two rounds."""
LONGEST_LABEL: Final = 50
"""GitHub's limit in characters; GitLab's is 255."""

Outcome = Literal["created", "updated", "unchanged", "outdated"]
"""Result for a note; outdated: a newer run had written it already."""

_STAMP: Final = re.compile(r"<!-- model-serving: run (\d+), commit (\w*), content (\w+) -->")


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """The run that wrote a text, and its subject.

    Attributes:
        run: number of the pipeline; a newer pipeline has a higher one.
        commit: the commit whose result the text shows.
        content: start of the hash of the body; sites store texts slightly changed, so texts cannot be compared.
    """

    run: int
    commit: str
    content: str

    def __str__(self) -> str:
        return f"<!-- model-serving: run {self.run}, commit {self.commit}, content {self.content} -->"


@dataclass(frozen=True, kw_only=True)
class Note:
    """A note without its hidden lines, and their content."""

    body: str
    stamp: Stamp


@dataclass(frozen=True, kw_only=True)
class Posted:
    """A comment of this project on a merge request."""

    id: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Issue:
    """An issue of this project."""

    number: int
    title: str
    text: str
    is_open: bool


class Thread(Protocol):
    """This project's notes on one merge request."""

    def notes(self) -> Iterable[Posted]: ...
    def create(self, text: str) -> Posted: ...
    def change(self, note: int, text: str) -> None: ...
    def remove(self, note: int) -> None: ...


class Tracker(Protocol):
    """This project's issues in a repository."""

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
    """Maximum length of the hidden lines, in characters."""
    return len(f"{marker}\n{Stamp(run=10**20, commit='0' * 64, content='0' * 12)}\n")


def find(thread: Thread, marker: str) -> Note | None:
    """The newest of this project's notes with a marker."""
    notes = _marked(thread.notes(), marker)
    if not notes:
        return None
    text = max(notes, key=_age).text
    stamp = _stamp(text)
    bare = text.removeprefix(marker).lstrip("\r\n")
    return Note(body=bare.removeprefix(str(stamp)).lstrip("\r\n"), stamp=stamp)


def settle(thread: Thread, marker: str, text: str) -> Outcome:
    """Leaves exactly one note with the marker, with the text of the newest run.

    Checks, writes what is missing and checks again, so neither a lost answer nor a concurrent run does harm: the
    oldest note stays and the others are removed. One race remains, which neither site can prevent: an older run that
    reads before and writes after the last check of a newer one.
    """
    outcome: Outcome = "unchanged"
    made: list[Posted] = []
    for rounds_left in reversed(range(ROUNDS)):
        # A list read from a replica may lack a note created a moment ago.
        notes, made = _marked([*made, *thread.notes()], marker), []
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
        except (Unanswered, Missing, OSError):
            # The request may have been carried out, or another run removed the note: the next round sees.
            if not rounds_left:
                raise
    return outcome


def settle_issue(tracker: Tracker, marker: str, title: str, text: str) -> None:
    """Leaves exactly one open issue with the marker; a closed one is reopened."""
    for rounds_left in reversed(range(ROUNDS)):
        if issues := _issues(tracker, marker):
            kept, *others = [issue for issue in issues if issue.is_open] or issues[-1:]
            if not (kept.is_open and kept.title == title and _stamp(kept.text).content == _stamp(text).content):
                tracker.change(kept.number, title, text)
            for other in others:
                tracker.close(other.number)
            return
        try:
            tracker.create(title, text, label_of(marker))
        except (Unanswered, OSError):
            if not rounds_left:
                raise
        else:
            return


def close_issues(tracker: Tracker, marker: str, comment: str) -> bool:
    """Closes all open issues with the marker, with a comment; False if there was none."""
    still_open = [issue.number for issue in _issues(tracker, marker) if issue.is_open]
    for number in still_open:
        # The comment may have arrived nevertheless, and closing matters more.
        with suppress(Unanswered, OSError):
            tracker.comment(number, comment)
        tracker.close(number)
    return bool(still_open)


def label_of(marker: str) -> str:
    """Label of an issue: ``drift::dev`` for the marker ``<!-- model-serving: drift dev -->``."""
    return "::".join(re.sub(r"<!-- (?:model-serving: )?|-->", "", marker).split())[:LONGEST_LABEL]


def _tidy(thread: Thread, notes: list[Posted], text: str) -> bool:
    """Keeps only the oldest note, with this text; False if nothing had to change."""
    first, *others = notes
    is_other = _stamp(first.text) != _stamp(text)
    if is_other:
        thread.change(first.id, text)
    for other in others:
        thread.remove(other.id)
    return is_other or bool(others)


def _marked(notes: Iterable[Posted], marker: str) -> list[Posted]:
    """Oldest first. A marker that is not at the start is a quotation."""
    own = {note.id: note for note in notes if note.text.startswith(marker)}
    return [own[number] for number in sorted(own)]


def _issues(tracker: Tracker, marker: str) -> list[Issue]:
    found = (issue for issue in tracker.issues(label_of(marker)) if issue.text.startswith(marker))
    return sorted(found, key=lambda issue: issue.number)


def _age(note: Posted) -> tuple[int, int]:
    return _stamp(note.text).run, note.id


def _stamp(text: str) -> Stamp:
    """The stamp of a text. One without a stamp was changed by hand: every run is newer."""
    found = _STAMP.search(text[:1000])
    return Stamp(run=int(found[1]), commit=found[2], content=found[3]) if found else Stamp(run=0, commit="", content="")
