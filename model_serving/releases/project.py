"""The file ``release.yaml`` of a model's repository.

It names the model, the output of training, the destination of releases, and the contents of a merge request's report.
"""

import json
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from model_serving.catalog.releases import NAME_FORM, is_name
from model_serving.git import without_account
from model_serving.releases.yaml_files import read_yaml
from model_serving.sections import RemoteUrl, Section, possible_branch, reachable, wrong

FILE: Final = "release.yaml"
Kind = Literal["gitlab", "github"]
POOL: Final = r"projects/\d+/locations/global/workloadIdentityPools/[a-z][a-z0-9-]{2,30}[a-z0-9]"
ACCOUNT: Final = r"[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z0-9.:-]+\.iam\.gserviceaccount\.com"
LONGEST_NAME: Final = 255
"""Bytes of a file's name in Linux."""
BRANCH: Final = r"^[^\s~^:?*\[\\\x00-\x1f\x7f]+$"
"""Characters that a branch can have; ``possible_branch`` has the other rules."""


def _inside(value: str) -> str:
    if not value or value.startswith("/") or ".." in Path(value).parts:
        raise wrong(
            f"is {value!r}, which is outside the repository",
            "Its content differs from one machine to the next.",
            "Write a path inside the repository, from its root.",
        )
    return value


def _a_path(value: str) -> str:
    if not value.isprintable() or any(len(part.encode()) > LONGEST_NAME for part in Path(value).parts):
        raise wrong(
            f"is {json.dumps(value)}",
            "No file could have that name.",
            f"Write a path of printable characters, each name in it of up to {LONGEST_NAME} bytes.",
        )
    return value


def _of_a_model(value: str) -> str:
    if not is_name(value):
        raise wrong(
            f"is {json.dumps(value, ensure_ascii=False)}",
            "It is part of the model's URL, and a label in Kubernetes.",
            f"Write {NAME_FORM}.",
        )
    return value


RelativePath = Annotated[str, AfterValidator(_a_path), AfterValidator(_inside)]
"""Of a file or folder inside the repository."""


class Serving(Section):
    """Destination of releases."""

    repository: Annotated[str, Field(pattern=r"^(https?|file)://\S+$")] = Field(
        examples=["https://gitlab.example.com/group/serving.git"],
        description="Git address of the serving repository, without an account.",
    )
    branch: Annotated[str, Field(pattern=BRANCH), AfterValidator(possible_branch)] = Field(
        "main", examples=["main"], description="Branch that is deployed."
    )
    folder: RelativePath = Field("models", description="Folder of the releases in it.")
    delivery: Literal["merge-request", "push"] = Field(
        "merge-request",
        description="How releases get there: by a merge request (on GitHub a pull request), or by a commit on the "
        "branch.",
    )
    site: Kind | None = Field(None, description="For merge requests: what hosts it, if the host's name does not tell.")
    api: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = Field(
        None,
        examples=["https://gitlab.example.com/api/v4"],
        description="Address of the site's API; by default the usual one of the repository's host.",
    )
    project: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)+$")] | None = Field(
        None,
        examples=["group/serving"],
        description="Name of the repository in the API; by default the path of its address.",
    )

    @field_validator("repository")
    @classmethod
    def _has_no_account(cls, value: str) -> str:
        if value != without_account(value):
            raise wrong(
                "has an account in it",
                "Its password would be in the repository, in git's configuration and in every log.",
                "Write only the address; the token is in the variable MODEL_SERVING_TOKEN.",
            )
        return reachable(value) if value.startswith("http") else value

    @model_validator(mode="after")
    def _has_a_site(self) -> Self:
        if self.delivery == "merge-request" and self.known_site is None:
            raise wrong(
                "is on a host that could be GitLab or GitHub",
                "No merge request could be opened there.",
                "Write `site: gitlab` or `site: github` under serving, or `delivery: push`.",
            )
        return self

    @property
    def known_site(self) -> Kind | None:
        """As set, or as the host's name tells."""
        host = (urlsplit(self.repository).hostname or "").split(".")
        kinds: tuple[Kind, ...] = ("gitlab", "github")
        return self.site or next((kind for kind in kinds if kind in host), None)


