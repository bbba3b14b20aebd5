"""What both sites can do, with what is the same on both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager

from model_serving.hosts import marked
from model_serving.hosts.access import Patience
from model_serving.hosts.runs import Run, RunState


class Site(ABC):
    """The site in whose job this runs. Everything that asks it raises `SiteError` where it cannot be done.

    Attributes:
        name: for people.
        note_limit: characters that a note may have.
    """

    name: str
    note_limit: int

    def __init__(self, environ: Mapping[str, str], patience: Patience | None = None) -> None:
        """Asks nothing yet.

        Args:
            environ: the job's environment.
            patience: how long to try.
        """
        self._environ = environ
        self._patience = patience or Patience()

    @property
    @abstractmethod
    def commit(self) -> str:
        """The commit that this pipeline is about: of a merge request, the newest of its own branch."""

    @property
    @abstractmethod
    def is_fork(self) -> bool:
        """Whether this is a merge request from a fork, whose code gets no identity."""

    @abstractmethod
    def this_run(self) -> Run:
        """The job in which this runs."""

    @abstractmethod
    def run_state(self, run: Run) -> RunState:
        """Whether a job still runs.

        Raises:
            SiteError: if the site cannot be asked.
        """

    @abstractmethod
    def summary(self, body: str) -> None:
        """Shows Markdown on the job's page, where the site has a place for it."""

    def read_note(self, marker: str) -> marked.Note | None:
        """The merge request's note with a marker, if there is one of our own.

        Raises:
            SiteError: if it cannot be read.
        """
        with self._thread() as thread:
            return marked.find(thread, marker)

    def upsert_note(self, marker: str, body: str, *, shows: str | None = None) -> marked.Outcome:
        """Writes a note, or writes it anew, unless a newer run has.

        Args:
            marker: hidden comment by which the note is found again.
            body: Markdown.
            shows: commit whose result the body tells of, if it is not this run's.

        Raises:
            SiteError: if it cannot be written; TooLong, if a shorter one could.
        """
        commit = self.commit if shows is None else shows
        with self._thread() as thread:
            return marked.settle(thread, marker, marked.stamped(marker, body, run=self._pipeline, commit=commit))

    def upsert_issue(self, marker: str, title: str, body: str) -> None:
        """Opens an issue, or brings the one with this marker up to date and opens it again.

        Raises:
            SiteError: if it cannot be written.
        """
        with self._tracker() as tracker:
            marked.settle_issue(tracker, marker, title, marked.stamped(marker, body, run=0, commit=""))

    def close_issue(self, marker: str, comment: str) -> bool:
        """Closes the issue with this marker with a comment; False if none is open.

        Raises:
            SiteError: if it cannot be closed.
        """
        with self._tracker() as tracker:
            return marked.close_issues(tracker, marker, comment)

    @property
    @abstractmethod
    def _pipeline(self) -> int:
        """Number of the pipeline; a newer one has a higher one."""

    @abstractmethod
    def _thread(self) -> AbstractContextManager[marked.Thread]:
        """The notes of the merge request."""

    @abstractmethod
    def _tracker(self) -> AbstractContextManager[marked.Tracker]:
        """The project's issues."""
