"""Gets archives from their publishers, several at once. A file is used only if its sum is the pinned one.

It asks with the package requests, which also follows the environment's proxy variables and certificates.
"""

import contextlib
import hashlib
import hmac
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from urllib.parse import urlsplit

import requests

from local.tools.recipe import Archive

ANSWER_SECONDS = 3.0
"""A publisher that does not answer in this time counts as unreachable."""
STALL_SECONDS = 30.0
SLOW_SECONDS = 20.0  # until a transfer's average speed is judged
SLOWEST_RATE = 150_000  # bytes per second; compiling is quicker than what is slower
CHUNK = 1 << 18
AT_ONCE = 4
ATTEMPTS = 2  # for a transfer that was cut off
SHOW_SECONDS = 30  # between two lines if the output is not a terminal


class WrongSum(Exception):
    """A file is not the published one; the text has both sums."""


class Unavailable(Exception):
    """A file cannot be had from its publisher; the text says why, after the file's name."""


def answering(urls: Iterable[str]) -> set[str]:
    """The hosts among those of the URLs that send any response in time.

    In daemon threads, because looking up a name has no time limit of its own.
    """
    found: set[str] = set()
    first = {urlsplit(url).netloc: url for url in urls}

    def ask(host: str, url: str) -> None:
        with contextlib.suppress(requests.RequestException):
            requests.head(url, timeout=ANSWER_SECONDS, allow_redirects=False)
            found.add(host)

    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in first.items()]
    deadline = time.monotonic() + ANSWER_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return set(found)


class Transfers:
    """Files on their way, with one line of progress for all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stopped = threading.Event()
        self._received: dict[Archive, int] = {}
        self._expected: dict[Archive, int] = {}
        self._began = time.monotonic()
        self._shown = 0.0 if sys.stdout.isatty() else self._began

    def fetch(self, archives: Collection[Archive]) -> dict[Archive, Path | str]:
        """Each archive -> its verified file, or the reason why there is none.

        Raises:
            WrongSum: at least one file is not the published one; all others are given up.
        """
        hosts = answering(archive.url for archive in archives)
        results: dict[Archive, Path | str] = {
            archive: f"no answer from {archive.host} within {ANSWER_SECONDS:.0f} s"
            for archive in archives
            if archive.host not in hosts
        }
        with ThreadPoolExecutor(AT_ONCE) as threads:
            pending = {threads.submit(self._fetch, archive): archive for archive in archives if archive not in results}
            count = len(pending)
            try:
                while pending:
                    for done in wait(pending, 0.2, FIRST_COMPLETED).done:
                        archive = pending.pop(done)
                        try:
                            results[archive] = done.result()
                        except Unavailable as error:
                            results[archive] = str(error)
                    self._show(count - len(pending), count)
            finally:
                self._stopped.set()
        return results

    def _show(self, done: int, count: int) -> None:
        tty, now = sys.stdout.isatty(), time.monotonic()
        if done < count and not tty and now - self._shown < SHOW_SECONDS:
            return
        self._shown = now
        received = sum(self._received.values()) / 1e6
        expected = sum(self._expected.values()) / 1e6
        size, seconds = f"{received:.0f} of {expected:.0f} MB", f"{now - self._began:.0f} s"
        text = f"downloading tools: {done} of {count} files, {size}, {seconds}"
        print(f"\r{text}  " if tty else text, end="\n" if done == count or not tty else "", flush=True)

    def _fetch(self, archive: Archive) -> Path:
        target = self._folder / hashlib.sha256(archive.sum.encode()).hexdigest()[:16]
        for attempt in range(1, ATTEMPTS + 1):
            try:
                found = self._receive(archive, target)
                break
            except requests.HTTPError as error:
                raise Unavailable(f"{archive.host} answers {error.response.status_code}") from error
            except requests.RequestException as error:
                if attempt == ATTEMPTS:
                    raise Unavailable(f"{archive.host} broke off ({type(error).__name__})") from error
        if not hmac.compare_digest(found, archive.sum):
            target.unlink()
            raise WrongSum(
                f"{archive.url} is not the published file and was deleted.\n"
                f"  pinned in tools.toml  {archive.sum}\n  downloaded            {found}\n"
                "  Ask the publisher or whoever runs your proxy. TOOLS=build compiles everything instead."
            )
        return target

    def _receive(self, archive: Archive, target: Path) -> str:
        """Write the file and return its sum."""
        algorithm = archive.sum.partition(":")[0]
        digest = hashlib.new(algorithm)
        began = time.monotonic()
        self._received[archive] = 0
        with (
            # Not compressed in transfer: the decoded file would not have the published sum.
            requests.get(
                archive.url,
                headers={"Accept-Encoding": "identity"},
                stream=True,
                timeout=(ANSWER_SECONDS, STALL_SECONDS),
            ) as response,
            target.open("wb") as file,
        ):
            response.raise_for_status()
            self._expected[archive] = int(response.headers.get("Content-Length", 0))
            for chunk in response.iter_content(CHUNK):
                if self._stopped.is_set():
                    raise Unavailable("stopped")
                digest.update(chunk)
                file.write(chunk)
                self._received[archive] += len(chunk)
                self._judge_speed(archive, time.monotonic() - began)
        return f"{algorithm}:{digest.hexdigest()}"

    def _judge_speed(self, archive: Archive, seconds: float) -> None:
        rate = self._received[archive] / max(seconds, 0.001)
        if seconds > SLOW_SECONDS and rate < SLOWEST_RATE:
            raise Unavailable(f"{archive.host} sends only {rate / 1000:.0f} kB/s")


def unpack(archive: Path, names: Mapping[str, Path]) -> None:
    """Copy files out of a tar archive: base name -> path of the copy, which becomes executable.

    Raises:
        Unavailable: the archive lacks one of them.
    """
    left = dict(names)
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            if not (member.isfile() and name in left and (content := tar.extractfile(member))):
                continue
            target = left.pop(name)
            with target.open("wb") as copy:
                shutil.copyfileobj(content, copy)
            target.chmod(0o755)
            if not left:
                return
    raise Unavailable(f"the archive lacks {', '.join(left)}")
