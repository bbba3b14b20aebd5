"""Jobs that train get a token of the account training by Google's own client: keyless on both sites, or with a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth
import pytest
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

from model_serving.pipelines import credentials, google_token
from model_serving.releases.project import Project
from tests import google_identity
from tests.google_identity import TOKEN, Google

POOL = "projects/4711/locations/global/workloadIdentityPools/serving"
ACCOUNT = "serving-training@acme-dev.iam.gserviceaccount.com"
PROJECT = Project.model_validate(
    {
        "name": "wine",
        "serving": {"repository": "https://gitlab.example/group/serving.git"},
        "google": {"pool": POOL, "account": ACCOUNT},
    }
)


@pytest.fixture(params=["gitlab", "github"])
def site(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trusting(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    provider = f"//iam.googleapis.com/{POOL}/providers/{site}"
    with google_identity.google(tmp_path, provider=provider, account=ACCOUNT, project="8") as known:
        for name, value in known.environ().items():
            monkeypatch.setenv(name, value)
        yield known


def job(site: str, known: Google, folder: Path, **claims: str) -> dict[str, str]:
    """The variables of a job of the site."""
    if site == "gitlab":
        return {"GITLAB_CI": "true", "GOOGLE_ID_TOKEN": known.signed(**claims), "RUNNER_TEMP": str(folder)}
    return {
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{known.url}/token?version=1",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job",
        "RUNNER_TEMP": str(folder),
    }


def token_of(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in credentials.environment_of_training(PROJECT, environ=environ).items():
        monkeypatch.setenv(name, value)
    found: Any = google.auth.default(scopes=google_token.SCOPES)[0]
    found.refresh(Request())
    return str(found.token)


def test_a_jobs_token_is_exchanged_for_one_of_the_account(
    site: str, trusting: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert token_of(job(site, trusting, tmp_path), monkeypatch) == TOKEN
    assert not trusting.refused


@pytest.mark.parametrize("site", ["gitlab"], indirect=True)
@pytest.mark.parametrize("claims", [{"project_id": "9"}, {"aud": "//iam.googleapis.com/other"}], ids=["project", "aud"])
def test_the_token_of_another_repository_or_for_another_provider_is_refused(
    claims: dict[str, str], trusting: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GoogleAuthError):
        token_of(job("gitlab", trusting, tmp_path, **claims), monkeypatch)
    assert trusting.refused


@pytest.mark.parametrize("site", ["gitlab"], indirect=True)
def test_a_system_without_tokens_acts_with_the_accounts_key(
    trusting: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"MODEL_SERVING_GOOGLE_KEY": trusting.key(), "RUNNER_TEMP": str(tmp_path)}
    assert token_of(environ, monkeypatch) == TOKEN
    other = json.dumps(json.loads(trusting.key()) | {"client_email": "other@acme-dev.iam.gserviceaccount.com"})
    with pytest.raises(GoogleAuthError):
        token_of(environ | {"MODEL_SERVING_GOOGLE_KEY": other}, monkeypatch)
