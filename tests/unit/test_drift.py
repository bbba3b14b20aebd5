from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from model_serving.__main__ import main
from model_serving.hosts import SiteError
from model_serving.hosts.site import WARNING, Run
from model_serving.pipelines import audit, drift
from model_serving.pipelines.audit import Advisory
from model_serving.pipelines.backend import Update
from model_serving.pipelines.changes import Change, Preview
from model_serving.pipelines.values import Difference
from model_serving.problems import Failure

COMMIT = "a" * 40
DEPLOYED = Update(COMMIT, datetime(2026, 11, 23, 12, tzinfo=UTC), "succeeded", "https://gitlab.example.com/pipelines/7")
CHANGED = Preview(
    stack="dev",
    commit=COMMIT,
    outcome="ok",
    changes=(
        Change(
            operation="update",
            kind="Repository",
            token="gcp:artifactregistry/repository:Repository",  # noqa: S106 - a type's token
            name="images",
            component="Registry",
            differences=(Difference(path="dockerConfig.immutableTags", old="false", new="true"),),
        ),
    ),
    unchanged=7,
)
SAME = Preview(stack="dev", commit=COMMIT, outcome="ok", unchanged=8)


class Site:
    """Remembers what it is asked to do."""

    name = "GitLab"
    note_limit = 20_000
    is_fork = False

    def __init__(self) -> None:
        self.issues: dict[str, tuple[str, str]] = {}
        self.refuses = False

    def this_run(self) -> Run:
        return Run(name="job drift dev of pipeline 7", url="https://gitlab.example.com/jobs/8")

    def upsert_issue(self, marker: str, title: str, body: str) -> None:
        self._refuse()
        self.issues[marker] = title, body

    def close_issue(self, marker: str, comment: str) -> bool:
        self._refuse()
        assert "job drift dev of pipeline 7" in comment
        return self.issues.pop(marker, None) is not None

    def warn(self, text: str) -> int:
        print(f"WARNING: {text}")
        return WARNING

    def _refuse(self) -> None:
        if self.refuses:
            raise SiteError(what="GitLab answered 403", consequence="No issue.", remedy="Give the token the scope api.")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site()
    monkeypatch.setattr(drift, "here", lambda environ: site)
    return site


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what a look finds."""

    def find(found: Preview, deployed: Update | None = DEPLOYED) -> None:
        def look(stack: str, environ: Mapping[str, str]) -> drift.Drift:
            return drift.Drift(found, deployed, {each.name: "gcloud logging read" for each in found.changes})

        monkeypatch.setattr(drift, "look", look)

    return find


@pytest.fixture(autouse=True)
def advisories(monkeypatch: pytest.MonkeyPatch) -> list[Advisory]:
    """What an audit finds; nothing, unless a test adds to it."""
    found: list[Advisory] = []
    monkeypatch.setattr(audit, "locks", lambda names: {})
    monkeypatch.setattr(audit, "advisories", lambda locks: found)
    return found


def run() -> int:
    return main(["drift", "--stack", "dev"])


def test_drift_opens_one_issue_and_its_end_closes_it(site: Site, finds: Callable[..., None]) -> None:
    finds(CHANGED)
    assert run() == drift.DRIFTED
    assert run() == drift.DRIFTED
    ((marker, (title, body)),) = site.issues.items()
    assert marker == "<!-- model-serving: drift dev -->"
    assert title == "dev has drifted"
    assert "immutableTags" in body
    assert f"git checkout {COMMIT}\npython -m model_serving deploy --stack dev --refresh" in body
    assert "`aaaaaaaaaa` at 2026-11-23 12:00 UTC by [`a pipeline`](https://gitlab.example.com/pipelines/7)" in body
    assert "- `images`: `gcloud logging read`" in body
    finds(SAME)
    assert run() == 0
    assert site.issues == {}


VULNERABLE = Advisory(
    package="starlette", version="0.46.2", name="CVE-2025-54121", fixed_in="0.47.2", concerns=("iris-dtc 1.0",)
)


def test_the_issue_about_drift_has_known_vulnerabilities_too(
    site: Site, finds: Callable[..., None], advisories: list[Advisory]
) -> None:
    advisories.append(VULNERABLE)
    finds(CHANGED)
    assert run() == drift.DRIFTED
    ((title, body),) = site.issues.values()
    assert title == "dev has drifted"
    assert "immutableTags" in body
    assert "| `starlette` | `0.46.2` | `CVE-2025-54121` | 0.47.2 | `iris-dtc 1.0` |" in body


def test_known_vulnerabilities_without_drift_are_an_issue_and_no_drift(
    site: Site, finds: Callable[..., None], advisories: list[Advisory]
) -> None:
    advisories.append(VULNERABLE)
    finds(SAME)
    assert run() == 0
    ((title, body),) = site.issues.values()
    assert title == "dev has packages with known vulnerabilities"
    assert "`CVE-2025-54121`" in body
    assert "no longer what was deployed" not in body
    advisories.clear()
    assert run() == 0
    assert site.issues == {}


def test_advisories_that_are_not_known_are_said_and_change_nothing(
    site: Site, finds: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(locks: Mapping[str, Path]) -> list[Advisory]:
        raise Failure("the advisories about the locked packages are not known: no answer")

    monkeypatch.setattr(audit, "advisories", fail)
    finds(CHANGED)
    assert run() == drift.DRIFTED
    assert "are not known: no answer" in capsys.readouterr().err
    ((title, body),) = site.issues.values()
    assert title == "dev has drifted"
    assert "vulnerabilities" not in body


def metadata(token: str, operation: str, **state: object) -> dict[str, object]:
    return {"type": token, "op": operation, "urn": f"urn:pulumi:dev::p::{token}::iris", "new": state, "old": state}


@pytest.mark.parametrize(
    ("of", "trace"),
    [
        (
            metadata(
                "kubernetes:apps/v1:Deployment",
                "update",
                outputs={
                    "metadata": {
                        "managedFields": [
                            {"manager": "pulumi-kubernetes-1", "time": "2026-11-23T12:00:00Z"},
                            {"manager": "kubectl-edit", "time": "2026-11-24T12:00:00Z"},
                        ]
                    }
                },
            ),
            "written by kubectl-edit at 2026-11-24T12:00:00Z",
        ),
        (
            metadata(
                "kubernetes:core/v1:Service", "delete", outputs={"metadata": {"name": "iris", "namespace": "models"}}
            ),
            "kubectl get service iris --namespace models --show-managed-fields --output yaml",
        ),
        (
            metadata("gcp:storage/bucket:Bucket", "update", inputs={"name": "acme-data"}),
            """gcloud logging read 'protoPayload.resourceName:"acme-data" AND timestamp>="2026-11-23T12:00:00Z"'""",
        ),
        (metadata("gitlab:index:Project", "update"), "the audit log of gitlab, since 2026-11-23T12:00:00Z"),
    ],
)
def test_each_change_says_who_made_it_or_how_to_find_out(of: dict[str, object], trace: str) -> None:
    assert drift._trace(of, DEPLOYED) == trace


def test_what_is_gone_is_said_to_be_deleted(site: Site, finds: Callable[..., None]) -> None:
    gone = CHANGED.changes[0].model_copy(update={"operation": "delete", "differences": ()})
    finds(CHANGED.model_copy(update={"changes": (gone,)}))
    assert run() == drift.DRIFTED
    ((_, body),) = site.issues.values()
    assert "- Repository images was deleted" in body


def test_an_issue_that_is_not_written_is_in_the_log_and_no_success(
    site: Site, finds: Callable[..., None], advisories: list[Advisory], capsys: pytest.CaptureFixture[str]
) -> None:
    site.refuses = True
    finds(CHANGED)
    assert run() == drift.DRIFTED
    finds(SAME)
    advisories.append(VULNERABLE)
    assert run() == WARNING
    said = capsys.readouterr()
    assert "Give the token the scope api." in said.err
    assert "known vulnerability: CVE-2025-54121 of starlette 0.46.2, fixed in 0.47.2\n" in said.out
    assert said.out.endswith("WARNING: the issue was not updated: GitLab answered 403.\n")


def test_no_value_is_a_command_to_githubs_runner(
    finds: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    change = CHANGED.changes[0].model_copy(update={"name": "x##[error]y"})
    finds(CHANGED.model_copy(update={"changes": (change,)}))
    assert run() == drift.DRIFTED
    assert "x## [error]y" in capsys.readouterr().out


def test_a_preview_that_failed_leaves_the_issue_alone(
    site: Site, finds: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    finds(CHANGED)
    run()
    finds(SAME.model_copy(update={"outcome": "failed", "why": "The program failed."}))
    assert run() == 1
    assert len(site.issues) == 1
    assert "is not known: The program failed." in capsys.readouterr().err


def test_who_cannot_look_says_why(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(stack: str, environ: Mapping[str, str]) -> drift.Drift:
        raise Failure("no key.\n  …\n  Ask for it.")

    monkeypatch.setattr(drift, "look", refuse)
    assert run() == 1
    assert "Ask for it." in capsys.readouterr().err


def test_a_long_issue_says_what_it_leaves_out(site: Site, finds: Callable[..., None]) -> None:
    site.note_limit = 4_000
    many = tuple(CHANGED.changes[0].model_copy(update={"name": f"images-{number}"}) for number in range(200))
    finds(CHANGED.model_copy(update={"changes": many}))
    run()
    ((_, body),) = site.issues.values()
    assert len(body) <= site.note_limit
    assert "Left out because notes are limited to 4,000 characters" in body
