"""Provides the tools of tools.toml that this machine lacks, each once, in a cache keyed by content.

``python -m local.tools.build --bin FOLDER`` links every command into FOLDER and every Pulumi plugin into PULUMI_HOME.
A tool comes from PATH if it is there in the pinned version, else from its publisher, verified by its sum, else from its
Go module, compiled here.

The cache holds ``tools/<name>-<key>/``. The key is a hash of the module's folder and of its entry in tools.toml, or of
the published file's sum, so versions do not replace each other, and an older commit still finds its own.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from local.tools import download, recipe
from local.tools.download import Transfers, Unavailable, WrongSum, answering
from local.tools.golang import Builder, go_command
from local.tools.recipe import PLUGINS, BuildError, Tool, cache_folder

PLUGIN_SECONDS = 300
PURPOSES: Final = ("program", "cluster", "lint")
WAYS: Final = {
    "any": "from its publisher, or compiled if that cannot be reached (the default)",
    "build": "compiled from its Go module",
    "download": "from its publisher; nothing is compiled",
}


def on_path(tool: Tool) -> dict[str, Path]:
    """The tool's commands on PATH if all are there in exactly the pinned version, else nothing."""
    found = {command: Path(path).resolve() for command in tool.packages if (path := shutil.which(command))}
    if not tool.probe or len(found) < len(tool.packages):
        return {}
    answer = subprocess.run(tool.probe, capture_output=True, text=True, timeout=60, check=False)
    return found if re.search(rf"(?<![\d.]){re.escape(tool.version)}(?![\d.])", answer.stdout + answer.stderr) else {}