class Artefacts(Section):
    """Storage of files that are too large for git."""

    largest_mebibytes: int = Field(
        20,
        ge=1,
        le=1000,
        description="Largest file that is released in git, in MiB. Larger ones go to the remote and are replaced by "
        "DVC pointers.",
    )
    remote: RemoteUrl | None = Field(
        None,
        examples=["gs://my-models-dvc/releases"],
        description="DVC remote for larger files: a bucket of Google Cloud Storage (gs://), S3 (s3://) or Azure "
        "(az://), with an optional path, or a folder (file:///).",
    )


class Google(Section):
    """Google's identity of the jobs that train, without a key; the platform team has the values."""

    pool: Annotated[str, Field(pattern=rf"^{POOL}$")] = Field(
        examples=["projects/123456789012/locations/global/workloadIdentityPools/serving"],
        description="Workload identity pool that trusts this repository.",
    )
    account: Annotated[str, Field(pattern=rf"^{ACCOUNT}$")] = Field(
        examples=["serving-training@acme-dev.iam.gserviceaccount.com"],
        description="Account that reads and writes the DVC bucket.",
    )

    @property
    def project(self) -> str:
        """ID of the account's project."""
        return self.account.partition("@")[2].removesuffix(".iam.gserviceaccount.com")


class Plot(Section):
    """A CSV file with a header."""

    file: RelativePath = Field(examples=["plots/history.csv"], description="The file.")
    kind: Literal["line", "confusion", "table"] = Field(
        "line",
        description="How it is shown: lines over `x`; a confusion matrix, from one row per example with the columns "
        "`actual` and `predicted`; or its first rows.",
    )
    title: str = Field("", description="Heading; by default the name of the file.")
    x: str = Field("step", description="Column of a line plot's horizontal axis.")
    rows: int = Field(10, ge=1, le=100, description="Number of rows of a table that are shown.")


class Report(Section):
    """Contents of a merge request's report."""

    params: list[RelativePath] = Field(["params.yaml"], description="Files with the parameters of training.")
    metrics: list[RelativePath] = Field(["metrics.json"], description="Files with the model's metrics.")
    better: dict[str, Literal["higher", "lower"]] = Field(
        {},
        description="Which way a metric is better, by its dotted key; of others the report shows only the change.",
    )
    plots: list[Plot] = Field([], description="Plots to show.")


class Project(Section):
    """The file."""

    name: Annotated[str, AfterValidator(_of_a_model)] = Field(
        examples=["iris-decision-tree"], description="Name of the model in the serving repository and in its URL."
    )
    build: RelativePath = Field(
        "build",
        description="Folder with the output of training to release: the artefact, request.json, response.json.",
    )
    settings: RelativePath = Field(
        "model-settings.json",
        description="MLServer's settings of the model; `$VERSION` in it is replaced by the version.",
    )
    lock: RelativePath = Field(
        "requirements.lock",
        description="Packages with which the model is trained and served, each with its hash.",
    )
    data: list[RelativePath] = Field([], description="Training data, files or folders; its hash is released.")
    serving: Serving = Field(description="Destination of releases.")
    artefacts: Artefacts = Field(Artefacts(), description="Storage of files that are too large for git.")
    google: Google | None = Field(None, description="Google's identity of the jobs that train.")
    report: Report = Field(Report(), description="Contents of a merge request's report.")

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
    """Reads the file in the root of a model's repository."""
    return read_yaml(
        folder / FILE,
        Project,
        file=FILE,
        consequence="The model and the destination of its releases are unknown.",
        remedy="Write at least name and serving.repository.",
    )
