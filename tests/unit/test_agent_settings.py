"""What a stack says of the GitLab agent: every mistake with its message, and what follows from the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_serving import __main__ as commands
from model_serving.problems import InvalidInput
from model_serving.sections import Section
from model_serving.stack import gitlab_agent, settings
from tests.unit.test_gcp_settings import sections_below

ROOT = Path(__file__).resolve().parents[2]
AGENT: dict[str, Any] = {"name": "dev", "project": "acme/model-serving", "projectId": 11}
TOKEN = "glagent-not-to-be-seen"  # noqa: S105 - not one
GCP = {"project": "acme-models", "region": "europe-west1"}
Values = dict[str, Any]


def read(section: Values, *, secret: tuple[str, ...] | None = ("model-serving:agentToken",), **rest: Any) -> Any:
    whole = {"registry": "localhost:5000", "gateway": {"className": "contour"}, "agent": AGENT | section, **rest}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in whole.items()}
    values = {f"model-serving:{key}": text for key, text in texts.items()}
    return settings.read("dev", values, secret=secret)


def refusals(section: Values, **rest: Any) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        read(section, **rest)
    return [str(problem) for problem in refused.value.problems]


def test_an_agent_needs_a_name_and_a_project() -> None:
    chosen = read({}).agent
    assert chosen.kube_context == "acme/model-serving:dev"
    assert chosen.access_as == "ci_job"
    assert chosen.replicas == 2
    assert chosen.register_
    assert (chosen.chart.reference, chosen.chart.address, chosen.chart.pinned_version) == (
        "gitlab-agent",
        "https://charts.gitlab.io",
        "2.29.0",
    )


@pytest.mark.parametrize(
    ("section", "rest", "what", "remedy"),
    [
        ({"tokens": []}, {}, "agent.tokens is []", "two during a rotation"),
        ({"tokens": ["a", "b", "c"]}, {}, 'agent.tokens is ["a", "b", "c"]', "the new one last"),
        ({"tokens": ["a", "a"]}, {}, "twice the same", "Write another name"),
        ({"replicas": 1}, {}, "agent.replicas is 1", "Write 2 or more"),
        ({"environment": "Dev"}, {}, 'agent.environment is "Dev"', "starting with a letter"),
        ({"environment": "a" * 25}, {}, "agent.environment is", "at most 24"),
        ({"projectId": "eleven"}, {}, "agent.projectId is", "Settings, General"),
        ({"kas": "ws://kas.example.com"}, {}, "agent.kas is", "wss://kas.gitlab.com"),
        ({"chart": {"reference": "oci://r/c"}}, {}, "chart.version is missing", "Write the version"),
        ({"chart": {"repository": "https://c.io"}}, {}, "chart.version is missing", "Write the version"),
        (
            {"chart": {"reference": "./c", "repository": "https://c.io", "version": "1"}},
            {},
            "chart.repository is set",
            "Remove repository",
        ),
        ({"values": {"rbac": {"create": True}}}, {}, "agent.values has rbac", "Remove it"),
        ({"values": {"config": {"token": "x"}}}, {}, "agent.values has config", "Remove it"),
        ({"projects": [{"path": "a/b", "id": 11}]}, {}, "names the project 11 twice", "Remove one"),
        ({"namespace": "models"}, {}, "agent.namespace is models", "e.g. gitlab-agent"),
        ({"register": False}, {}, "agentToken is missing", "pulumi config set --secret model-serving:agentToken"),
        ({}, {"agentToken": TOKEN}, "agentToken is set, and", "pulumi config rm"),
        ({"register": False, "tokens": ["a", "b"]}, {"agentToken": TOKEN}, "tokens is a, b", "Write one name"),
        ({}, {"gcp": GCP, "kubeContext": "gke_x"}, "kubeContext is gke_x", "Write acme/model-serving:dev"),
        ({}, {"kubeContext": "acme/model-serving:dev"}, "administratorContext is missing", "get-contexts"),
        ({"administratorContext": "me"}, {"gcp": GCP}, "nothing needs it", "Remove it."),
        ({"administratorContext": "me"}, {"kubeContext": "kind"}, "nothing needs it", "as model-serving:kubeContext"),
        ({"project": "a/b/c/d", "groupIds": [1]}, {}, "has 1 of the 3 groups", "the ID of each group"),
        ({"acccessAs": "agent"}, {}, "unknown setting model-serving:agent.acccessAs", "Did you mean accessAs?"),
    ],
)
def test_a_mistake_says_what_to_write(section: Values, rest: Values, what: str, remedy: str) -> None:
    (said,) = refusals(section, **rest)
    first, _, last = said.splitlines()
    assert first.startswith("stacks/Pulumi.dev.yaml: ")
    assert "model-serving:agent" in first or "model-serving:kubeContext" in first
    assert what in first
    assert remedy in last


def test_all_mistakes_are_told_at_once() -> None:
    assert len(refusals({"tokens": ["a", "a"], "replicas": 1, "values": {"rbac": {}}, "kas": "x"})) == 4
    between = refusals({"namespace": "models", "project": "a/b/c", "register": False}, kubeContext="a/b/c:dev")
    assert len(between) == 4


def test_a_stack_whose_name_is_no_environment_has_to_name_one() -> None:
    values = {"model-serving:registry": "r", "model-serving:gateway": '{"className": "c"}'}
    values["model-serving:agent"] = json.dumps(AGENT)
    with pytest.raises(InvalidInput, match=r"environment is missing, and the stack is called Team_1"):
        settings.read("Team_1", values)


def test_a_token_is_never_seen_whatever_is_wrong_with_it() -> None:
    plain = refusals({"register": False}, agentToken=TOKEN, secret=())
    assert "agentToken is in plain text" in plain[0]
    without_agent = {"model-serving:registry": "r", "model-serving:gateway": "{}", "model-serving:agentToken": TOKEN}
    with pytest.raises(InvalidInput) as refused:
        settings.read("dev", without_agent, secret=[*without_agent])
    texts = [*plain, str(refused.value), repr(read({"register": False}, agentToken=TOKEN))]
    assert TOKEN not in "".join(texts)


def test_a_setting_that_is_encrypted_is_refused_without_its_value() -> None:
    (said,) = refusals({}, secret=("model-serving:namespace", "other:token"), namespace=TOKEN)
    assert "model-serving:namespace is encrypted" in said
    assert TOKEN not in said


def test_a_misspelt_secret_is_told_its_name_and_not_its_value() -> None:
    (said,) = refusals({}, secret=("model-serving:agentTokn",), agentTokn=TOKEN)
    assert "Did you mean agentToken?" in said
    assert TOKEN not in said


def test_a_token_without_an_agent_is_of_no_use() -> None:
    values = {"model-serving:registry": "r", "model-serving:gateway": '{"className": "c"}'}
    values["model-serving:agentToken"] = TOKEN
    with pytest.raises(InvalidInput, match="there is no model-serving:agent"):
        settings.read("dev", values, secret=["model-serving:agentToken"])


def test_jobs_are_told_apart_by_project_and_environment() -> None:
    chosen = read({"projects": [{"path": "acme/wines", "id": 12}], "groupIds": [5]}).agent
    assert chosen.groups_that_deploy("dev") == ["gitlab:project_env:11:dev", "gitlab:project_env:12:dev"]
    assert set(chosen.groups_sent("dev", "production")) == {
        "gitlab:ci_job",
        *(f"gitlab:project:{number}" for number in (11, 12)),
        *(f"gitlab:project_env:{number}:dev" for number in (11, 12)),
        *(f"gitlab:project_env_tier:{number}:production" for number in (11, 12)),
        "gitlab:group:5",
        "gitlab:group_env_tier:5:production",
    }
    assert len(chosen.groups_sent("dev", None)) == 1 + 2 + 2 + 10 + 1 + 5


@pytest.mark.parametrize(
    ("access_as", "identity"),
    [
        ("ci_job", {"ci_job": {}}),
        ("impersonate", {"impersonate": {"username": "system:serviceaccount:gitlab-agent:deploy"}}),
        ("agent", {"agent": {}}),
    ],
)
def test_the_agents_file_lets_in_protected_branches_of_one_environment(access_as: str, identity: Values) -> None:
    chosen = read({"accessAs": access_as, "projects": [{"path": "acme/wines", "id": 12}]}).agent
    content = yaml.safe_load(chosen.configuration_text("dev", "dev", "models"))
    assert content == {
        "ci_access": {
            "projects": [
                {
                    "id": path,
                    "default_namespace": "models",
                    "environments": ["dev"],
                    "protected_branches_only": True,
                    "access_as": identity,
                }
                for path in ("acme/model-serving", "acme/wines")
            ]
        }
    }


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with nothing but one stack."""
    stack = {"model-serving:registry": "r", "model-serving:gateway": {"className": "c"}, "model-serving:agent": AGENT}
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.dev.yaml").write_text(json.dumps({"config": stack}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("model_serving.pipelines.stacks.read", lambda stack: read({}))
    return tmp_path


