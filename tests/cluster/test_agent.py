"""The GitLab agent on a real cluster: installed by Helm, given a token, and a release that goes through it.

What stands in for agentk answers its probes; what it would do for a job, act as it, a kubeconfig with its token does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import Project, ask
from tests.cluster.test_serving import IRIS
from tests.engine.gitlab_standin import GLAGENT
from tests.engine.harness import plain_secrets, pulumi_home

STACK = "agent"
AGENT_NAMESPACE = "gitlab-agent"
CONTEXT = "acme/model-serving:agent"
ADMINISTRATOR = "model-serving-local"
AGENT = "system:serviceaccount:gitlab-agent:gitlab-agent"
JOB = "gitlab:ci_job:42"
GROUPS = (
    "gitlab:ci_job",
    "gitlab:project:11",
    "gitlab:project_env:11:agent",
    "gitlab:project_env_tier:11:development",
    "gitlab:group:5",
    "gitlab:group_env_tier:5:development",
)
EXTRAS = {
    "id": "7",
    "config_project_id": "11",
    "project_id": "11",
    "ci_pipeline_id": "41",
    "ci_job_id": "42",
    "username": "ada",
    "environment_slug": "agent",
    "environment_tier": "development",
}
# Ready as soon as it has a token and reaches the API server, and it reaches nothing else that the test knows.
AGENTK = """
import http.server, os, pathlib, socket, sys

token = next(each.partition("=")[2] for each in sys.argv if each.startswith("--token-file="))

def reaches(host, port):
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True

class Probes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == "/liveness" or (
            self.path == "/readiness"
            and pathlib.Path(token).read_text()
            and reaches(os.environ["KUBERNETES_SERVICE_HOST"], 443)
        )
        self.send_response(200 if known else 503)
        self.end_headers()

    def log_message(self, *arguments):
        pass

http.server.HTTPServer(("", 8080), Probes).serve_forever()
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("connected")
except OSError as error:
    print("refused", error)
"""


def stack_file(checkout: Project) -> dict[str, Any]:
    """The local stack with one model, and an agent in front."""
    local = yaml.safe_load((checkout.folder / "stacks" / "Pulumi.local.yaml").read_text())["config"]
    image, _, tag = local["model-serving:images"]["base"].rpartition(":")
    agent = {
        "name": STACK,
        "project": "acme/model-serving",
        "projectId": 11,
        "groupIds": [5],
        "tokens": ["a"],
        "configuration": "elsewhere",
        "apiServerPort": 6443,
        "chart": {"reference": "./tests/cluster/charts/gitlab-agent"},
        "values": {"image": {"repository": image, "tag": tag}, "command": ["python3", "-c", AGENTK]},
    }
    models: dict[str, Any] = {"iris-dtc": {}}
    ci = {"order": 1, "tier": "development"}
    own = {"model-serving:agent": agent, "model-serving:models": models, "model-serving:ci": ci}
    return {"config": local | own}


class Stack:
    """A stack whose settings a test changes, as a commit would."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._path = project.folder / "stacks" / f"Pulumi.{STACK}.yaml"
        self._write(stack_file(project))

    def _write(self, content: dict[str, Any]) -> None:
        self._path.write_text(yaml.safe_dump(content))

    def set(self, key: str, value: Any) -> None:
        content = yaml.safe_load(self._path.read_text())
        content["config"][f"model-serving:{key}"] = value
        self._write(content)

    def agent(self, **section: Any) -> None:
        self.set("agent", yaml.safe_load(self._path.read_text())["config"]["model-serving:agent"] | section)

    def up(self, *options: str) -> str:
        return self.project.run("pulumi", "up", "--yes", "--skip-preview", "--stack", STACK, *options).stdout


