"""What the platform on Google Cloud declares, and above all who may do what in it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import Any

import pulumi
import pytest

from components.google import observability
from components.google.edge import GOOGLE_RANGES
from components.google.identity import DUTIES, Deployment, trust_github, trust_gitlab
from components.google.platform import Platform
from model_serving.stack.google import GcpSettings, GitHubSettings, GitLabSettings
from model_serving.stack.settings import Settings
from tests.engine import sdk_types
from tests.unit.conftest import Recorder, mocked, serving
from tests.unit.gcp_table import documented

Declare = Callable[[Callable[[], object]], Recorder]

# Google's SDK marks modules as deprecated that it loads itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

KEY = "projects/p/locations/europe-west1/keyRings/pulumi/cryptoKeys/secrets"
CLUSTER_KEY = "projects/p/locations/europe-west1/keyRings/gke/cryptoKeys/database"
STATE = {"bucket": "acme-models-pulumi-state", "key": KEY}
EVERYTHING: dict[str, Any] = {
    "cluster": {
        "mode": "standard",
        "nodePool": {"minimumNodes": 2},
        "binaryAuthorization": True,
        "allowedImages": ["registry.gitlab.com/agent/*"],
        "encryptionKey": CLUSTER_KEY,
        "fleet": True,
    },
    "gateway": {
        "public": True,
        "access": "ranges",
        "domain": "models.example.com",
        "allowedRanges": ["203.0.113.0/24"],
    },
    "identity": {
        "gitlab": {"projectId": 11, "modelProjectIds": [12, 13]},
        "github": {"repositoryId": 21, "ownerId": 22, "modelRepositoryIds": [23]},
        "keyForCi": True,
    },
    "observability": {"emails": ["team@example.com"]},
    "state": STATE,
}
ADOPTED: dict[str, Any] = {
    "network": {
        "existing": {"network": "shared", "subnetwork": "nodes", "podsRange": "p", "servicesRange": "s"},
        "proxies": "10.9.0.0/23",
    },
    "cluster": {"existing": "shared"},
    "registry": {"existing": "images"},
    "storage": {"existing": "acme-dvc"},
}
BINDINGS = {
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
    "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember",
    "gcp:projects/iAMMember:IAMMember",
    "gcp:serviceaccount/iAMMember:IAMMember",
    "gcp:storage/bucketIAMMember:BucketIAMMember",
}
TOKEN = "ya29.of-this-update"  # noqa: S105 - made up
OWN_ROLE = "^projects/acme-models/roles/model_serving_"
CLUSTER_BINDING = "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding"
NAMESPACE_BINDING = "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding"


DEPLOYMENT = Deployment(environment="production", approval=True)


class CloudRecorder(Recorder):
    """Answers with what Google makes up."""

    endpoint = "gke-1234.europe-west1.gke.goog"

    def outputs(self, args: pulumi.runtime.MockResourceArgs) -> dict[str, Any]:
        given, outputs = args.inputs, super().outputs(args)
        match args.typ.rpartition("/")[2]:
            case "account:Account":
                email = f"{given['accountId']}@{given['project']}.iam.gserviceaccount.com"
                outputs = {"email": email, "member": f"serviceAccount:{email}", "name": f"projects/p/accounts/{email}"}
            case "workloadIdentityPool:WorkloadIdentityPool":
                name = f"projects/7/locations/global/workloadIdentityPools/{given['workloadIdentityPoolId']}"
                outputs = {"name": name}
            case "workloadIdentityPoolProvider:WorkloadIdentityPoolProvider":
                outputs = {"name": f"projects/7/providers/{given['workloadIdentityPoolProviderId']}"}
            case "serviceIdentity:ServiceIdentity":
                outputs = {"member": "serviceAccount:service-7@container-engine-robot.iam.gserviceaccount.com"}
            case "key:Key":
                outputs = {"privateKey": f"key-of-{args.name}"}
            case "cluster:Cluster":
                dns = given["controlPlaneEndpointsConfig"]["dnsEndpointConfig"] | {"endpoint": self.endpoint}
                outputs = {"controlPlaneEndpointsConfig": {"dnsEndpointConfig": dns}}
            case "dnsAuthorization:DnsAuthorization":
                record = {"name": "_acme.models.example.com.", "type": "CNAME", "data": "x."}
                outputs = {"dnsResourceRecords": [record]}
            case "address:Address" | "globalAddress:GlobalAddress":
                outputs = {"address": "192.0.2.1"}
        return outputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        if args.token.endswith(":getCluster"):
            dns = [{"endpoint": self.endpoint}] if self.endpoint else []
            return {"controlPlaneEndpointsConfigs": [{"dnsEndpointConfigs": dns, "ipEndpointsConfigs": []}]}, []
        if args.token.endswith(":getClientConfig"):
            return {"accessToken": TOKEN}, []
        return super().call(args)

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """What was made of a kind, besides components, which share a few names with what they are made of."""
        end = f":{kind}"
        return {
            name: inputs
            for (typ, name), inputs in self.made.items()
            if typ.endswith(end) and not typ.startswith("model-serving:")
        }

    def all_of(self, *types: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for (typ, name), inputs in self.made.items():
            if not types or typ in types:
                yield typ, name, inputs


@pytest.fixture
def recorder() -> Iterator[CloudRecorder]:
    with mocked(CloudRecorder()) as recorder:
        yield recorder


@pytest.fixture
def platform(recorder: CloudRecorder, declare: Declare) -> Callable[..., tuple[CloudRecorder, dict[str, Any]]]:
    """Declares a platform; hands out what was declared and what it told of itself."""

    def run(
        answer_seconds: int = 30, ready_port: int | None = None, *, reviews: bool = False, **sections: Any
    ) -> tuple[CloudRecorder, dict[str, Any]]:
        settings = GcpSettings.model_validate({"project": "acme-models", "region": "europe-west1"} | sections)
        told: dict[str, Any] = {}

        def program() -> None:
            made = Platform("platform", settings, "models", replace(DEPLOYMENT, reviews=reviews))
            opts = pulumi.ResourceOptions()
            ci = {"order": 1, "review": {}} if reviews else None
            made.equip(Settings(gcp=settings, ci=ci), "models", "gateway", opts)
            made.equip_service(
                "iris-1-0",
                namespace="models",
                ready_path="/ready",
                ready_port=ready_port,
                drain_seconds=10,
                answer_seconds=answer_seconds,
                opts=opts,
            )
            told["platform"], told["edge"] = made, made.edge
            outputs = {
                key: pulumi.Output.from_input(value)
                for key, value in {**made.outputs, "kubeconfig": made.cluster.kubeconfig}.items()
            }
            known = {key: [output, output.is_secret()] for key, output in outputs.items()}
            pulumi.Output.all(**known).apply(told.update)

        declare(program)
        return recorder, told

    return run


Run = Callable[..., tuple[CloudRecorder, dict[str, Any]]]


# Who may do what


def _who(member: str) -> str:
    if found := re.search(r"attribute\.duty/(\w+)$", member):
        return f"jobs that {'train' if found[1] == 'training' else found[1]}"
    if "container-engine-robot" in member:
        return "GKE"
    found = re.fullmatch(r"serviceAccount:model-serving-(\w+)@acme-models\.iam\.gserviceaccount\.com", member)
    assert found, f"{member} is no identity of this platform"
    return found[1]


def _on(typ: str, inputs: dict[str, Any]) -> str:
    match typ.partition("/")[0]:
        case "gcp:projects":
            assert inputs["project"] == "acme-models"
            return "project"
        case "gcp:storage":
            return "state bucket" if inputs["bucket"] == STATE["bucket"] else "DVC bucket"
        case "gcp:kms":
            return {KEY: "state key", CLUSTER_KEY: "cluster key"}[inputs["cryptoKeyId"]]
        case "gcp:artifactregistry":
            return "review repository" if inputs["repository"].endswith("-review") else "repository"
        case _:
            found = re.search(r"model-serving-(\w+)@", inputs["serviceAccountId"])
            assert found
            return f"account {found[1]}"


def _bindings(recorder: CloudRecorder) -> Counter[tuple[str, str, str]]:
    found = Counter(
        (_who(inputs["member"]), re.sub(OWN_ROLE, "own: ", inputs["role"]), _on(typ, inputs))
        for typ, _, inputs in recorder.all_of(*BINDINGS)
    )
    for typ, _, inputs in recorder.all_of(CLUSTER_BINDING, NAMESPACE_BINDING):
        role = inputs["roleRef"]["name"].replace("model-serving-", "own: ")
        on = "cluster" if typ == CLUSTER_BINDING else f"namespace {inputs['metadata']['namespace']}"
        found.update((_who(f"serviceAccount:{subject['name']}"), role, on) for subject in inputs["subjects"])
    return found


@pytest.mark.documents
def test_every_binding_is_in_the_table_and_every_row_of_it_is_made(platform: Run) -> None:
    recorder, _ = platform(reviews=True, **EVERYTHING)
    made, rows = _bindings(recorder), documented()
    assert set(made) - set(rows) == set(), "declared, but not in the table of docs/gcp.md"
    assert set(rows) - set(made) == set(), "in the table of docs/gcp.md, but not declared"
    assert max(made.values()) == 1


def test_no_type_of_binding_escapes_the_table(platform: Run) -> None:
    recorder, _ = platform(reviews=True, **EVERYTHING)
    grants = re.compile(r"iam(binding|member|policy)|rolebinding", re.IGNORECASE)
    found = {typ for typ, _, _ in recorder.all_of() if grants.search(typ)}
    assert found == {*BINDINGS, CLUSTER_BINDING, NAMESPACE_BINDING}


@pytest.mark.parametrize("sections", [{}, {"state": STATE, "identity": EVERYTHING["identity"]}, ADOPTED])
def test_a_smaller_stack_grants_no_more_than_the_table(platform: Run, sections: dict[str, Any]) -> None:
    recorder, _ = platform(**sections)
    assert set(_bindings(recorder)) < set(documented())


def test_every_binding_on_the_project_has_a_reason_in_the_table() -> None:
    for (who, role, on), reason in documented().items():
        if on.startswith("project"):
            assert len(reason) > 20, f"{who} has {role} on the whole project without a reason"


def test_nobody_has_a_basic_role_or_may_act_as_anybody(platform: Run) -> None:
    recorder, _ = platform(**EVERYTHING)
    everywhere = {role for _, role, on in _bindings(recorder) if on.startswith("project")}
    forbidden = {"owner", "editor", "viewer", "iam.serviceAccountUser", "iam.serviceAccountTokenCreator"}
    assert not everywhere & {f"roles/{role}" for role in forbidden}


def test_bindings_on_the_project_have_no_condition_that_could_be_wrong(platform: Run) -> None:
    recorder, _ = platform(**EVERYTHING)
    assert [name for _, name, inputs in recorder.all_of(*BINDINGS) if inputs.get("condition")] == []


# Federation


def test_only_the_named_repositories_are_trusted(platform: Run) -> None:
    recorder, _ = platform(**EVERYTHING)
    trusted = {
        i["oidc"]["issuerUri"]: i["attributeCondition"]
        for i in recorder.of_kind("WorkloadIdentityPoolProvider").values()
    }
    assert trusted == {
        "https://gitlab.com": "assertion.project_id in ['11', '12', '13']",
        "https://token.actions.githubusercontent.com": "assertion.repository_owner_id == '22' && "
        "assertion.repository_id in ['21', '23']",
    }


IN_PRODUCTION = {"environment": "production", "environment_action": "start", "environment_protected": "true"}


@pytest.mark.parametrize(
    ("provider", "claims", "duty"),
    [
        ("gitlab", {"pipeline_source": "merge_request_event"}, "plan"),
        ("gitlab", {"pipeline_source": "merge_request_event", **IN_PRODUCTION}, "plan"),
        ("gitlab", {}, "verify"),
        ("gitlab", {"pipeline_source": "schedule"}, "verify"),
        ("gitlab", IN_PRODUCTION, "apply"),
        ("gitlab", {**IN_PRODUCTION, "environment": "dev"}, "verify"),
        ("gitlab", {**IN_PRODUCTION, "environment_action": "verify"}, "verify"),
        ("gitlab", {**IN_PRODUCTION, "environment_protected": "false"}, "verify"),
        ("gitlab", {**IN_PRODUCTION, "ref": "feature"}, "none"),
        ("gitlab", {**IN_PRODUCTION, "ref_protected": "false"}, "none"),
        ("gitlab", {**IN_PRODUCTION, "ref_type": "tag"}, "none"),
        ("gitlab", {**IN_PRODUCTION, "project_id": "12"}, "training"),
        ("gitlab", {"project_id": "12", "pipeline_source": "merge_request_event"}, "training"),
        ("github", {"event_name": "pull_request"}, "plan"),
        ("github", {"event_name": "push"}, "verify"),
        ("github", {"event_name": "schedule"}, "verify"),
        ("github", {"event_name": "push", "environment": "production"}, "apply"),
        ("github", {"event_name": "workflow_dispatch", "environment": "production"}, "apply"),
        ("github", {"event_name": "push", "environment": "dev"}, "verify"),
        ("github", {"event_name": "pull_request_target", "environment": "production"}, "none"),
        ("github", {"event_name": "issue_comment"}, "none"),
        ("github", {"event_name": "push", "environment": "production", "ref": "refs/heads/feature"}, "none"),
        ("github", {"event_name": "push", "environment": "production", "ref_protected": "false"}, "none"),
        ("github", {"event_name": "push", "repository_id": "23"}, "training"),
    ],
)
def test_a_job_has_one_duty(provider: str, claims: dict[str, str], duty: str) -> None:
    assert _duty(provider, claims) == duty


@pytest.mark.parametrize(
    ("approval", "setting", "duty"),
    [(True, None, "verify"), (True, False, "apply"), (False, None, "apply"), (False, True, "verify")],
)
def test_approval_asks_for_a_protected_environment_unless_the_stack_says_otherwise(
    approval: bool, setting: bool | None, duty: str
) -> None:
    deployment = Deployment(environment="production", approval=approval)
    claims = {**IN_PRODUCTION, "environment_protected": "false"}
    assert _duty("gitlab", claims, deployment, protectedEnvironment=setting) == duty


def _duty(provider: str, claims: dict[str, str], deployment: Deployment = DEPLOYMENT, **section: Any) -> str:
    if provider == "gitlab":
        gitlab = {"projectId": 11, "modelProjectIds": [12], **section}
        trust = trust_gitlab(GitLabSettings.model_validate(gitlab), deployment)
        own = {"project_id": "11", "ref": "main", "ref_type": "branch", "pipeline_source": "push"}
    else:
        github = {"repositoryId": 21, "ownerId": 22, "modelRepositoryIds": [23]}
        trust = trust_github(GitHubSettings.model_validate(github), deployment)
        own = {"repository_id": "21", "ref": "refs/heads/main"}
    return _evaluate(trust.duty, {**own, "ref_protected": "true", **claims})


def _evaluate(expression: str, assertion: dict[str, str]) -> str:
    """The part of Google's expression language that the mappings use, by way of Python's: a missing claim fails."""
    if " ? " not in expression:
        python = re.sub(r"!\(", "not (", expression).replace("&&", "and").replace("||", "or")
        python = re.sub(r"has\(assertion\.(\w+)\)", r"('\1' in assertion)", python)
        python = re.sub(r"assertion\.(\w+)", r"assertion['\1']", python)
        return str(eval(python, {}, {"assertion": assertion}))  # noqa: S307 - an expression of this program
    condition, _, rest = expression.partition(" ? ")
    yes, _, no = rest.partition(" : ")
    return _evaluate(yes, assertion) if _evaluate(condition, assertion) == "True" else _evaluate(no, assertion)


def test_self_managed_gitlab_brings_its_own_keys(platform: Run) -> None:
    gitlab = {"issuer": "https://gitlab.acme.example", "projectId": 1, "keys": '{"keys": []}'}
    recorder, _ = platform(identity={"gitlab": gitlab}, state=STATE)
    oidc = recorder.of_kind("WorkloadIdentityPoolProvider")["identity-gitlab"]["oidc"]
    assert oidc == {"issuerUri": "https://gitlab.acme.example", "jwksJson": '{"keys": []}'}


def test_no_key_is_made_unless_asked_for(platform: Run) -> None:
    recorder, told = platform()
    assert recorder.of_kind("Key") == {}
    assert told["keys"] == [{}, True]


def test_keys_are_secret(platform: Run) -> None:
    _, told = platform(reviews=True, **EVERYTHING)
    keys, secret = told["keys"]
    assert set(keys) == {"plan", "verify", "apply", "training", "review"}
    assert secret


# What is declared


@pytest.mark.parametrize("reviews", [True, False])
def test_each_duty_has_an_account_and_a_stack_without_reviews_has_none_for_them(platform: Run, reviews: bool) -> None:
    recorder, _ = platform(reviews=reviews)
    accounts = {i["accountId"].removeprefix("model-serving-") for i in recorder.of_kind("Account").values()}
    assert accounts == DUTIES.keys() - (set() if reviews else {"review"})


def test_no_input_was_misspelt(platform: Run) -> None:
    # Neither the SDK nor the light classes mind a key that nobody knows, deep inside of what they are given.
    recorder, _ = platform(reviews=True, **EVERYTHING)
    known = ("gcp:", "kubernetes:core/", "kubernetes:rbac.", "kubernetes:networking.k8s.io/")
    made = [(typ, name, inputs) for typ, name, inputs in recorder.all_of() if typ.startswith(known)]
    assert made
    assert {(typ, name): found for typ, name, i in made if (found := list(sdk_types.problems(typ, i)))} == {}


def test_everything_in_google_is_below_the_platform(platform: Run) -> None:
    recorder, told = platform(**EVERYTHING)
    below: list[pulumi.Resource] = [told["platform"]]
    for resource in below:
        below += resource._childResources
    in_google = {(typ, name) for typ, name, _ in recorder.all_of() if typ.startswith("gcp:")}
    assert in_google <= {(resource.pulumi_resource_type, resource.pulumi_resource_name) for resource in below}


def test_apis_are_enabled_and_never_disabled(platform: Run) -> None:
    recorder, _ = platform(**EVERYTHING)
    services = recorder.of_kind("Service")
    assert len(services) == 14
    assert {i["disableOnDestroy"] for i in services.values()} == {False}


def test_apis_are_left_alone_where_another_team_enables_them(platform: Run) -> None:
    recorder, _ = platform(services={"enable": False})
    assert recorder.of_kind("Service") == {}


def test_a_stack_that_is_not_public_has_no_public_address(platform: Run) -> None:
    recorder, told = platform()
    assert recorder.of_kind("GlobalAddress") == {}
    assert [i["addressType"] for i in recorder.of_kind("Address").values()] == ["INTERNAL"]
    (cluster,) = recorder.of_kind("Cluster").values()
    assert cluster["privateClusterConfig"] == {"enablePrivateNodes": True}
    assert cluster["controlPlaneEndpointsConfig"]["ipEndpointsConfig"] == {"enabled": False}
    assert told["edge"].class_name == "gke-l7-rilb"
    assert told["edge"].client_ranges == ("10.0.8.0/23", *GOOGLE_RANGES)


def test_a_public_gateway_speaks_https_behind_cloud_armor(platform: Run) -> None:
    recorder, told = platform(**EVERYTHING)
    edge = told["edge"]
    assert (edge.protocol, edge.port, edge.endpoint) == ("HTTPS", 443, "https://models.example.com")
    (armor,) = recorder.of_kind("SecurityPolicy").values()
    assert [rule["action"] for rule in armor["rules"]] == ["throttle", "deny(403)"]
    assert armor["rules"][0]["match"]["config"]["srcIpRanges"] == ["203.0.113.0/24"]
    assert armor["description"] == "Who may ask the models: everyone at the addresses in allowedRanges"
    (backend,) = recorder.of_kind("GCPBackendPolicy").values()
    assert backend["spec"]["default"]["securityPolicy"] == "model-serving"
    assert "iap" not in backend["spec"]["default"]
    (tls,) = recorder.of_kind("GCPGatewayPolicy").values()
    assert tls["spec"]["default"] == {"sslPolicy": "model-serving"}
    assert [record["type"] for record in told["dnsRecords"][0]] == ["A", "CNAME"]


def test_identity_aware_proxy_has_the_oauth_client_of_the_stack(platform: Run) -> None:
    iap = {"clientId": "1-a.apps.googleusercontent.com", "secretName": "iap-client"}
    recorder, _ = platform(gateway={"public": True, "access": "iap", "iap": iap, "domain": "models.example.com"})
    (backend,) = recorder.of_kind("GCPBackendPolicy").values()
    assert backend["spec"]["default"]["iap"] == {
        "enabled": True,
        "clientID": "1-a.apps.googleusercontent.com",
        "oauth2ClientSecret": {"name": "iap-client"},
    }
    assert "iap.googleapis.com" in {each["service"] for each in recorder.of_kind("Service").values()}


def test_an_internal_gateway_with_a_domain_has_a_regional_certificate(platform: Run) -> None:
    recorder, told = platform(gateway={"domain": "models.acme.internal.example"})
    (certificate,) = recorder.of_kind("Certificate").values()
    assert certificate["location"] == "europe-west1"
    assert recorder.of_kind("CertificateMap") == {}
    assert list(told["edge"].tls_options) == ["networking.gke.io/cert-manager-certs"]


def test_proxies_have_a_subnet_only_if_the_gateway_needs_them(platform: Run) -> None:
    recorder, _ = platform(gateway=EVERYTHING["gateway"])
    assert set(recorder.of_kind("Subnetwork")) == {"network-nodes"}


def test_the_load_balancer_waits_for_an_answer_as_long_as_the_model_may_take(platform: Run) -> None:
    recorder, _ = platform(answer_seconds=60)
    (backend,) = recorder.of_kind("GCPBackendPolicy").values()
    assert backend["spec"]["default"] == {"timeoutSec": 60, "connectionDraining": {"drainingTimeoutSec": 60}}


def test_health_check_asks_the_model(platform: Run) -> None:
    recorder, _ = platform()
    (policy,) = recorder.of_kind("HealthCheckPolicy").values()
    assert policy["spec"]["default"]["config"]["httpHealthCheck"]["requestPath"] == "/ready"
    assert policy["spec"]["default"]["config"]["httpHealthCheck"]["portSpecification"] == "USE_SERVING_PORT"
    assert policy["spec"]["targetRef"] == {"group": "", "kind": "Service", "name": "iris-1-0"}


def test_health_check_of_a_service_with_several_ports_asks_the_one_that_answers(platform: Run) -> None:
    recorder, _ = platform(ready_port=8080)
    (policy,) = recorder.of_kind("HealthCheckPolicy").values()
    assert policy["spec"]["default"]["config"]["httpHealthCheck"] == {
        "portSpecification": "USE_FIXED_PORT",
        "port": 8080,
        "requestPath": "/ready",
    }


def test_autopilot_is_the_default_and_has_no_pool(platform: Run) -> None:
    recorder, _ = platform()
    (cluster,) = recorder.of_kind("Cluster").values()
    assert cluster["enableAutopilot"] is True
    assert recorder.of_kind("NodePool") == {}
    # Each of these is refused in, or replaces, an Autopilot cluster.
    conflicting = {"enableShieldedNodes", "removeDefaultNodePool", "networkPolicy", "nodePools", "nodeConfig"}
    assert not conflicting & set(cluster)


def test_standard_has_one_autoscaled_pool_of_shielded_nodes(platform: Run) -> None:
    recorder, _ = platform(**EVERYTHING)
    (pool,) = recorder.of_kind("NodePool").values()
    assert pool["autoscaling"] == {"totalMinNodeCount": 2, "totalMaxNodeCount": 6, "locationPolicy": "BALANCED"}
    assert pool["nodeConfig"]["workloadMetadataConfig"] == {"mode": "GKE_METADATA"}
    assert pool["nodeConfig"]["serviceAccount"].startswith("model-serving-nodes@")
    (cluster,) = recorder.of_kind("Cluster").values()
    # Without it network policies would be taken and not enforced.
    assert cluster["datapathProvider"] == "ADVANCED_DATAPATH"


def test_both_kinds_of_cluster_run_as_the_nodes_account(platform: Run) -> None:
    recorder, _ = platform()
    (cluster,) = recorder.of_kind("Cluster").values()
    defaults = cluster["clusterAutoscaling"]["autoProvisioningDefaults"]
    assert defaults["serviceAccount"] == "model-serving-nodes@acme-models.iam.gserviceaccount.com"


def test_kubeconfig_has_no_secret_and_no_authority(platform: Run) -> None:
    _, told = platform()
    kubeconfig = json.loads(told["kubeconfig"][0])
    (cluster,), (user,) = kubeconfig["clusters"], kubeconfig["users"]
    assert cluster["cluster"] == {"server": "https://gke-1234.europe-west1.gke.goog"}
    assert list(user["user"]) == ["exec"]
    assert user["user"]["exec"]["command"] == "gke-gcloud-auth-plugin"


def test_only_our_images_run_with_binary_authorization(platform: Run) -> None:
    recorder, _ = platform(**EVERYTHING)
    (policy,) = recorder.of_kind("Policy").values()
    assert [pattern["namePattern"] for pattern in policy["admissionWhitelistPatterns"]] == [
        "europe-west1-docker.pkg.dev/acme-models/model-serving/**",
        "registry.gitlab.com/agent/*",
    ]
    assert policy["defaultAdmissionRule"]["evaluationMode"] == "ALWAYS_DENY"


def test_released_images_are_never_cleaned_up(platform: Run) -> None:
    recorder, _ = platform()
    (repository,) = recorder.of_kind("Repository").values()
    assert repository["dockerConfig"] == {"immutableTags": True}
    deleting = [policy["condition"] for policy in repository["cleanupPolicies"] if policy["action"] == "DELETE"]
    assert deleting == [{"tagState": "UNTAGGED", "olderThan": "2592000s"}]


def test_bucket_is_private_and_forgives(platform: Run) -> None:
    recorder, told = platform()
    (bucket,) = recorder.of_kind("Bucket").values()
    assert bucket["publicAccessPrevention"] == "enforced"
    assert bucket["uniformBucketLevelAccess"] is True
    assert bucket["versioning"] == {"enabled": True}
    assert bucket.get("forceDestroy") in (None, False)
    assert told["dvcRemote"] == ["gs://acme-models-model-serving-dvc", False]


@pytest.mark.parametrize(("protected", "policy"), [(True, "PREVENT"), (False, "DELETE")])
def test_what_cannot_be_made_again_is_protected(platform: Run, protected: bool, policy: str) -> None:
    recorder, _ = platform(deletionProtection=protected)
    (cluster,), (bucket,) = recorder.of_kind("Cluster").values(), recorder.of_kind("Bucket").values()
    (repository,) = recorder.of_kind("Repository").values()
    assert (cluster["deletionProtection"], bucket["deletionPolicy"], repository["deletionPolicy"]) == (
        protected,
        policy,
        policy,
    )


def test_what_exists_is_used_and_not_declared(platform: Run) -> None:
    recorder, told = platform(**ADOPTED)
    for kind in ("Network", "Subnetwork", "Router", "RouterNat", "Cluster", "NodePool", "Repository", "Bucket"):
        assert recorder.of_kind(kind) == {}, kind
    (address,) = recorder.of_kind("Address").values()
    assert address["subnetwork"] == "projects/acme-models/regions/europe-west1/subnetworks/nodes"
    assert told["registry"] == ["europe-west1-docker.pkg.dev/acme-models/images", False]
    assert json.loads(told["kubeconfig"][0])["current-context"] == "shared"


def test_existing_cluster_without_a_dns_endpoint_is_refused(platform: Run, recorder: CloudRecorder) -> None:
    recorder.endpoint = ""
    with pytest.raises(pulumi.RunError, match="--enable-dns-access"):
        platform(**ADOPTED)


# What reviews have


def test_reviews_push_where_no_released_image_is(platform: Run) -> None:
    recorder, _ = platform(reviews=True, cluster={"binaryAuthorization": True})
    of_reviews = recorder.of_kind("Repository")["registry-review"]
    assert of_reviews["repositoryId"] == "model-serving-review"
    assert [policy["condition"] for policy in of_reviews["cleanupPolicies"]] == [
        {"tagState": "ANY", "olderThan": "5184000s"}
    ]
    writers = {
        (_who(inputs["member"]), _on(typ, inputs))
        for typ, _, inputs in recorder.all_of(*BINDINGS)
        if inputs["role"] == "roles/artifactregistry.writer"
    }
    assert writers == {("apply", "repository"), ("review", "review repository")}
    (policy,) = recorder.of_kind("Policy").values()
    assert [
        pattern["namePattern"].rpartition("acme-models/")[2] for pattern in policy["admissionWhitelistPatterns"]
    ] == [
        "model-serving/**",
        "model-serving-review/**",
    ]


def test_an_existing_registry_does_not_keep_apply_from_making_that_of_reviews(platform: Run) -> None:
    recorder, _ = platform(reviews=True, **ADOPTED)
    assert set(recorder.of_kind("Repository")) == {"registry-review"}
    assert ("apply", "roles/artifactregistry.admin", "project") in _bindings(recorder)


def test_a_branch_gets_neither_secrets_nor_a_way_around_the_gateway(platform: Run) -> None:
    recorder, _ = platform(reviews=True)
    (namespace,) = recorder.of_kind("Namespace").values()
    # No pod runs on the node's network, where the token of the nodes' account is.
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    (role,) = recorder.of_kind("Role").values()
    written = {kind for rule in role["rules"] if "create" in rule["verbs"] for kind in rule["resources"]}
    assert written == {
        *("configmaps", "deployments", "gcpbackendpolicies", "healthcheckpolicies", "httproutes", "jobs", "services")
    }
    read = {kind for rule in role["rules"] for kind in rule["resources"]} - written
    assert read == {"gateways", "networkpolicies", "pods", "replicasets"}
    (limits,) = recorder.of_kind("ResourceQuota").values()
    assert limits["spec"]["hard"].items() >= {"services.loadbalancers": "0", "services.nodeports": "0"}.items()
    (gateway,) = recorder.of_kind("Gateway").values()
    assert gateway["spec"]["gatewayClassName"] == "gke-l7-rilb"
    assert [each["allowedRoutes"] for each in gateway["spec"]["listeners"]] == [{"namespaces": {"from": "Same"}}]
    policies = recorder.of_kind("NetworkPolicy")
    assert policies["reviews-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    sources = [
        each["ipBlock"]["cidr"] for rule in policies["reviews-servers"]["spec"]["ingress"] for each in rule["from"]
    ]
    assert sources == ["10.0.8.0/23", *GOOGLE_RANGES]
    assert "egress" not in policies["reviews-servers"]["spec"]
    assert policies["reviews-contract"]["spec"]["egress"][-1] == {
        "to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}],
        "ports": [{"port": 80, "protocol": "TCP"}],
    }


# What Google says of the cluster


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """GKE's API on loopback: what it answers, and under ``asked`` each path and login."""
    answer: dict[str, Any] = {"asked": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer["asked"].append((self.path, self.headers["Authorization"]))
            content = json.dumps({key: value for key, value in answer.items() if key != "asked"}).encode()
            self.send_response(answer.get("code", 200))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with serving(Handler) as address:
        monkeypatch.setenv("GOOGLE_CONTAINER_CUSTOM_ENDPOINT", f"http://{address}/v1/")
        yield answer


@pytest.mark.parametrize(
    "sections", [{}, ADOPTED, {"cluster": {"mode": "standard"}, "zone": "europe-west1-b"}], ids=str
)
def test_nothing_is_applied_into_a_cluster_that_google_could_not_create(
    platform: Run, status: dict[str, Any], sections: dict[str, Any]
) -> None:
    status |= {"status": "ERROR", "statusMessage": "Insufficient regional quota to satisfy request: CPUS"}
    with pytest.raises(pulumi.RunError) as raised:
        platform(**sections)
    told = str(raised.value)
    assert "ERROR, Insufficient regional quota to satisfy request: CPUS" in told
    assert "gcloud container clusters delete" in told
    assert "pulumi up --refresh" in told
    name = sections.get("cluster", {}).get("existing", "model-serving")
    place = sections.get("zone", "europe-west1")
    path = f"/v1/projects/acme-models/locations/{place}/clusters/{name}"
    assert status["asked"] == [(path, f"Bearer {TOKEN}")]


@pytest.mark.parametrize("state", ["PROVISIONING", "STOPPING"])
def test_a_cluster_that_is_on_its_way_is_waited_for(platform: Run, status: dict[str, Any], state: str) -> None:
    status["status"] = state
    with pytest.raises(pulumi.RunError, match="shows it as RUNNING"):
        platform()


@pytest.mark.parametrize(
    "answer", [{"status": "RUNNING"}, {"status": "RECONCILING"}, {"status": "DEGRADED"}, {"code": 403}]
)
def test_a_cluster_that_takes_requests_is_used(platform: Run, status: dict[str, Any], answer: dict[str, Any]) -> None:
    status |= answer
    _, told = platform()
    kubeconfig, is_secret = told["kubeconfig"]
    assert json.loads(kubeconfig)["current-context"] == "model-serving"
    assert not is_secret, "it is not, although the token is that asks"


# What is watched


def _queries() -> list[str]:
    settings = GcpSettings.model_validate({"project": "acme-models", "region": "europe-west1"})
    args = observability.ObservabilityArgs(settings=settings, cluster="model-serving", namespace="models")
    tiles = observability.dashboard(args)["mosaicLayout"]["tiles"]
    charts = [
        data["timeSeriesQuery"]["prometheusQuery"] for tile in tiles for data in tile["widget"]["xyChart"]["dataSets"]
    ]
    return charts + [alert.query for alert in observability.alerts(args).values()]


@pytest.mark.parametrize("query", _queries())
def test_queries_use_known_metrics_and_labels_alone(query: str) -> None:
    known = {**observability.MLSERVER_METRICS, **observability.PLATFORM_METRICS}
    selected = re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", query)
    assert selected
    for metric, selector in selected:
        assert metric in known, metric
        labels = set(re.findall(r"(\w+)=", selector))
        assert labels <= known[metric] | observability.TARGET_LABELS, metric
    kept = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
    assert kept <= {label for metric, _ in selected for label in known[metric]} | observability.TARGET_LABELS


def test_every_listed_metric_is_used() -> None:
    everything = " ".join(_queries())
    for metric in (*observability.MLSERVER_METRICS, *observability.PLATFORM_METRICS):
        assert f"{metric}{{" in everything


def test_collector_reads_the_port_and_tells_model_and_version(platform: Run) -> None:
    recorder, _ = platform()
    (collection,) = recorder.of_kind("PodMonitoring").values()
    assert collection["spec"]["endpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "30s"}]
    assert collection["spec"]["targetLabels"]["fromPod"] == [
        {"from": "app.kubernetes.io/name", "to": "served_model"},
        {"from": "app.kubernetes.io/version", "to": "served_version"},
    ]


def test_alerts_tell_whom_the_stack_names(platform: Run) -> None:
    recorder, _ = platform(**EVERYTHING)
    policies = recorder.of_kind("AlertPolicy")
    assert set(policies) == {"observability-errors", "observability-latency", "observability-not-ready"}
    assert {tuple(i["notificationChannels"]) for i in policies.values()} == {("observability-team-example-com-id",)}
    (dashboard,) = recorder.of_kind("Dashboard").values()
    assert len(json.loads(dashboard["dashboardJson"])["mosaicLayout"]["tiles"]) == 6


def _defaults(value: Any, place: str = "") -> Iterator[str]:
    """Places of fields that Google would leave out of what it returns."""
    if isinstance(value, dict):
        for key, each in value.items():
            if each in (0, "", False, None) or each == []:
                yield f"{place}.{key}"
            yield from _defaults(each, f"{place}.{key}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _defaults(each, f"{place}[{index}]")


def test_the_dashboard_is_written_as_google_returns_it(platform: Run) -> None:
    # Otherwise each refresh would show a change, for ever.
    recorder, _ = platform()
    (dashboard,) = recorder.of_kind("Dashboard").values()
    written = json.loads(dashboard["dashboardJson"])
    assert list(_defaults(written)) == []
    places = [(tile.get("xPos", 0), tile.get("yPos", 0)) for tile in written["mosaicLayout"]["tiles"]]
    assert places == [(0, 0), (24, 0), (0, 16), (24, 16), (0, 32), (24, 32)]


def test_nothing_is_watched_unless_wanted(platform: Run) -> None:
    recorder, _ = platform(observability={"enabled": False})
    for kind in ("Dashboard", "AlertPolicy", "PodMonitoring"):
        assert recorder.of_kind(kind) == {}
