"""The common part of both sites."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final

from pydantic import BaseModel, ConfigDict

from model_serving.hosts import marked
from model_serving.hosts.access import Patience

WARNING: Final = 3
"""Exit code of a command that did its work but could not write about it; GitLab's jobs allow it as a warning."""


class Run(BaseModel):
    """One run of a job.

    Attributes:
        name: for people, e.g. ``job deploy-dev of pipeline 1207``.
        url: of its log; empty if there is none.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    url: str


class Site(ABC):
    """The site in whose job this runs. Methods that send a request raise `SiteError` if it fails.

    Attributes:
        name: for people.
        note_limit: maximum number of characters of a note.
        takes_uploads: whether `upload` works.
    """

    name: str
    note_limit: int
    takes_uploads: bool = False

    def __init__(self, environ: Mapping[str, str], patience: Patience | None = None) -> None:
        """Sends nothing yet; ``environ`` is the job's environment."""
        self._environ = environ
        self._patience = patience or Patience()

    @property
    @abstractmethod
    def commit(self) -> str:
        """The commit that this pipeline is about; for a merge request, the newest of its own branch."""

    @property
    @abstractmethod
    def is_fork(self) -> bool:
        """Whether this is a merge request from a fork, whose code gets no identity."""

    @property
    @abstractmethod
    def request(self) -> int | None:
        """Number of the merge request; None if this is not one."""

    @property
    @abstractmethod
    def target(self) -> str:
        """Name of the branch that this merge request goes to; empty if this is not a merge request."""

    @property
    @abstractmethod
    def start(self) -> str:
        """Commit of the target where the merge request's branch begins; empty if this is not a merge request."""

    @abstractmethod
    def this_run(self) -> Run:
        """The job in which this runs."""

    @abstractmethod
    def summary(self, body: str) -> None:
        """Shows Markdown on the job's page, if the site has a place for it."""

    @abstractmethod
    def warn(self, text: str) -> int:
        """Prints a line that ends the job with a warning; returns the exit code of the job's command."""

    def upload(self, name: str, content: bytes) -> str:
        """Stores a picture for notes; returns the Markdown that shows it."""
        raise NotImplementedError(f"{self.name} takes no uploads")

    def read_note(self, marker: str) -> marked.Note | None:
        """This project's note with a marker on the merge request."""
        with self._thread() as thread:
            return marked.find(thread, marker)

    def upsert_note(self, marker: str, body: str, *, shows: str | None = None) -> marked.Outcome:
        """Creates or updates a note, unless a newer run has written it.

        Args:
            marker: hidden comment that identifies the note.
            body: Markdown.
            shows: commit whose result the body shows, if it is not this run's.

        Raises:
            TooLong: if a shorter one could be written.
        """
        commit = self.commit if shows is None else shows
        with self._thread() as thread:
            return marked.settle(thread, marker, marked.stamped(marker, body, run=self._pipeline, commit=commit))

    def upsert_issue(self, marker: str, title: str, body: str) -> None:
        """Opens an issue, or updates and reopens the one with this marker."""
        with self._tracker() as tracker:
            marked.settle_issue(tracker, marker, title, marked.stamped(marker, body, run=0, commit=""))

    def close_issue(self, marker: str, comment: str) -> bool:
        """Closes the issue with this marker with a comment; False if none is open."""
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
