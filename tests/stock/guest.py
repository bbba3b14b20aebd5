"""A virtual machine in QEMU, and commands in it over SSH."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.release.launched import free_ports
from tests.stock.image import USER, Image

MEMORY: Final = "8G"
PROCESSORS: Final = "2"
BOOT_SECONDS: Final = 900
ATTEMPT_SECONDS: Final = 10


class NotUp(Exception):
    """The virtual machine does not answer."""


@dataclass(frozen=True)
class Done:
    """A command's end in the virtual machine."""

    code: int
    said: str
    seconds: float


@dataclass
class Guest:
    """A running virtual machine.

    Attributes:
        port: on this machine's loopback, of its SSH.
        console: what its kernel has written, of all boots.
        command: that starts it.
    """

    port: int
    key: Path
    console: Path
    command: Sequence[str]
    process: subprocess.Popen[bytes]

    def run(self, command: str, *, user: str = USER, is_shown: bool = False) -> Done:
        """Runs a shell command as somebody who has just logged in.

        Args:
            is_shown: each line appears here too, as it is written.
        """
        began = time.monotonic()
        lines: list[str] = []
        with subprocess.Popen(
            [*self._ssh(user), command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout
            for line in process.stdout:
                lines.append(line)
                if is_shown:
                    print(f"    {time.monotonic() - began:6.0f} s  {line}", end="", flush=True)
        return Done(process.returncode, "".join(lines), time.monotonic() - began)

    def wait(self) -> float:
        """Until it can be logged in to; returns the seconds."""
        began = time.monotonic()
        while time.monotonic() - began < BOOT_SECONDS:
            if self.process.poll() is not None:
                raise NotUp(f"QEMU ended with exit code {self.process.returncode}.")
            # Each attempt waits for the server's greeting.
            if self.run("true", user="root").code == 0:
                return time.monotonic() - began
        last = "\n".join(self.console.read_text(errors="replace").splitlines()[-20:])
        raise NotUp(f"No login within {BOOT_SECONDS} s; the console's last lines:\n{last}")

    def reboot(self) -> tuple[float, float]:
        """Returns the seconds until everything had ended, and those until a login.

        QEMU ends with it and starts anew: a reset of an emulated machine was seen to hang.
        """
        began = time.monotonic()
        self.run("systemctl reboot", user="root")
        try:
            self.process.wait(BOOT_SECONDS)
        except subprocess.TimeoutExpired:
            raise NotUp(f"It did not end within {BOOT_SECONDS} s of `systemctl reboot`.") from None
        ended = time.monotonic() - began
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        return ended, self.wait()

    def _ssh(self, user: str) -> list[str]:
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "BatchMode": "yes",
            "ConnectTimeout": str(ATTEMPT_SECONDS),
            "ServerAliveInterval": "60",
            "ServerAliveCountMax": "10",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", *words, "-i", str(self.key), "-p", str(self.port), f"{user}@127.0.0.1"]


def has_hardware() -> bool:
    """Whether processors can be lent to a virtual machine; the device may be there although they cannot."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return Path("/dev/kvm").exists() and (" vmx" in flags or " svm" in flags)


@contextmanager
def booted(image: Image, folder: Path, *, is_emulated: bool) -> Iterator[Guest]:
    """The virtual machine, which ends with the block. Its port for SSH is on loopback."""
    (port,) = free_ports(1)
    console = folder / "console.log"
    options = {
        "accel": "tcg,thread=multi" if is_emulated else "kvm",
        "cpu": "Haswell-noTSX" if is_emulated else "host",
        "smp": PROCESSORS,
        "m": MEMORY,
        "display": "none",
        "monitor": "none",
        "chardev": f"file,id=console,path={console},append=on",
        "serial": "chardev:console",
        "kernel": str(image.kernel),
        "initrd": str(image.initrd),
        "append": "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off quiet",
        "drive": f"file={image.disk},format=raw,if=virtio,cache=unsafe",
        "netdev": f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22",
        "device": "virtio-net-pci,netdev=net",
    }
    words = [word for name, value in options.items() for word in (f"-{name}", value)]
    command = ["qemu-system-x86_64", "-no-reboot", *words]
    machine = Guest(port, image.key, console, command, subprocess.Popen(command, stdin=subprocess.DEVNULL))
    try:
        yield machine
    finally:
        machine.process.terminate()
        machine.process.wait()
