"""What the GitLab agent declares, and above all what it does not let anybody do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pulumi
import pytest

from components.gitlab_agent.access import DEPLOYED, EXTRAS
from components.gitlab_agent.agent import Agent, AgentArgs
from components.google.edge import ServicePolicies
from components.serving.contract import CheckArgs, ContractChecks, ContractChecksArgs
from components.serving.gateway import Gateway, GatewayArgs
from components.serving.route import Backend, ModelRoute, ModelRouteArgs
from components.serving.server import ModelServer
from model_serving.stack.gitlab_agent import AgentSettings
from tests.engine.provider import is_secret
from tests.unit.conftest import Recorder, mocked
from tests.unit.test_components import server_args

Declare = Callable[[Callable[[], object]], Recorder]
SECTION: dict[str, Any] = {"name": "dev", "project": "acme/model-serving", "projectId": 11}
TOKEN = "glagent-made"  # noqa: S105 - not one
AGENT = {"kind": "ServiceAccount", "name": "gitlab-agent", "namespace": "gitlab-agent"}


class AgentRecorder(Recorder):
    """Answers as GitLab does, and takes down parents and what waits for what."""

    def outputs(self, args: pulumi.runtime.MockResourceArgs) -> dict[str, Any]:
        match args.typ.rpartition(":")[2]:
            case "ClusterAgent":
                return {"agentId": 7}
            case "ClusterAgentToken":
                return {"token": f"{TOKEN}-{args.inputs['name']}"}
            case _:
                return super().outputs(args)

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """What was made of a kind, components left out: one is called Agent, another Release would be."""
        made = self.made.items()
        return {n: x for (typ, n), x in made if typ.endswith(f":{kind}") and not typ.startswith("model-serving:")}


@pytest.fixture
def recorder() -> Iterator[AgentRecorder]:
    with mocked(AgentRecorder()) as recorder:
        yield recorder


def declared(declare: Declare, made_elsewhere: str | None = None, /, **section: Any) -> Recorder:
    args = AgentArgs(
        settings=AgentSettings.model_validate(SECTION | section),
        stack="dev",
        serving_namespace="models",
        namespace="models",
        tier="development",
        token=made_elsewhere,
    )
    return declare(lambda: Agent("gitlab-agent", args) and None)


def rules_of(recorder: Recorder, name: str) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = recorder.of_kind("Role")[name]["rules"]
    return rules


def values_of(recorder: Recorder) -> dict[str, Any]:
    (release,) = recorder.of_kind("Release").values()
    values: dict[str, Any] = release["values"]
    return values


def test_an_agent_is_registered_with_a_token_by_the_projects_number(declare: Declare) -> None:
    recorder = declared(declare)
    assert recorder.of_kind("ClusterAgent") == {"gitlab-agent": {"project": "11", "name": "dev"}}
    (token,) = recorder.of_kind("ClusterAgentToken").values()
    assert (token["project"], token["agentId"], token["name"]) == ("11", 7, "first")
    assert recorder.of_kind("RepositoryFile") == {}
    (provider,) = (x for (typ, _), x in recorder.made.items() if typ == "pulumi:providers:gitlab")
    assert provider == {"baseUrl": "https://gitlab.com/api/v4/", "earlyAuthCheck": "false"}, "no token among the inputs"


def test_the_program_writes_the_agents_file_only_if_told_to(declare: Declare) -> None:
    (file,) = declared(declare, configuration="written", branch="trunk").of_kind("RepositoryFile").values()
    assert file["branch"] == "trunk"
    assert file["filePath"] == ".gitlab/agents/dev/config.yaml"
    assert "protected_branches_only: true" in file["content"]


def test_an_existing_token_takes_nothing_from_gitlab(declare: Declare) -> None:
    recorder = declared(declare, TOKEN, register=False, tokens=["second"])
    assert not [typ for typ, _ in recorder.made if "gitlab:" in typ]
    assert recorder.of_kind("Secret")["gitlab-agent-second"]["metadata"]["name"] == "agent-token-second"


def test_the_last_token_is_in_use_and_both_are_there(declare: Declare) -> None:
    recorder = declared(declare, tokens=["a", "b"])
    assert len(recorder.of_kind("ClusterAgentToken")) == 2
    assert {each["metadata"]["name"] for each in recorder.of_kind("Secret").values()} == {
        "agent-token-a",
        "agent-token-b",
    }
    assert values_of(recorder)["config"]["secretName"] == "agent-token-b"


def test_a_token_is_a_secret_and_in_no_value_of_the_chart(declare: Declare) -> None:
    recorder = declared(declare)
    (given,) = recorder.of_kind("Secret").values()
    # Only the engine marks what GitLab makes up, and a mock is no engine: it is the component that did.
    assert is_secret(given["stringData"])
    assert given["stringData"]["value"] == {"token": f"{TOKEN}-first"}
    elsewhere = {key: inputs for key, inputs in recorder.made.items() if not key[0].endswith(":Secret")}
    assert TOKEN not in str(elsewhere)


def test_the_chart_grants_nothing_and_scans_nothing(declare: Declare) -> None:
    values = values_of(declared(declare))
    assert values["rbac"] == {"create": False}
    assert values["serviceAccount"] == {"create": False, "name": "gitlab-agent"}
    assert values["config"]["operational_container_scanning"] == {"enabled": False}
    assert "token" not in values["config"]


def test_pods_are_two_restricted_and_apart(declare: Declare) -> None:
    values = values_of(declared(declare))
    assert values["replicas"] == 2
    assert values["podSecurityContext"]["runAsNonRoot"] is True
    assert values["podSecurityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert values["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert values["securityContext"]["allowPrivilegeEscalation"] is False
    assert values["securityContext"]["readOnlyRootFilesystem"] is True
    assert set(values["resources"]) == {"requests", "limits"}
    terms = values["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [term["podAffinityTerm"]["labelSelector"] for term in terms] == [{}, {}], "every pod of its namespace"


@pytest.mark.parametrize(
    ("chart", "expected"),
    [
        ({}, {"chart": "gitlab-agent", "version": "2.29.0", "repositoryOpts": {"repo": "https://charts.gitlab.io"}}),
        (
            {"version": "2.6.2"},
            {"chart": "gitlab-agent", "version": "2.6.2", "repositoryOpts": {"repo": "https://charts.gitlab.io"}},
        ),
        ({"reference": "./charts/agent"}, {"chart": "./charts/agent"}),
        (
            {"reference": "oci://r.io/agent", "version": "2.29.0"},
            {"chart": "oci://r.io/agent", "version": "2.29.0"},
        ),
        (
            {"reference": "agent", "repository": "https://c.io", "version": "1"},
            {"chart": "agent", "version": "1", "repositoryOpts": {"repo": "https://c.io"}},
        ),
    ],
)
def test_the_chart_is_where_the_stack_says(declare: Declare, chart: dict[str, Any], expected: dict[str, Any]) -> None:
    (release,) = declared(declare, chart=chart).of_kind("Release").values()
    assert {key: release[key] for key in ("chart", "version", "repositoryOpts") if key in release} == expected
    assert release["atomic"] is True
    assert "skipAwait" not in release


def test_further_values_are_passed_on(declare: Declare) -> None:
    assert values_of(declared(declare, values={"nodeSelector": {"a": "b"}}))["nodeSelector"] == {"a": "b"}


def test_pods_reach_kas_the_api_server_and_names_and_nothing_else(declare: Declare) -> None:
    section = {"kas": "wss://kas.acme.io:8443/k", "kasRanges": ["203.0.113.7/32"], "apiServerRanges": ["10.0.0.1/32"]}
    policies = declared(declare, **section).of_kind("NetworkPolicy")
    assert policies["gitlab-agent-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    spec = policies["gitlab-agent"]["spec"]
    assert spec["policyTypes"] == ["Egress"]
    kas, api, names = spec["egress"]
    assert kas == {"to": [{"ipBlock": {"cidr": "203.0.113.7/32"}}], "ports": [{"port": 8443, "protocol": "TCP"}]}
    assert api == {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    assert {port["port"] for port in names["ports"]} == {53}


def test_one_pod_may_leave_at_a_time(declare: Declare) -> None:
    (budget,) = declared(declare).of_kind("PodDisruptionBudget").values()
    assert budget["spec"] == {"maxUnavailable": 1, "selector": {}}


@pytest.mark.parametrize("access_as", ["ci_job", "impersonate", "agent"])
def test_nobody_gets_more_than_the_models_namespace(declare: Declare, access_as: str) -> None:
    recorder = declared(declare, accessAs=access_as)
    roles = recorder.of_kind("Role").values()
    assert {each["metadata"]["namespace"] for each in roles} == {"models", "gitlab-agent"}
    granted = [rule for each in (*roles, *recorder.of_kind("ClusterRole").values()) for rule in each["rules"]]
    for rule in granted:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], rule
        assert not {"secrets", "roles", "rolebindings", "pods/exec", "nodes"} & {*rule["resources"]}, rule
        assert not {"bind", "escalate"} & {*rule["verbs"]}, rule
    assert "cluster-admin" not in str(recorder.made)
    assert rules_of(recorder, "gitlab-agent-deploy")[-1]["verbs"] == ["get"], "the namespace is looked at, not changed"


def serve_with_everything() -> None:
    """One of each kind that a stack may have in the models' namespace."""
    ModelServer("a", server_args(autoscaling={"maximum": 2}, gpu={"type": "nvidia-l4"}))
    checks = ContractChecks("contract", ContractChecksArgs(namespace="models", scripts={}, url="http://10.0.0.5"))
    checks.check(
        CheckArgs(label="a", model="a", version="1", image="a", fingerprint="f00d", seconds=1, answer_seconds=1)
    )
    Gateway("gateway", GatewayArgs(namespace="models", class_name="contour"))
    backend = Backend(slug="1", service="a", weight=100)
    ModelRoute("a", ModelRouteArgs(model="a", namespace="models", gateway="gateway", backends={"1": backend}))
    ServicePolicies("a", namespace="models", ready_path="/", drain_seconds=1, answer_seconds=1)