def configuration_problems() -> list[str]:
    return [
        str(each)
        for each in gitlab_agent.configuration_problems(read({}).agent, stack="dev", serving_namespace="models")
    ]


def test_the_agents_file_is_written_by_a_command_and_checked_from_then_on(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (missing,) = configuration_problems()
    assert "it does not exist" in missing
    assert "Run `python -m model_serving agent --stack dev`" in missing
    assert commands.main(["agent", "--stack", "dev", "--check"]) == 1
    assert commands.main(["agent", "--stack", "dev"]) == 0
    assert commands.main(["agent", "--stack", "dev", "--check"]) == 0
    assert configuration_problems() == []
    assert "commit it there" in capsys.readouterr().out

    path = checkout / ".gitlab" / "agents" / "dev" / "config.yaml"
    path.write_text(path.read_text().replace("protected_branches_only: true", "protected_branches_only: false"))
    (said,) = configuration_problems()
    assert "missing: protected_branches_only: true" in said
    for unreadable in ("ci_access: [", "[" * 5000, "since: 2024-13-01"):
        path.write_text(unreadable)
        assert "cannot be read" in configuration_problems()[0]
    path.unlink()
    for elsewhere in ("written", "elsewhere"):
        chosen = read({"configuration": elsewhere}).agent
        assert not [*gitlab_agent.configuration_problems(chosen, stack="dev", serving_namespace="models")]


def test_every_key_says_what_it_is_for() -> None:
    for section in sections_below(gitlab_agent.AgentSettings):
        assert issubclass(section, Section)
        for name, info in section.model_fields.items():
            assert info.description, f"{section.__name__}.{name}"
            assert info.description.endswith("."), f"{section.__name__}.{name}"


@pytest.mark.documents
def test_the_document_names_every_key() -> None:
    document = (ROOT / "docs" / "agent.md").read_text()
    for section in sections_below(gitlab_agent.AgentSettings):
        for info in section.model_fields.values():
            assert f"{info.alias}" in document, info.alias