@pytest.fixture(scope="module")
def stack(vacated: Project) -> Iterator[Stack]:
    """The stack, up."""
    cloud = vacated.folder / ".state" / "gitlab"
    (cloud / "backend").mkdir(parents=True)
    kubeconfig = cloud / "kubeconfig"
    kubeconfig.write_text((vacated.folder / ".state" / "kubeconfig").read_text())
    environment = {
        **vacated.environment,
        "PULUMI_HOME": str(pulumi_home(cloud / "home", standins=("gitlab",))),
        "PULUMI_BACKEND_URL": f"file://{cloud / 'backend'}?metadata=skip",
        "KUBECONFIG": str(kubeconfig),
        "GITLAB_TOKEN": "glpat-of-a-maintainer",
        "STANDIN_STATE": str(cloud),
        "STANDIN_FAULTS": str(cloud / "faults.json"),
    }
    project = replace(vacated, environment=environment)
    stack = Stack(project)
    project.run("pulumi", "stack", "init", STACK, "--secrets-provider", "passphrase")
    stack.up()
    yield stack
    project.run("pulumi", "destroy", "--yes", "--skip-preview", "--stack", STACK)
    (project.folder / "stacks" / f"Pulumi.{STACK}.yaml").unlink()


@pytest.fixture(scope="module")
def job(stack: Stack) -> Project:
    """What a job gets: a kubeconfig by which the agent acts as the job."""
    kubeconfig = Path(stack.project.environment["KUBECONFIG"])
    content = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    token = stack.project.run("kubectl", "create", "token", "gitlab-agent", "--namespace", AGENT_NAMESPACE).stdout
    extras = {f"agent.gitlab.com/{key}": [value] for key, value in EXTRAS.items()}
    user = {"token": token.strip(), "as": JOB, "as-groups": [*GROUPS], "as-user-extra": extras}
    content["users"].append({"name": "job", "user": user})
    cluster = content["clusters"][0]["name"]
    content["contexts"].append({"name": CONTEXT, "context": {"cluster": cluster, "user": "job", "namespace": "models"}})
    kubeconfig.write_text(yaml.safe_dump(content), encoding="utf-8")
    return stack.project


def may(project: Project, identity: tuple[str, ...], *question: str) -> bool:
    """Whether somebody may do something; the question in kubectl's words."""
    answer = project.run("kubectl", *identity, "auth", "can-i", *question, check=False).stdout
    last = answer.strip().splitlines()[-1].partition(" ")[0]
    assert last in ("yes", "no"), answer
    return last == "yes"


AS_JOB = ("--context", CONTEXT)
AS_AGENT = ("--as", AGENT)
AS_PRODUCTION = ("--as", JOB, "--as-group", "gitlab:ci_job", "--as-group", "gitlab:project_env:11:production")
AS_OTHER_PROJECT = ("--as", JOB, "--as-group", "gitlab:ci_job", "--as-group", "gitlab:project_env:12:agent")
AS_ANY_JOB = ("--as", JOB, "--as-group", "gitlab:ci_job", "--as-group", "gitlab:project:11")
MODELS = ("--namespace", "models")
OWN = ("--namespace", AGENT_NAMESPACE)


@pytest.mark.parametrize(
    "question",
    [
        ("create", "deployments.apps", *MODELS),
        ("delete", "deployments.apps", *MODELS),
        ("patch", "services", *MODELS),
        ("create", "httproutes.gateway.networking.k8s.io", *MODELS),
        ("update", "gateways.gateway.networking.k8s.io", *MODELS),
        ("create", "networkpolicies.networking.k8s.io", *MODELS),
        ("create", "poddisruptionbudgets.policy", *MODELS),
        ("create", "horizontalpodautoscalers.autoscaling", *MODELS),
        ("create", "jobs.batch", *MODELS),
        ("create", "configmaps", *MODELS),
        ("watch", "pods", *MODELS),
        ("get", "namespaces/models", *MODELS),
    ],
    ids=" ".join,
)
def test_a_job_may_deploy_into_its_namespace(job: Project, question: tuple[str, ...]) -> None:
    assert may(job, AS_JOB, *question)