def plural(kind: str) -> str:
    return re.sub(r"([^aeiou])y$", r"\1ie", kind.lower()) + "s"


def test_a_deploy_may_make_what_the_program_declares_in_the_namespace_and_nothing_more(declare: Declare) -> None:
    made = [typ.split(":") for typ, _ in declare(serve_with_everything).made if typ.startswith("kubernetes:")]
    kinds = {(place.rpartition("/")[0].removeprefix("core"), plural(kind)) for _, place, kind in made}
    assert kinds == {(group, kind) for group, kinds in DEPLOYED.items() for kind in kinds}


def test_the_role_says_what_the_table_says(declare: Declare) -> None:
    rules = rules_of(declared(declare), "gitlab-agent-deploy")
    written = {
        (rule["apiGroups"][0], kind) for rule in rules if "create" in rule["verbs"] for kind in rule["resources"]
    }
    assert written == {(group, kind) for group, kinds in DEPLOYED.items() for kind in kinds}


def test_jobs_are_bound_by_project_and_environment(declare: Declare) -> None:
    section = {"projects": [{"path": "acme/wines", "id": 12}], "groupIds": [5]}
    recorder = declared(declare, **section)
    subjects = recorder.of_kind("RoleBinding")["gitlab-agent-deploy"]["subjects"]
    assert {each["name"] for each in subjects} == {"gitlab:project_env:11:dev", "gitlab:project_env:12:dev"}
    assert {each["kind"] for each in subjects} == {"Group"}
    users, groups, extras = recorder.of_kind("ClusterRole")["gitlab-agent-impersonate"]["rules"]
    assert users == {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]}
    assert "gitlab:project_env:11:dev" in groups["resourceNames"]
    assert "gitlab:project_env:11:production" not in groups["resourceNames"]
    assert not [name for name in groups["resourceNames"] if name.startswith("system:")]
    assert extras["resources"] == [f"userextras/agent.gitlab.com/{key}" for key in EXTRAS]
    assert len(EXTRAS) == 8


