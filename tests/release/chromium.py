"""A browser for tests: Chromium without a window, driven over pipes by its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

FLAGS: Final = (
    # The tests may run as root, where Chromium's sandbox does not.
    *("--headless", "--no-sandbox", "--remote-debugging-pipe"),
    *("--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"),
)
WAIT_SECONDS: Final = 15.0


class Browser:
    """One page of a running Chromium."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands, self._answers = commands, answers
        self._count = 0
        self._session: str | None = None
        self.errors: list[str] = []
        """Exceptions that nobody caught, and what the page's policy refused."""
        target = self._do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._do(f"{domain}.enable")

    def open(self, url: str, *, width: int = 1000, height: int = 1400, is_dark: bool = False) -> None:
        self._do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._do("Emulation.setEmulatedMedia", features=[scheme])
        self._do("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page.

        Raises:
            RuntimeError: with its exception.
        """
        done = self._do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"]["description"])
        return done["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression as soon as it is true.

        Raises:
            TimeoutError: with what the page shows instead.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not (value := self.run(script)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{script}\n{self.run('document.body.innerText')}")
            time.sleep(0.05)
        return value

    def type(self, text: str) -> None:
        """Into what has the focus, as a keyboard would."""
        self._do("Input.insertText", text=text)

    def press(self, key: str) -> None:
        code = {"Tab": 9, "Enter": 13}[key]
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if (key, kind) == ("Enter", "keyDown") else {}
            self._do("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._do("Page.captureScreenshot")["data"]))

    def _do(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._count, "method": method, "params": parameters, **session}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._read()).get("id") != self._count:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("Chromium has ended")
            text += byte
        message: dict[str, Any] = json.loads(text)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(event["params"]["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["source"] != "network":
            self.errors.append(event["params"]["entry"]["text"])


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A running browser that keeps what it writes in a folder."""
    program = shutil.which("chromium")
    assert program, "make test-release installs the package chromium"
    (from_us, to_it), (from_it, to_us) = os.pipe(), os.pipe()
    # Chromium reads commands from descriptor 3 and writes answers to 4. Not sh, which knows no number above 9.
    script = f'exec "$0" "$@" 3<&{from_us} 4>&{to_us}'
    process = subprocess.Popen(
        ["bash", "-c", script, program, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(from_us, to_us),
        env={**os.environ, "HOME": str(profile)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(from_us)
    os.close(to_us)
    try:
        with os.fdopen(to_it, "wb") as commands, os.fdopen(from_it, "rb") as answers:
            yield Browser(commands, answers)
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)