@pytest.mark.parametrize(
    "question",
    [
        ("create", "deployments.apps", "--namespace", "kube-system"),
        ("create", "deployments.apps", "--namespace", "default"),
        ("create", "deployments.apps", *OWN),
        ("get", "secrets", *MODELS),
        ("get", "secrets", *OWN),
        ("list", "secrets", "--all-namespaces"),
        ("create", "pods", *MODELS),
        ("create", "pods", "--subresource=exec", *MODELS),
        ("create", "serviceaccounts", *MODELS),
        ("create", "serviceaccounts", "--subresource=token", *OWN),
        ("create", "rolebindings.rbac.authorization.k8s.io", *MODELS),
        ("patch", "roles.rbac.authorization.k8s.io", *MODELS),
        ("create", "clusterroles.rbac.authorization.k8s.io"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("patch", "namespaces/models", *MODELS),
        ("delete", "namespaces/models", *MODELS),
        ("create", "namespaces"),
        ("get", "nodes"),
        ("impersonate", "users"),
        ("impersonate", "groups"),
        ("delete", "leases.coordination.k8s.io", *OWN),
    ],
    ids=" ".join,
)
def test_a_job_may_do_nothing_else(job: Project, question: tuple[str, ...]) -> None:
    assert not may(job, AS_JOB, *question)


@pytest.mark.parametrize("identity", [AS_PRODUCTION, AS_OTHER_PROJECT, AS_ANY_JOB], ids=["env", "project", "none"])
def test_jobs_of_another_environment_or_project_may_not_deploy(job: Project, identity: tuple[str, ...]) -> None:
    assert not may(job, identity, "create", "deployments.apps", *MODELS)
    assert not may(job, identity, "get", "pods", *MODELS)


@pytest.mark.parametrize(
    ("question", "allowed"),
    [
        (("create", "leases.coordination.k8s.io", *OWN), True),
        (("create", "events", *OWN), True),
        (("get", "secrets", *OWN), False),
        (("get", "secrets", *MODELS), False),
        (("create", "deployments.apps", *MODELS), False),
        (("get", "pods", *MODELS), False),
        (("impersonate", "groups/gitlab:project_env:11:agent"), True),
        (("impersonate", "groups/gitlab:project_env:11:production"), False),
        (("impersonate", "groups/system:masters"), False),
        (("impersonate", "serviceaccounts", "--namespace", "kube-system"), False),
        (("impersonate", "serviceaccounts", *MODELS), False),
        (("get", "nodes"), False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_agent_itself_may_hardly_anything(job: Project, question: tuple[str, ...], *, allowed: bool) -> None:
    assert may(job, AS_AGENT, *question) is allowed


def test_the_agent_cannot_act_in_a_group_that_is_not_its_jobs(job: Project) -> None:
    config = Path(job.environment["KUBECONFIG"])
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    (user,) = (each["user"] for each in content["users"] if each["name"] == "job")
    for group in ("system:masters", "gitlab:project_env:11:production"):
        user["as-groups"] = [*GROUPS, group]
        other = config.with_name("other-kubeconfig")
        other.write_text(yaml.safe_dump(content))
        refused = job.run("kubectl", "--kubeconfig", str(other), "--context", CONTEXT, "get", "pods", check=False)
        assert refused.returncode != 0
        assert 'cannot impersonate resource "groups" in API group "" at the cluster scope' in refused.stdout
        assert group in refused.stdout


def test_the_pods_are_as_the_program_says(stack: Stack) -> None:
    listed = stack.project.run("kubectl", *OWN, "get", "pods", "--output", "json").stdout
    pods = json.loads(listed)["items"]
    assert len(pods) == 2
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert pod["spec"]["serviceAccountName"] == "gitlab-agent"
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"] == "128Mi"
    bindings = stack.project.run("kubectl", "get", "clusterrolebindings", "--output", "json").stdout
    bound = [x for x in json.loads(bindings)["items"] if "gitlab-agent" in json.dumps(x.get("subjects", []))]
    assert [x["roleRef"]["name"] for x in bound] == ["gitlab-agent-impersonate"]
    # It was ready, so it reached the API server; a model is on another port and in another namespace.
    model = ("--selector", "app.kubernetes.io/name=iris-dtc", "--output", "jsonpath={.items[0].status.podIP}")
    address = stack.project.kubectl("get", "pods", *model).stdout
    inside = ("kubectl", *OWN, "exec", "deployment/gitlab-agent-v2", "--", "python3", "-c", CONNECT)
    assert stack.project.run(*inside, address, "8080").stdout.startswith("refused")


def test_helm_keeps_its_state_where_no_secret_is(stack: Stack) -> None:
    names = stack.project.run("kubectl", *OWN, "get", "secrets", "--output", "name").stdout.split()
    assert names == ["secret/agent-token-a"]
    assert "sh.helm.release" in stack.project.run("kubectl", *OWN, "get", "configmaps", "--output", "name").stdout
    shown = stack.project.run("pulumi", "stack", "export", "--stack", STACK).stdout
    assert plain_secrets(shown, GLAGENT) == []


def identities(project: Project) -> set[str]:
    """What Kubernetes calls each object that the program made in two namespaces: another if it is made anew."""
    kinds = "namespaces,deployments,services,networkpolicies,gateways,httproutes,secrets,roles,rolebindings"
    template = '{range .items[*]}{.kind}/{.metadata.name}/{.metadata.uid} {.metadata.generation}{"\\n"}{end}'
    listed = (
        project.run("kubectl", *where, "get", kinds, "--output", f"jsonpath={template}").stdout
        for where in (MODELS, OWN)
    )
    return {line for each in listed for line in each.splitlines()}


class Watch(threading.Thread):
    """Counts the agent's ready pods, and looks whose token each has, for as long as the block lasts."""

    def __init__(self, project: Project) -> None:
        super().__init__()
        self._project, self._done = project, threading.Event()
        self.ready: list[int] = []
        self.lost: list[str] = []

    def run(self) -> None:
        while not self._done.wait(0.2):
            found = self._project.run("kubectl", *OWN, "get", "pods,secrets", "--output", "json").stdout
            items = json.loads(found)["items"]
            secrets = {each["metadata"]["name"] for each in items if each["kind"] == "Secret"}
            ready = [each for each in items if each["kind"] == "Pod" and _is_ready(each)]
            self.ready.append(len(ready))
            self.lost += [name for each in ready if (name := _token_of(each)) not in secrets]

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def _token_of(pod: dict[str, Any]) -> str:
    (name,) = (each["secret"]["secretName"] for each in pod["spec"]["volumes"] if "secret" in each)
    return str(name)


@pytest.mark.thorough("tests/engine/test_agent.py; here, what its jobs may do")
def test_a_release_goes_through_the_agent_and_a_token_changes_meanwhile(stack: Stack, job: Project) -> None:
    # The stack moves behind its agent, and nothing of it is made anew.
    before = identities(job)
    stack.set("kubeContext", CONTEXT)
    stack.agent(administratorContext=ADMINISTRATOR)
    stack.up()
    assert identities(job) == before
    stack.up("--expect-no-changes")

    # From here on the job has no other way in: the administrator is gone from its kubeconfig.
    kubeconfig = Path(job.environment["KUBECONFIG"])
    whole = kubeconfig.read_text(encoding="utf-8")
    content = yaml.safe_load(whole)
    content["contexts"] = [each for each in content["contexts"] if each["name"] == CONTEXT]
    content["users"] = [each for each in content["users"] if each["name"] == "job"]
    content["current-context"] = CONTEXT
    kubeconfig.write_text(yaml.safe_dump(content), encoding="utf-8")
    folder = job.release("iris-dtc", "1.0.1", like="1.0")
    try:
        stack.up()
        assert ask("/mlapi/v2/models/iris-dtc/infer", IRIS)[1]["model_version"] == "1.0.1"
    finally:
        kubeconfig.write_text(whole, encoding="utf-8")
        job.run("rm", "--recursive", str(folder))
    stack.up()

    # The token, by those who may: one more, then the old one goes.
    with Watch(job) as watch:
        stack.agent(tokens=["a", "b"])
        stack.up()
        stack.agent(tokens=["b"])
        stack.up()
    assert len(watch.ready) > 5
    assert min(watch.ready) >= 2, "a moment with fewer than two pods is a moment in which one more would be none"
    assert watch.lost == [], "a pod had a token that was not there any more"
    assert job.run("kubectl", *OWN, "get", "secrets", "--output", "name").stdout.split() == ["secret/agent-token-b"]
    stack.up("--expect-no-changes")