def test_one_account_for_all_jobs_needs_no_right_beyond_the_agents_namespace(declare: Declare) -> None:
    recorder = declared(declare, accessAs="impersonate")
    assert recorder.of_kind("ClusterRole") == recorder.of_kind("ClusterRoleBinding") == {}
    (rule,) = rules_of(recorder, "gitlab-agent-impersonate")
    assert (rule["resources"], rule["verbs"], rule["resourceNames"]) == (
        ["serviceaccounts"],
        ["impersonate"],
        ["deploy"],
    )
    (subject,) = recorder.of_kind("RoleBinding")["gitlab-agent-deploy"]["subjects"]
    assert subject == AGENT | {"name": "deploy"}


def test_on_the_free_tier_the_agent_itself_deploys_and_impersonates_nobody(declare: Declare) -> None:
    recorder = declared(declare, accessAs="agent")
    assert recorder.of_kind("ClusterRole") == {}
    assert recorder.of_kind("RoleBinding")["gitlab-agent-deploy"]["subjects"] == [AGENT]
    assert "impersonate" not in str([each["rules"] for each in recorder.of_kind("Role").values()])


def test_no_account_mounts_a_token_by_itself(declare: Declare) -> None:
    accounts = declared(declare, accessAs="impersonate").of_kind("ServiceAccount").values()
    assert [each["automountServiceAccountToken"] for each in accounts] == [False, False]
