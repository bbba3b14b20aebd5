"""What the figures were measured on, and what else it did meanwhile."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

KIBIBYTES_PER_GIBIBYTE: Final = 1024 * 1024


def description() -> str:
    """Processor, memory and versions, as lines of Markdown."""
    cores = len(os.sched_getaffinity(0))
    lines = {
        "Processor": f"{_field('/proc/cpuinfo', 'model name')}, {cores} cores",
        "Memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / KIBIBYTES_PER_GIBIBYTE:.0f} GiB",
        "System": f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}",
        "Versions": f"Pulumi {_version('pulumi', 'version')}, Kubernetes {_version('kubelet', '--version')}, "
        f"Python {sys.version.partition(' ')[0]}",
    }
    return "\n".join(f"- {name}: {text}" for name, text in lines.items())


def load() -> str:
    """Load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def commit() -> str:
    """The commit that is checked out, and whether it is all of what runs."""
    hash_ = _run("git", "rev-parse", "--short", "HEAD")
    return hash_ + (" with changes" if _run("git", "status", "--porcelain", "--untracked-files=no") else "")


def today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def _field(path: str, name: str) -> str:
    found = re.search(rf"^{name}\s*: *(.+)$", Path(path).read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else "unknown"


def _version(*command: str) -> str:
    return _run(*command).split()[-1].removeprefix("v")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
