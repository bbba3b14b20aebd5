"""What a job shows to Google, and what it says when a stack lacks something."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import google.auth
import pytest

from model_serving import __main__ as command_line
from model_serving.pipelines import credentials, google_token
from model_serving.problems import InvalidInput
from model_serving.releases import project
from model_serving.stack import settings
from model_serving.stack.settings import Settings
from tests.unit.conftest import serving

GCP: dict[str, Any] = {
    "project": "acme-dev",
    "region": "europe-west1",
    "name": "serving",
    "state": {"bucket": "acme-state", "key": "projects/a/locations/b/keyRings/c/cryptoKeys/d"},
    "identity": {
        "gitlab": {"projectId": 12},
        "github": {"repositoryId": 34, "ownerId": 56},
    },
}
CI = {"order": 1, "projectNumber": 4711}
PROVIDER = "//iam.googleapis.com/projects/4711/locations/global/workloadIdentityPools/serving/providers/"
GITLAB = {"GITLAB_CI": "true", "GOOGLE_ID_TOKEN": "e30.e30.c2ln"}
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://token.example/?version=1",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "shown-to-github",
}


def stack(**sections: Any) -> Settings:
    values = {"gcp": GCP, "ci": CI} | sections
    return settings.read("dev", {f"model-serving:{key}": json.dumps(value) for key, value in values.items()})


def environment(chosen: Settings, environ: dict[str, str], folder: Path, duty: str = "plan") -> dict[str, str]:
    return credentials.environment_of(chosen, stack="dev", duty=duty, environ=environ | {"RUNNER_TEMP": str(folder)})


def credential_file(made: dict[str, str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(made["GOOGLE_APPLICATION_CREDENTIALS"]).read_text(encoding="utf-8"))
    return content


def test_a_job_on_gitlab_shows_its_token_from_a_file_that_only_it_can_read(tmp_path: Path) -> None:
    file = credential_file(environment(stack(), GITLAB, tmp_path))
    token = Path(file["credential_source"]["file"])
    assert token.read_text(encoding="utf-8") == GITLAB["GOOGLE_ID_TOKEN"]
    assert token.stat().st_mode & 0o777 == 0o600
    assert file["audience"] == PROVIDER + "gitlab"


def test_a_job_on_github_asks_for_a_token_that_is_meant_for_the_provider(tmp_path: Path) -> None:
    file = credential_file(environment(stack(), GITHUB, tmp_path))
    assert file["audience"] == PROVIDER + "github"
    source = file["credential_source"]
    assert source["url"].startswith(
        "https://token.example/?version=1&audience=%2F%2Fiam.googleapis.com%2Fprojects%2F4711"
    )
    assert source["headers"] == {"Authorization": "Bearer shown-to-github"}


@pytest.mark.parametrize("duty", credentials.DUTIES)
@pytest.mark.parametrize("site", [GITLAB, GITHUB], ids=["gitlab", "github"])
def test_googles_own_client_reads_the_file(
    site: dict[str, str], duty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = environment(stack(), site, tmp_path, duty)
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    read: Any
    read, project = google.auth.default(scopes=google_token.SCOPES)
    assert project == "acme-dev"
    assert read.service_account_email == f"serving-{duty}@acme-dev.iam.gserviceaccount.com"


def test_the_pool_may_have_a_name_of_its_own(tmp_path: Path) -> None:
    chosen = stack(gcp=GCP | {"identity": GCP["identity"] | {"pool": "shared-pool"}})
    audience = credential_file(environment(chosen, GITLAB, tmp_path))["audience"]
    assert "/workloadIdentityPools/shared-pool/providers/gitlab" in audience


@pytest.mark.parametrize(("ci", "backend"), [(CI, "gs://acme-state"), (CI | {"backend": "s3://x"}, "s3://x")])
def test_the_backend_is_the_bucket_of_the_platform_unless_the_stack_says_another(
    ci: dict[str, Any], backend: str, tmp_path: Path
) -> None:
    assert environment(stack(ci=ci), GITLAB, tmp_path)["PULUMI_BACKEND_URL"] == backend


def test_docker_asks_the_helper_for_the_registrys_password_and_stores_none(tmp_path: Path) -> None:
    folder = Path(environment(stack(), GITLAB, tmp_path)["DOCKER_CONFIG"])
    helpers = {"europe-west1-docker.pkg.dev": "model-serving"}
    assert json.loads((folder / "config.json").read_text()) == {"credHelpers": helpers}
    assert "docker-credential-model-serving" in google_token.FORMS


def test_on_a_laptop_only_the_backend_is_set(tmp_path: Path) -> None:
    assert environment(stack(), {}, tmp_path) == {"PULUMI_BACKEND_URL": "gs://acme-state"}
    assert list(tmp_path.iterdir()) == []


def test_everything_that_a_stack_lacks_is_said_at_once(tmp_path: Path) -> None:
    bare = stack(gcp={"project": "acme-dev", "region": "europe-west1"}, ci={"order": 1})
    with pytest.raises(InvalidInput) as raised:
        environment(bare, GITLAB, tmp_path)
    message = str(raised.value)
    assert "make init-gcp" in message
    assert "gcp.identity.gitlab is missing" in message
    assert "gcloud projects describe acme-dev" in message
    assert len(raised.value.problems) == 3


def test_a_job_without_a_token_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="make pipelines"):
        environment(stack(), {"GITLAB_CI": "true"}, tmp_path)


def test_a_stack_without_a_cloud_needs_a_backend_alone(tmp_path: Path) -> None:
    plain = {"registry": "registry.example", "gateway": {"className": "contour"}, "ci": {"order": 1}}
    values = {f"model-serving:{key}": json.dumps(value) for key, value in plain.items()}
    values["model-serving:registry"] = "registry.example"
    with pytest.raises(InvalidInput, match=r"ci\.backend is missing"):
        environment(settings.read("own", values), GITLAB, tmp_path)
    values["model-serving:ci"] = json.dumps({"order": 1, "backend": "https://pulumi.example"})
    made = environment(settings.read("own", values), GITLAB, tmp_path)
    assert made == {"PULUMI_BACKEND_URL": "https://pulumi.example"}


def test_a_merge_request_from_a_fork_gets_no_identity_and_no_complaint(tmp_path: Path) -> None:
    fork = {
        "CI_API_V4_URL": "https://gitlab.example/api/v4",
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2",
        "CI_MERGE_REQUEST_PROJECT_ID": "1",
    }
    assert environment(stack(ci={"order": 1}), GITLAB | fork, tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_the_tokens_have_the_form_in_which_kubectl_and_docker_ask_for_them() -> None:
    # Google's client keeps UTC without saying so.
    issued = SimpleNamespace(token="ya29.token", expiry=datetime(2026, 11, 23, 22, 0, 0))  # noqa: S106
    kubernetes = google_token.for_kubernetes(issued)
    assert kubernetes["apiVersion"] == "client.authentication.k8s.io/v1beta1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", kubernetes["status"]["expirationTimestamp"])
    assert google_token.for_docker(issued) == {"Username": "oauth2accesstoken", "Secret": "ya29.token"}


@pytest.fixture
def google_asked() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Google's token services on loopback: the address, and what each was asked."""
    asked: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.append((self.path, json.loads(body) if body.startswith("{") else body))
            issued = {
                "/v1/token": {"access_token": "federated", "expires_in": 3600, "token_type": "Bearer"},
            }.get(self.path, {"accessToken": "ya29.plan", "expireTime": "2099-01-01T00:00:00Z"})
            content = json.dumps(issued).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with serving(Handler) as address:
        yield f"http://{address}", asked


