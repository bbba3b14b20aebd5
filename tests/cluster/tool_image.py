"""The tool image of the pipelines, built from the local base image and the tools and packages of this machine.

It builds local/tools/ci.Dockerfile as it is. What stands for its two public base images, images/base.Dockerfile, has
already what each step would download, so that the step only does the rest. Whether the publishers' files can be had, it
does not show.

``python -m tests.cluster.tool_image`` makes what the tests need a network for; `make for-clusters ALL=true` runs it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from local.cluster import base_image
from local.cluster.layout import REGISTRY
from local.tools import recipe

if TYPE_CHECKING:
    from tests.cluster.conftest import Project

DOCKERFILES: Final = Path(__file__).parent / "images"
PACKAGES: Final = ("git", "make")
"""What ci.Dockerfile installs, and the local base image lacks."""
BASES: Final[Mapping[str, str]] = {"python:3.11-bookworm": "full", "python:3.11-slim-bookworm": "slim"}
"""Public base image of ci.Dockerfile -> what stands for it in base.Dockerfile."""
IMAGE: Final = f"{REGISTRY}/ci/preview:test"
NOT_MODULES: Final = ("gcp", "gitlab")
"""Plugins of Pulumi's that only its releases have; the stack local uses neither, so an empty program will do."""


def fetch() -> None:
    """Makes the base image, for which Debian's packages are downloaded."""
    base_image.ensure_made(PACKAGES)


@dataclass(frozen=True, kw_only=True)
class ToolImage:
    """Builds the image, and runs jobs in it.

    Attributes:
        project: whose BuildKit and registry are used.
        checkout: of the commit whose image it is, and whose jobs run in it.
        scratch: an empty folder.
    """

    project: Project
    checkout: Path
    scratch: Path

    def build(self) -> str:
        """Builds it; returns the name under which it is in the local registry."""
        base_image.ensure_pushed(PACKAGES)
        for name in BASES.values():
            self._build(
                DOCKERFILES,
                "base.Dockerfile",
                options={"target": name, "build-arg:BASE": base_image.name_of(PACKAGES)},
                folders={"packages": self._packages, "tools": self._tools(), "plugins": self._plugins()},
                output=f"type=image,name={REGISTRY}/base/{name}:test,push=true,compression=uncompressed",
            )
        self._build(
            self.checkout / "local" / "tools",
            "ci.Dockerfile",
            options={f"context:{base}": f"docker-image://{REGISTRY}/base/{name}:test" for base, name in BASES.items()},
            folders={"context": self.checkout},
            output=f"type=image,name={IMAGE},push=true,compression=uncompressed",
        )
        return IMAGE

    def run_preview(self) -> dict[str, Any]:
        """Runs the preview job of .gitlab-ci.yml for the stack local; returns GitLab's report."""
        pipeline = yaml.safe_load((self.checkout / ".gitlab-ci.yml").read_text())
        script = [*pipeline["default"]["before_script"], *pipeline[".preview"]["script"]]
        state, environment = self.project.folder / ".state", self.project.environment
        files, wheels, results = (self.scratch / name for name in ("files", "wheels", "results"))
        files.mkdir()
        shutil.copy(environment["KUBECONFIG"], files / "kubeconfig")
        # Not as links to where they are cached, which is not in the image.
        shutil.copytree(state / "wheels", wheels)
        self._build(
            DOCKERFILES,
            "job.Dockerfile",
            options={
                "build-arg:IMAGE": IMAGE,
                "build-arg:SCRIPT": "\n".join(script),
                "build-arg:BACKEND": str(state / "backend"),
                "build-arg:PULUMI_CONFIG_PASSPHRASE": environment["PULUMI_CONFIG_PASSPHRASE"],
            },
            folders={"checkout": self.checkout, "files": files, "backend": state / "backend", "wheels": wheels},
            output=f"type=local,dest={results}",
        )
        report: dict[str, Any] = json.loads((results / "local.terraform.json").read_text())
        return report

    def _build(
        self, folder: Path, file: str, *, options: Mapping[str, str], folders: Mapping[str, Path], output: str
    ) -> None:
        """Builds a Dockerfile.

        Args:
            folder: of the Dockerfile.
            folders: name of a context -> its folder; ``context`` is the main one.
        """
        instance = self.project.folder / ".state" / "buildx" / "instances" / "model-serving"
        address = json.loads(instance.read_text())["Nodes"][0]["Endpoint"]
        # Each is a context of that name; without a main one, the folder of the Dockerfile is that.
        named = {f"context:{name}": f"local:{name}" for name in folders if name != "context"}
        places = {"context": folder, **folders, "dockerfile": folder}
        self.project.run(
            *("buildctl", "--addr", address, "build", "--progress=plain", "--frontend", "dockerfile.v0"),
            *_repeated("--local", places),
            *_repeated("--opt", {"filename": file, **options, **named}),
            *("--output", output),
        )

    @property
    def _packages(self) -> Path:
        return (self.project.folder / ".venv").resolve()

    def _tools(self) -> Path:
        """The tools of the image in a cache as local/tools/build.py has it, and no links to another place."""
        folder = self.scratch / "tools"
        if not folder.exists():
            words = re.search(r"--only ([\w -]+)", (self.checkout / "local" / "tools" / "ci.Dockerfile").read_text())
            assert words
            for tool in recipe.load()[1]:
                if tool.name in words[1].split():
                    found = tool.find(recipe.cache_folder(), "any")
                    assert found, f"{tool} is missing: make all-tools"
                    shutil.copytree(found, folder / found.name, ignore=shutil.ignore_patterns("reused.json"))
        return folder

    def _plugins(self) -> Path:
        folder = self.scratch / "plugins"
        requirements = (self.checkout / "requirements.txt").read_text()
        for name in NOT_MODULES:
            version = re.search(rf"^pulumi-{name}==([\d.]+)", requirements, re.MULTILINE)
            assert version, name
            place = folder / f"resource-{name}-v{version[1]}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"pulumi-resource-{name}").touch(0o755)
        return folder


def _repeated(option: str, values: Mapping[str, object]) -> Sequence[str]:
    return [word for name, value in values.items() for word in (option, f"{name}={value}")]


if __name__ == "__main__":
    fetch()
