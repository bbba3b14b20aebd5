"""The tools of tools.toml: what each is made of, and its place in the cache."""

import hashlib
import json
import os
import platform
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
# The linker's -s drops debugging information anyway; not generating it saves a tenth of the compiler's time.
COMPILER_FLAGS = "all=-dwarf=false"
LINKER_FLAGS = "-s -w"
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
PLUGINS: Final = "https://get.pulumi.com/releases/plugins"
"""Where `pulumi plugin install` gets Pulumi's own plugins."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A published file for one platform.

    Attributes:
        platform: ``linux-amd64``, as Go calls it.
        sum: algorithm and hexadecimal digest, ``sha256:…``.
    """

    platform: str
    url: str
    sum: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


class BuildError(Exception):
    """A tool could not be built; the text names it and shows the end of its log."""


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "model-serving"


def is_ready(target: Path) -> bool:
    """Whether the cache holds the tool, and its files are unchanged if it was reused from PATH."""
    record = target / "reused.json"
    reused = json.loads(record.read_text()) if record.exists() else {}
    return target.is_dir() and all(
        Path(name).exists() and Path(name).stat().st_mtime_ns == modified for name, modified in reused.items()
    )


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One entry of tools.toml.

    Attributes:
        packages: command name -> Go package that builds it.
        variables: Go variable -> value that the linker sets, so that the tool knows its version.
        cgo: whether C code is linked in; off if a static binary also works.
        probe: command that prints the version of an installed tool; a tool on PATH without one is never reused.
        purpose: what it is for: ``program`` for any stack, ``cluster`` for the local cluster, or ``lint``.
        minutes: processor minutes to compile it, for the message before that.
        plugin: whether it is a Pulumi plugin, which belongs in PULUMI_HOME.
        embed: files of a module that the main package embeds, copied into its folder before the build.
        file: files of a module that the tool reads at run time, copied next to it.
        download: the published archive for each platform, see `Archive`; in tools.toml also the name of another tool
            with the same archive.
    """

    name: str
    version: str
    packages: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    cgo: bool = True
    probe: list[str] = field(default_factory=list)
    purpose: str = "program"
    minutes: float = 1
    plugin: bool = False
    embed: list[dict[str, Any]] = field(default_factory=list)
    file: list[dict[str, Any]] = field(default_factory=list)
    download: list[dict[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def archive(self) -> Archive | None:
        """The published file for this platform, if its sum is known."""
        here = f"{platform.system().lower()}-{ARCHITECTURES.get(platform.machine(), platform.machine())}"
        return next((Archive(**entry) for entry in self.download if entry["platform"] == here), None)

    @property
    def members(self) -> list[str]:
        """Base names of the files that it needs of its archive."""
        return [*self.packages, *(Path(entry["target"]).name for entry in self.file)]

    @property
    def is_installable(self) -> bool:
        """Whether Pulumi's own installer has it."""
        return self.name.startswith("pulumi-resource-")

    @property
    def key(self) -> str:
        """Hash of all that decides the compiled result; neither the probe nor the place of the links does."""
        recipe = (self.packages, self.variables, self.cgo, self.embed, self.file, COMPILER_FLAGS, LINKER_FLAGS)
        digest = hashlib.sha256(repr((*recipe, platform.system(), platform.machine())).encode())
        for path in sorted((HERE / self.name).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:16]

    def compiled(self, cache: Path) -> Path:
        """Its folder in the cache if it is compiled, or reused from PATH."""
        return cache / "tools" / f"{self.name}-{self.key}"

    def downloaded(self, cache: Path) -> Path:
        """Its folder in the cache if it is downloaded."""
        source = [self.archive.sum, *self.members] if self.archive else [PLUGINS, self.version]
        return cache / "tools" / f"{self.name}-{hashlib.sha256(repr(source).encode()).hexdigest()[:16]}"

    def find(self, cache: Path, way: str) -> Path | None:
        """Its folder, if it is in the cache and may be used."""
        places = [self.compiled(cache), *([] if way == "build" else [self.downloaded(cache)])]
        return next((place for place in places if is_ready(place)), None)


def load() -> tuple[dict[str, str], list[Tool]]:
    """The Go that compiles, and the tools, as tools.toml has them."""
    pinned = tomllib.loads((HERE / "tools.toml").read_text(encoding="utf-8"))
    entries = {entry["name"]: entry for entry in pinned["tool"]}
    for entry in entries.values():
        if isinstance(other := entry.get("download"), str):  # the name of the tool that shares its archive
            entry["download"] = entries[other]["download"]
    return pinned["go"], [Tool(**entry) for entry in entries.values()]
