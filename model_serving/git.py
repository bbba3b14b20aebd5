"""Runs git without prompts, with a time limit, and without the token in its messages."""

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
"""Per command; enough to clone a large repository over a slow connection."""
SLOWEST_BYTES: Final = 1000
"""Per second, over `SLOWEST_SECONDS`; slower connections are closed."""
SLOWEST_SECONDS: Final = 60
SHOWN_LINES: Final = 6
SHORT: Final = 10
"""Digits of a commit for people."""
# A hook or a job may have set these; traces would print headers with the token.
_NOT_INHERITED: Final = frozenset(
    {
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
)


@dataclass(frozen=True, kw_only=True)
class Done:
    """The result of a command: exit code, standard output, and standard error without the token."""

    code: int
    bytes: bytes
    said: str

    @property
    def text(self) -> str:
        """Standard output, without the newline at the end."""
        return self.bytes.decode(errors="replace").removesuffix("\n")

    @property
    def last_words(self) -> str:
        """The end of standard error, in one line."""
        return " / ".join(self.said.split("\n")[-SHOWN_LINES:])


class GitError(Failure):
    """An unexpected failure; the message quotes git, without the token."""


@dataclass(frozen=True, kw_only=True)
class Git:
    """git in one folder, with these settings for every command and a time limit of each.

    Of the environment, variables that point git to another repository are left out.
    """

    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    settings: tuple[tuple[str, str], ...] = ()
    longest_seconds: int = LONGEST_SECONDS

    def run(self, *arguments: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> Done:
        """Runs a command; a failure is in the result."""
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
        said = done.stderr.decode(errors="replace").strip()
        if token := self.environ.get(TOKEN):
            said = said.replace(token, "[token]")
        return Done(code=done.returncode, bytes=done.stdout, said=said)

    def must(self, *arguments: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> Done:
        """Runs a command that has no reason to fail; raises `GitError` if it does."""
        done = self.run(*arguments, stdin=stdin, environ=environ)
        if done.code:
            raise GitError(f"git {arguments[0]} ended with {done.code}: {done.last_words}")
        return done

    def changed(self, *paths: str) -> list[str]:
        """Files with changes that are in no commit, by default in the whole checkout."""
        listed = self.run("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--", *paths).text
        return [entry[3:] for entry in listed.split("\0") if entry]

    def _environ(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in self.environ.items()
            if name not in _NOT_INHERITED and not name.startswith("GIT_TRACE")
        }
        number = int(kept.get("GIT_CONFIG_COUNT") or 0)
        for place, (key, value) in enumerate(self.settings, number):
            kept |= {f"GIT_CONFIG_KEY_{place}": key, f"GIT_CONFIG_VALUE_{place}": value}
        return kept | {
            "GIT_CONFIG_COUNT": str(number + len(self.settings)),
            "GIT_TERMINAL_PROMPT": "0",
            # Messages are recognised by their English words.
            "LC_ALL": "C",
        }


def login(url: str, account: str) -> tuple[tuple[str, str], ...]:
    """Settings with which git sends the token to one host only, even if that host redirects it elsewhere."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return ()
    place = f"credential.{parts.scheme}://{parts.netloc}.helper"
    # The helper reads the variable when git asks: the token is in no file and in no argument.
    answer = f'printf "username=%s\\npassword=%s\\n" {account} "${TOKEN}"'
    return (
        # The empty values first: the machine's own helpers are neither asked nor told to store the token.
        ("credential.helper", ""),
        (place, ""),
        (place, f'!f() {{ test "$1" = get || exit 0; {answer}; }}; f'),
        ("http.lowSpeedLimit", str(SLOWEST_BYTES)),
        ("http.lowSpeedTime", str(SLOWEST_SECONDS)),
    )


def without_account(url: str) -> str:
    """An HTTP address without account and password, which CI jobs put into it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