def test_the_clusters_token_says_the_accounts_email(
    google_asked: tuple[str, list[tuple[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, asked = google_asked
    made = environment(stack(), GITLAB, tmp_path)
    file = Path(made["GOOGLE_APPLICATION_CREDENTIALS"])
    file.write_text(
        re.sub(r"https://(sts|iamcredentials)\.googleapis\.com", address, file.read_text(encoding="utf-8")),
        encoding="utf-8",
    )
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["/opt/bin/gke-gcloud-auth-plugin"])
    assert google_token.main() == 0
    assert json.loads(capsys.readouterr().out)["status"]["token"] == "ya29.plan"  # noqa: S105 - the stand-in's
    (requested,) = (body["scope"] for path, body in asked if path.endswith(":generateAccessToken"))
    assert {scope.rpartition("/")[2] for scope in requested} == {"cloud-platform", "userinfo.email"}


TRAINING = project.Project.model_validate(
    {
        "name": "wine",
        "serving": {"repository": "https://gitlab.example/group/serving.git"},
        "google": {
            "pool": "projects/4711/locations/global/workloadIdentityPools/serving",
            "account": "serving-training@acme-dev.iam.gserviceaccount.com",
        },
    }
)
ACCOUNT_KEY = {"type": "service_account", "client_email": "serving-training@acme-dev.iam.gserviceaccount.com"}


def training(environ: dict[str, str], folder: Path) -> dict[str, str]:
    return credentials.environment_of_training(TRAINING, environ=environ | {"RUNNER_TEMP": str(folder)})


@pytest.mark.parametrize(("site", "name"), [(GITLAB, "gitlab"), (GITHUB, "github")], ids=["gitlab", "github"])
def test_a_job_that_trains_acts_as_the_account_training_without_a_key(
    site: dict[str, str], name: str, tmp_path: Path
) -> None:
    made = training(site, tmp_path)
    assert made.keys() == {"GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"}
    assert made["GOOGLE_CLOUD_PROJECT"] == "acme-dev"
    file = credential_file(made)
    assert file["audience"] == PROVIDER + name
    assert "/serving-training@acme-dev.iam.gserviceaccount.com:" in file["service_account_impersonation_url"]


def test_a_job_that_trains_without_a_token_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"release\.yaml: the job has no GOOGLE_ID_TOKEN(.|\n)*id_tokens"):
        training({"GITLAB_CI": "true"}, tmp_path)


def test_training_on_a_laptop_or_for_a_fork_gets_no_identity(tmp_path: Path) -> None:
    fork = {
        "CI_API_V4_URL": "https://gitlab.example/api/v4",
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2",
        "CI_MERGE_REQUEST_PROJECT_ID": "1",
    }
    assert training({}, tmp_path) == {}
    assert training(GITLAB | fork, tmp_path) == {}
    without = TRAINING.model_copy(update={"google": None})
    assert credentials.environment_of_training(without, environ=GITLAB) == {}


@pytest.mark.parametrize("site", [{}, {"GITLAB_CI": "true"}], ids=["another system", "gitlab without a token"])
@pytest.mark.parametrize("form", ["base64", "json", "file"])
def test_where_a_site_signs_no_token_the_job_acts_with_its_key(site: dict[str, str], form: str, tmp_path: Path) -> None:
    text = json.dumps(ACCOUNT_KEY)
    (tmp_path / "key.json").write_text(text)
    forms = {"base64": base64.b64encode(text.encode()).decode(), "json": text, "file": str(tmp_path / "key.json")}
    made = training(site | {"MODEL_SERVING_GOOGLE_KEY": forms[form]}, tmp_path)
    assert credential_file(made) == ACCOUNT_KEY
    assert Path(made["GOOGLE_APPLICATION_CREDENTIALS"]).stat().st_mode & 0o777 == 0o600
    made = environment(stack(), site | {"MODEL_SERVING_GOOGLE_KEY": forms[form]}, tmp_path)
    assert credential_file(made) == ACCOUNT_KEY
    assert made["PULUMI_BACKEND_URL"] == "gs://acme-state"


def test_a_token_is_better_than_a_key(tmp_path: Path) -> None:
    made = training(GITLAB | {"MODEL_SERVING_GOOGLE_KEY": json.dumps(ACCOUNT_KEY)}, tmp_path)
    assert credential_file(made)["type"] == "external_account"


@pytest.mark.parametrize(
    "value", ["not base64!", "e30=", "/no/such/file", "[]", json.dumps({"type": "authorized_user"})]
)
def test_a_key_that_is_none_is_refused_and_not_shown(value: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not the key of a service account") as raised:
        training({"MODEL_SERVING_GOOGLE_KEY": value}, tmp_path)
    assert value not in str(raised.value)


def test_a_command_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["credentials", "--stack", "local", "--duty", "plan", "--", "no-such-command"]) == 1
    assert capsys.readouterr().err.startswith("no-such-command cannot be run: No such file or directory\n")


def test_a_stacks_duty_needs_its_stack(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["credentials", "--duty", "plan", "--", "true"]) == 1
    assert "--stack: is missing, and the duty is plan" in capsys.readouterr().err
