"""What a model's repository says of itself: ``release.yaml`` beside its code.

It names the model, where training leaves what is released, where releases go, and what a merge request's report shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from model_serving.problems import InvalidInput, Problem
from model_serving.sections import RemoteUrl, Section, problems_of, wrong

FILE: Final = "release.yaml"


def _inside(value: str) -> str:
    if not value or value.startswith("/") or ".." in Path(value).parts:
        raise wrong(
            f"is {value!r}, which leads out of the repository",
            "What is there differs from one machine to the next.",
            "Write a path inside the repository, from its root.",
        )
    return value


RelativePath = Annotated[str, AfterValidator(_inside)]
"""Of a file or folder inside the repository."""


class Serving(Section):
    """Where releases go."""

    repository: Annotated[str, Field(pattern=r"^(https?|file)://\S+$")] = Field(
        examples=["https://gitlab.example.com/group/serving.git"],
        description="Address of the serving repository for git, without an account in it.",
    )
    branch: str = Field("main", min_length=1, description="Branch that is deployed.")
    folder: RelativePath = Field("models", description="Folder of the releases in it.")
    delivery: Literal["merge-request", "push"] = Field(
        "merge-request",
        description="How a release gets there: by a merge request (on GitHub a pull request) that somebody merges, or "
        "by a commit on the branch.",
    )
    site: Literal["gitlab", "github"] | None = Field(
        None, description="What the repository is on, where its host's name does not say it; for merge requests."
    )
    api: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = Field(
        None,
        examples=["https://gitlab.example.com/api/v4"],
        description="Address of the site's API; by default the usual one at the repository's host.",
    )
    project: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)+$")] | None = Field(
        None,
        examples=["group/serving"],
        description="The repository's name in the API; by default the path of its address.",
    )

    @field_validator("repository")
    @classmethod
    def _without_account(cls, value: str) -> str:
        if "@" in value.removeprefix("https://").removeprefix("http://").partition("/")[0]:
            raise wrong(
                "has an account in it",
                "Its password would be in the repository, in git's configuration and in every log.",
                "Write the address alone; the token is in the variable MODEL_SERVING_TOKEN.",
            )
        return value

    @model_validator(mode="after")
    def _has_a_site(self) -> Self:
        if self.delivery == "merge-request" and self.known_site is None:
            raise wrong(
                "is on a host of which nobody knows whether it is GitLab or GitHub",
                "No merge request could be opened there.",
                "Write `site: gitlab` or `site: github` under serving, or `delivery: push`.",
            )
        return self

    @property
    def known_site(self) -> Literal["gitlab", "github"] | None:
        """What is said, or what the host's name says."""
        host = urlsplit(self.repository).hostname or ""
        by_name: dict[str, Literal["gitlab", "github"]] = {"gitlab": "gitlab", "github": "github"}
        return self.site or next((by_name[word] for word in host.split(".") if word in by_name), None)


class Artefacts(Section):
    """Where files go that are too large for git."""

    largest_mebibytes: int = Field(
        20,
        ge=1,
        le=1000,
        description="MiB up to which a file is released in git; a larger one goes to the remote, and a DVC pointer is "
        "released in its place.",
    )
    remote: RemoteUrl | None = Field(
        None,
        examples=["gs://my-models-dvc/releases"],
        description="DVC remote for larger files: a bucket of Google Cloud Storage (gs://), S3 (s3://) or Azure "
        "(az://), with an optional path, or a folder (file:///).",
    )


class Plot(Section):
    """A table of numbers, as a file of comma-separated values with a head."""

    file: RelativePath = Field(examples=["plots/history.csv"], description="The file.")
    kind: Literal["line", "confusion", "table"] = Field(
        "line",
        description="How it is shown: lines over `x`; a confusion matrix, from a row per example with the columns "
        "`actual` and `predicted`; or its first rows as they are.",
    )
    title: str = Field("", description="Above it; by default the name of the file.")
    x: str = Field("step", description="Column of a line plot's horizontal axis.")
    rows: int = Field(10, ge=1, le=100, description="Rows of a table that are shown.")


class Report(Section):
    """What a merge request's report compares with the branch it goes to."""

    params: list[RelativePath] = Field(["params.yaml"], description="Files with what training was given.")
    metrics: list[RelativePath] = Field(["metrics.json"], description="Files with how good the model is.")
    better: dict[str, Literal["higher", "lower"]] = Field(
        {},
        description="Which way a metric is better, by its key with dots; of others the report tells the change alone.",
    )
    plots: list[Plot] = Field([], description="What is drawn.")


class Project(Section):
    """The file."""

    name: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=63)] = Field(
        examples=["iris-decision-tree"], description="The model's name in the serving repository and in its URL."
    )
    build: RelativePath = Field(
        "build",
        description="Folder in which training leaves what is released: the artefact, request.json, response.json.",
    )
    settings: RelativePath = Field(
        "model-settings.json",
        description="MLServer's settings of the model; `$VERSION` in it becomes the version.",
    )
    lock: RelativePath = Field(
        "requirements.lock",
        description="What the model is trained with and served with, each package with its hash.",
    )
    data: list[RelativePath] = Field(
        [], description="Files and folders that it learns from; their hash is released with it."
    )
    serving: Serving = Field(description="Where releases go.")
    artefacts: Artefacts = Field(Artefacts(), description="Where files go that are too large for git.")
    report: Report = Field(Report(), description="What a merge request's report shows.")

    @field_validator("build")
    @classmethod
    def _is_a_folder_of_its_own(cls, value: str) -> str:
        if Path(value) == Path():
            raise wrong(
                f"is {value}",
                "The whole repository would be released.",
                "Write the name of a folder that holds what is released and nothing else.",
            )
        return value


def read(folder: Path) -> Project:
    """Reads the file in the root of a model's repository.

    Raises:
        InvalidInput: with every mistake.
    """
    path = folder / FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unreadable(
            "is missing",
            f"Write it in {folder}: name and serving.repository are what it needs.",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())
        raise _unreadable(f"is no YAML: {told}", "Correct it there.") from None
    if not isinstance(content, dict):
        raise _unreadable("holds no keys", "Write name and serving.repository.")
    try:
        return Project.model_validate(content)
    except ValidationError as error:
        raise InvalidInput(problems_of(error, Project, file=FILE)) from None


def _unreadable(what: str, remedy: str) -> InvalidInput:
    consequence = "Nobody could tell which model this is and where its releases go."
    return InvalidInput([Problem(file=FILE, what=what, consequence=consequence, remedy=remedy)])