def reuse(commands: dict[str, Path], target: Path) -> None:
    for command, path in commands.items():
        (target / "bin" / command).symlink_to(path)
    record = {str(path): path.stat().st_mtime_ns for path in commands.values()}
    (target / "reused.json").write_text(json.dumps(record))


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """One build at a time on a machine: a second one waits, then finds the tools in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "tools.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another `make tools` is building: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def provide(tools: Sequence[Tool], go: dict[str, str], cache: Path, way: str = "any") -> dict[str, Path]:
    """Ensure that every tool is in the cache; returns name -> folder.

    Raises:
        BuildError: a tool cannot be had in the way that is asked for.
        WrongSum: a downloaded file is not the published one.
    """
    (cache / "tools").mkdir(parents=True, exist_ok=True)
    if _missing(tools, cache, way):
        with locked(cache):
            for tool in _missing(tools, cache, way):
                _reuse(tool, cache)
            why = {} if way == "build" else _download(_missing(tools, cache, way), cache)
            if way != "build":
                why |= _install_plugins(tools, cache)
            _compile(_missing(tools, cache, way), go, cache, way, why)
    return {tool.name: tool.find(cache, way) or tool.compiled(cache) for tool in tools}


def _missing(tools: Sequence[Tool], cache: Path, way: str) -> list[Tool]:
    return [tool for tool in tools if not tool.find(cache, way)]


@contextlib.contextmanager
def _making(folder: Path) -> Iterator[Path]:
    """A folder beside its final place, which it gets only if it is whole."""
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        result = Path(scratch) / "result"
        (result / "bin").mkdir(parents=True)
        yield result
        result.rename(folder)


def _reuse(tool: Tool, cache: Path) -> None:
    if commands := on_path(tool):
        with _making(tool.compiled(cache)) as result:
            reuse(commands, result)
        print(f"{tool} found on PATH", flush=True)


def _download(tools: Sequence[Tool], cache: Path) -> dict[str, str]:
    """Get from their publishers what has a pinned sum; returns name -> why a tool could not be had."""
    archives = {tool.name: archive for tool in tools if (archive := tool.archive)}
    if not archives:
        return {}
    why: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache / "tools") as scratch:
        files = Transfers(Path(scratch)).fetch(set(archives.values()))
        for tool in tools:
            found = files.get(archives[tool.name]) if tool.name in archives else None
            if isinstance(found, str):
                why[tool.name] = found
            elif found:
                try:
                    with _making(tool.downloaded(cache)) as result:
                        download.unpack(found, {name: result / "bin" / name for name in tool.members})
                except Unavailable as error:
                    why[tool.name] = str(error)
    return why


def _install_plugins(tools: Sequence[Tool], cache: Path) -> dict[str, str]:
    """Install with Pulumi what it publishes without a sum; returns name -> why a plugin could not be had."""
    pulumi = next((folder for tool in tools if tool.name == "pulumi" and (folder := tool.find(cache, "any"))), None)
    plugins = [tool for tool in _missing(tools, cache, "any") if tool.is_installable]
    if not (pulumi and plugins):
        return {}
    if not answering([PLUGINS]):
        return dict.fromkeys((tool.name for tool in plugins), f"no answer from {PLUGINS}")
    why = {}
    for tool in plugins:
        with tempfile.TemporaryDirectory(prefix=".plugin-", dir=cache / "tools") as home:
            name = tool.name.removeprefix("pulumi-resource-")
            command = [str(pulumi / "bin" / "pulumi"), "plugin", "install", "resource", name, tool.version]
            environment = os.environ | {"PULUMI_HOME": home}
            done = subprocess.run(
                [*command, "--server", PLUGINS],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=PLUGIN_SECONDS,
            )
            program = Path(home) / "plugins" / f"resource-{name}-v{tool.version}" / tool.name
            if done.returncode or not program.exists():
                why[tool.name] = f"pulumi plugin install failed: {done.stderr.strip().splitlines()[-1:]}"
                continue
            with _making(tool.downloaded(cache)) as result:
                program.rename(result / "bin" / tool.name)
            print(f"{tool} installed by `pulumi plugin install`", flush=True)
    return why


def _compile(tools: Sequence[Tool], go: dict[str, str], cache: Path, way: str, why: dict[str, str]) -> None:
    if not tools:
        return
    reasons: dict[str, list[str]] = {}
    for tool in tools:
        reasons.setdefault(why.get(tool.name, "no sum of a published file is pinned"), []).append(str(tool))
    if way == "download":
        lines = "\n".join(f"  {', '.join(names)}: {reason}" for reason, names in reasons.items())
        raise BuildError(f"TOOLS=download compiles nothing, and these are missing:\n{lines}\nRun: make tools TOOLS=any")
    if way == "any":
        for reason, names in reasons.items():
            print(f"{reason}: compiling {', '.join(names)}")
    minutes = max(1, round(sum(tool.minutes for tool in tools) / (os.cpu_count() or 1)))
    print(f"Compiling takes about {minutes} min on this machine, once.", flush=True)
    for number, tool in enumerate(tools, 1):
        with _making(tool.compiled(cache)) as result:
            go_binary = go_command(go["version"], go["package"], cache)
            label = f"[{number}/{len(tools)}] {tool}"
            Builder(tool, go_binary, cache / "logs" / f"{tool.name}.log", label, result).build()


def link(tools: list[Tool], folders: dict[str, Path], commands: Path, pulumi_home: Path) -> None:
    """Link commands and plugins from the cache to where a shell and Pulumi's engine look for them."""
    commands.mkdir(parents=True, exist_ok=True)
    for tool in tools:
        place = commands
        if tool.plugin:
            # Not on PATH, because the engine warns about each plugin that it finds there.
            place = pulumi_home / "plugins" / f"{tool.name.removeprefix('pulumi-')}-v{tool.version}"
            place.mkdir(parents=True, exist_ok=True)
        for path in (folders[tool.name] / "bin").iterdir():
            replace_link(place / path.name, path)
        if (share := folders[tool.name] / "share").is_dir():
            replace_link(commands.parent / f"share-{tool.name}", share)


def replace_link(path: Path, target: Path) -> None:
    """Make a symbolic link point to a target, at every moment to the old or the new one."""
    if path.is_symlink() and path.readlink() == target:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.symlink_to(target)
    temporary.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Example: python -m local.tools.build --bin .state/bin --pulumi-home .state/pulumi",
    )
    parser.add_argument("--bin", type=Path, required=True, help="folder for links to the commands")
    parser.add_argument("--pulumi-home", type=Path, required=True, help="PULUMI_HOME, for the plugins")
    parser.add_argument("--only", nargs="+", metavar="TOOL", help="names from tools.toml (default: all)")
    parser.add_argument("--purpose", nargs="+", choices=PURPOSES, default=PURPOSES, help="what for (default: all)")
    ways = "; ".join(f"{way}: {text}" for way, text in WAYS.items())
    parser.add_argument("--way", choices=WAYS, default="any", help=ways)
    options = parser.parse_args()
    go, known = recipe.load()
    tools = [
        tool for tool in known if tool.purpose in options.purpose and (not options.only or tool.name in options.only)
    ]
    if unknown := set(options.only or ()) - {tool.name for tool in known}:
        parser.error(f"not in tools.toml: {', '.join(sorted(unknown))}")
    try:
        folders = provide(tools, go, cache_folder(), options.way)
        link(tools, folders, options.bin.absolute(), options.pulumi_home.absolute())
    except (BuildError, WrongSum) as error:
        print(f"\nmake tools: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake tools: stopped; run it again to continue with the next tool", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
