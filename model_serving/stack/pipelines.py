"""What a stack says of the pipelines: the keys under ``model-serving:ci``.

Plain Python: the commands of pipelines read it without Pulumi. A stack without this section, such as local, is not
deployed by a pipeline.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from model_serving.sections import Identifier, Section, possible_bucket

Tier = Literal["production", "staging", "testing", "development", "other"]
"""GitLab's tiers, https://docs.gitlab.com/ci/environments/#deployment-tier-of-environments."""
LAST: Final = 1000
_BACKEND: Final = r"^((gs|s3|azblob)://[^/\s@]+(/\S*)?|file://\S+|https://[^\s@]+)$"


class ReviewSettings(Section):
    """Serve the releases that a merge request adds on this stack, before it is merged."""

    hours: int = Field(
        24,
        ge=1,
        le=720,
        examples=[8],
        json_schema_extra={
            "consequence": "What a forgotten merge request serves would take up the cluster.",
            "remedy": "Write 1 to 720 (30 days); each push starts the time again.",
        },
        description="Hours after the last push at which a review is removed, if its merge request is still open then.",
    )


class CiSettings(Section):
    """How pipelines treat this stack. Its environment in GitLab and GitHub has the stack's name."""

    order: int = Field(
        ge=1,
        le=LAST,
        examples=[1],
        description="Place in the sequence in which main is deployed: a stack waits for all that have a lower number.",
    )
    tier: Tier = Field("development", description="What the environment is, for GitLab's overview and its permissions.")
    approval: bool = Field(
        False,
        description="A person has to approve each deployment: the environment is protected, and the job waits.",
    )
    project_number: Identifier | None = Field(
        None,
        description="Number of the Google project, which `gcloud projects describe PROJECT "
        "--format='value(projectNumber)'` prints. Jobs name it when they exchange their token.",
    )
    backend: Annotated[str, Field(pattern=_BACKEND), AfterValidator(possible_bucket)] | None = Field(
        None,
        examples=["gs://my-models-dev-pulumi-state"],
        description="PULUMI_BACKEND_URL of the jobs. Without it the bucket under gcp.state.",
    )
    review: ReviewSettings | None = Field(
        None,
        examples=[{}],
        description="Serve the releases that a merge request adds, each under a path of its own, until it is merged or "
        "closed. Write `review: {}` to enable it. Not on stacks with approval or of the tier production; with a gcp "
        "section, only with Google's internal gateway; without one, not with an agent section.",
    )
