"""Runs git so that it asks nobody, waits for nobody for ever, and shows no token."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from model_serving.problems import Failure

TOKEN: Final = "MODEL_SERVING_TOKEN"  # noqa: S105 - a variable's name
LONGEST_SECONDS: Final = 900
"""Of one command: a clone of a large repository over a slow line."""
SLOWEST_BYTES: Final = 1000
"""Per second, over `SLOWEST_SECONDS`; a connection that carries less is given up."""
SLOWEST_SECONDS: Final = 60
SHOWN_LINES: Final = 6


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command did.

    Attributes:
        code: 0 if it did what it was asked.
        bytes: what it printed.
        said: its messages, without the token.
    """

    code: int
    bytes: bytes
    said: str

    @property
    def text(self) -> str:
        """What it printed, without the newline at the end."""
        return self.bytes.decode(errors="replace").removesuffix("\n")

    @property
    def last_words(self) -> str:
        """The end of its messages, in one line."""
        return " / ".join(self.said.split("\n")[-SHOWN_LINES:])


class GitError(Failure):
    """git did not do what it cannot fail to do; the message has its words and no token."""


@dataclass(frozen=True, kw_only=True)
class Git:
    """git in one folder.

    Attributes:
        folder: where it runs.
        environ: of the process; what would lead git to another repository is left out.
        settings: git's own, for every command.
        longest_seconds: of one command.
    """

    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    settings: tuple[tuple[str, str], ...] = ()
    longest_seconds: int = LONGEST_SECONDS

    def run(self, *arguments: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> Done:
        """Runs a command; a failure is told in what it returns."""
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=self.folder,
                env=self._environ() | dict(environ or {}),
                input=stdin,
                capture_output=True,
                timeout=self.longest_seconds,
                check=False,
            )
        except FileNotFoundError:
            return Done(code=127, bytes=b"", said="git is not on PATH")
        except subprocess.TimeoutExpired:
            return Done(code=124, bytes=b"", said=f"timed out after {self.longest_seconds} s")
        return Done(
            code=done.returncode, bytes=done.stdout, said=self.hidden(done.stderr.decode(errors="replace").strip())
        )

    def must(self, *arguments: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> Done:
        """Runs a command that has no reason to fail.

        Raises:
            GitError: if it fails nevertheless.
        """
        done = self.run(*arguments, stdin=stdin, environ=environ)
        if done.code:
            raise GitError(f"git {arguments[0]} ended with {done.code}: {done.last_words}")
        return done

    def hidden(self, text: str) -> str:
        """A text without the token."""
        token = self.environ.get(TOKEN)
        return text.replace(token, "[token]") if token else text

    def _environ(self) -> dict[str, str]:
        # A hook or a job may have set GIT_DIR and the like, and a trace would print headers with the token.
        kept = {name: value for name, value in self.environ.items() if not _leads_astray(name)}
        number = int(kept.get("GIT_CONFIG_COUNT") or 0)
        for place, (key, value) in enumerate(self.settings, number):
            kept |= {f"GIT_CONFIG_KEY_{place}": key, f"GIT_CONFIG_VALUE_{place}": value}
        return kept | {
            "GIT_CONFIG_COUNT": str(number + len(self.settings)),
            "GIT_TERMINAL_PROMPT": "0",
            # Messages are recognised by their English words.
            "LC_ALL": "C",
        }


def _leads_astray(name: str) -> bool:
    return name.startswith("GIT_TRACE") or name in {
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_NAMESPACE",
        "GIT_CURL_VERBOSE",
        "GIT_ASKPASS",
        "SSH_ASKPASS",
    }


def login(url: str, account: str) -> tuple[tuple[str, str], ...]:
    """Settings by which git logs in at a host with the token, and at no other, even if the host leads it there."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return ()
    place = f"credential.{parts.scheme}://{parts.netloc}.helper"
    return (
        # The empty one first: no helper of the machine is asked, nor told to keep the token.
        ("credential.helper", ""),
        (place, ""),
        (place, _helper(account)),
        ("http.lowSpeedLimit", str(SLOWEST_BYTES)),
        ("http.lowSpeedTime", str(SLOWEST_SECONDS)),
    )


def _helper(account: str) -> str:
    """Reads the token from the variable at the moment in which git asks: it is in no file and in no argument."""
    answer = f'printf "username=%s\\npassword=%s\\n" {account} "${TOKEN}"'
    return f'!f() {{ test "$1" = get || exit 0; {answer}; }}; f'


def without_account(url: str) -> str:
    """An address without the account and the password that jobs have in it."""
    parts = urlsplit(url)
    if "@" not in parts.netloc or parts.scheme not in ("http", "https"):
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
