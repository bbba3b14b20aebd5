"""A stack with a GitLab agent through the real engine: its token's life, and by whom the rest of the stack is made."""

from __future__ import annotations

import inspect
import json
import os
import re
from pathlib import Path
from typing import Any

import pulumi_gitlab
import pytest
from pulumi import _types

from components.gitlab_agent.access import DEPLOYED
from tests.engine.conftest import Standing, Whole
from tests.engine.gitlab_standin import AGENT, FILE, GLAGENT, INPUTS, TOKEN
from tests.engine.harness import ENDPOINT, Outcome, Project, plain_secrets

MAINTAINER = {"GITLAB_TOKEN": "glpat-of-a-maintainer"}
ENVIRON = MAINTAINER | {"KUBECONFIG": "kubeconfig"}
RELEASE = "kubernetes:helm.sh/v3:Release"
ROLE = "kubernetes:rbac.authorization.k8s.io/v1:Role"
SECRET = "kubernetes:core/v1:Secret"  # noqa: S105 - a type of resource
CONTEXT = "acme/model-serving:dev"
SECTION = """\
  model-serving:agent:
    name: dev
    project: acme/model-serving
    projectId: 11
    configuration: written
    tokens: [a]
"""
GIVEN = "glagent-given-by-hand"
WITH_AGENT = (
    ("  model-serving:models:\n", f"{SECTION}  model-serving:models:\n"),
    # One model shows what the agent does to each of them.
    ("    iris-dtc: {}\n    classificador-produtos: {}\n", ""),
)


@pytest.fixture
def project(whole: Whole) -> Project:
    """The stack dev with an agent, not yet up."""
    project = whole("dev")
    for old, new in WITH_AGENT:
        project.edit_settings(old, new)
    project.environment |= ENVIRON
    return project


@pytest.fixture
def standing_project(standing: Standing) -> Project:
    """The stack dev with an agent, up."""
    return standing("dev", WITH_AGENT, ENVIRON)


def kubeconfig(project: Project) -> Path:
    return project.folder / project.environment["KUBECONFIG"]


def give_context(project: Project) -> None:
    """What GitLab gives to a job that may use the agent."""
    content = {
        "contexts": [{"name": CONTEXT, "context": {"cluster": "gitlab", "user": "agent:7"}}],
        "clusters": [{"name": "gitlab", "cluster": {"server": f"https://{os.environ[ENDPOINT]}"}}],
        "users": [{"name": "agent:7", "user": {"token": str(project.cloud.folder)}}],
    }
    kubeconfig(project).write_text(json.dumps(content))


def of_type(project: Project, token: str) -> dict[str, dict[str, Any]]:
    """Name in the program to what the cloud holds, for one type."""
    held = project.cloud.resources(token.partition(":")[0]).values()
    return {each["name"]: each["inputs"] for each in held if each["token"] == token}


def mounted(project: Project) -> str:
    """The token that the pods have, as the cluster holds it."""
    (release,) = of_type(project, RELEASE).values()
    wanted = release["values"]["config"]["secretName"]
    (secret,) = (each for each in of_type(project, SECRET).values() if each["metadata"]["name"] == wanted)
    return str(secret["stringData"]["token"])


def valid(project: Project) -> set[str]:
    """The tokens that GitLab takes."""
    held = project.cloud.resources("gitlab").values()
    return {each["outputs"]["token"] for each in held if each["token"] == TOKEN}


def kinds(outcome: Outcome, operation: str) -> list[str]:
    """In the engine's order; providers left out."""
    steps = (step for step in outcome.steps if step.operation == operation)
    return [step.token for step in steps if not step.token.startswith("pulumi:providers:")]


def provider_of(project: Project, kind: str) -> set[str]:
    """Names of the providers that have the resources of a kind."""
    resources = (each for each in project.resources() if each["type"].startswith("kubernetes:"))
    found = (each["provider"] for each in resources if each["type"].endswith(f":{kind}"))
    return {each.rpartition("::")[0].rpartition("::")[2] for each in found}


def made_through_the_agent(project: Project) -> set[tuple[str, str]]:
    """API group and plural of every kind that the provider behind the agent has, in Kubernetes's words."""
    found = (each["type"].split(":") for each in project.resources() if each["provider"].split("::")[-2] == "cluster")
    return {
        (place.rpartition("/")[0].removeprefix("core"), re.sub(r"([^aeiou])y$", r"\1ie", kind.lower()) + "s")
        for _, place, kind in found
    }


@pytest.mark.parametrize("token", [AGENT, TOKEN, FILE])
def test_the_stand_in_knows_properties_as_the_sdk_does(token: str) -> None:
    arguments = getattr(pulumi_gitlab, f"{token.rpartition(':')[2]}Args")
    names = _types.input_type_py_to_pulumi_names(arguments)
    parameters = inspect.signature(arguments.__init__).parameters.values()
    required, optional = INPUTS[token]
    assert required == {names[each.name] for each in parameters if each.name in names and each.default is each.empty}
    assert optional <= set(names.values()) - required


def test_a_stack_with_an_agent_comes_up_stays_shows_no_token_and_goes(project: Project) -> None:
    project.up()
    assert mounted(project) in valid(project)
    assert "protected_branches_only: true" in of_type(project, FILE)["gitlab-agent"]["content"]
    assert plain_secrets(project.export(), GLAGENT, *valid(project)) == []
    assert json.loads(project.outputs())["agent"] == {"kubeContext": CONTEXT}
    # Nothing is to be done in GitLab, so nobody needs its token: neither a preview nor the drift job.
    del project.environment["GITLAB_TOKEN"]
    again = project.preview()
    assert again.changes == {}, again

    refused = project.destroy(fails=True)
    assert "401 Unauthorized" in refused.text
    project.environment |= MAINTAINER
    project.destroy()
    assert project.cloud.resources("kubernetes") == project.cloud.resources("gitlab") == {}


@pytest.mark.thorough("test_a_token_is_kept_as_long_as_the_pods_with_the_new_one_do_not_come_up, which then changes it")
def test_a_token_changes_and_the_pods_never_have_one_that_gitlab_refuses(standing_project: Project) -> None:
    project = standing_project
    first = mounted(project)

    project.edit_settings("tokens: [a]", "tokens: [a, b]")
    added = project.up()
    assert sorted(kinds(added, "create")) == sorted([TOKEN, SECRET])
    assert sorted(kinds(added, "update")) == sorted([RELEASE, ROLE]), "and verify may read the new Secret"
    assert kinds(added, "delete") == []
    assert [step.token for step in added.steps if step.token in (TOKEN, SECRET, RELEASE)] == [TOKEN, SECRET, RELEASE]
    assert len(valid(project)) == 2
    assert mounted(project) in valid(project) - {first}

    # A third one is refused, which leaves the pods alone.
    both, before = valid(project), mounted(project)
    project.edit_settings("tokens: [a, b]", "tokens: [b, c]")
    assert "only two active tokens" in project.up(fails=True).text
    assert mounted(project) == before
    assert before in valid(project) <= both
    project.edit_settings("tokens: [b, c]", "tokens: [b]")
    removed = project.up()
    assert sorted(kinds(removed, "delete")) == sorted([TOKEN, SECRET])
    assert kinds(removed, "update") == [ROLE], "the pods stay as they are"
    assert valid(project) == {mounted(project)}
    assert project.preview().changes == {}


def test_a_token_is_kept_as_long_as_the_pods_with_the_new_one_do_not_come_up(standing_project: Project) -> None:
    project = standing_project
    first = mounted(project)
    # In one step, which is one too few for a person to look in between, and no less safe.
    project.edit_settings("tokens: [a]", "tokens: [b]")
    project.cloud.fail({"fault": "timeout", "token": RELEASE, "operation": "update"})
    failed = project.up(fails=True)
    assert kinds(failed, "delete") == []
    assert mounted(project) == first
    assert first in valid(project)

    project.cloud.fail()
    done = project.up()
    order = [(step.operation, step.token) for step in done.steps if step.token in (TOKEN, RELEASE)]
    assert order == [("update", RELEASE), ("delete", TOKEN)]
    assert valid(project) == {mounted(project)} != {first}


@pytest.mark.thorough("tests/unit/test_agent.py, which declares it, and the secrets of tests/engine/test_preview.py")
def test_a_token_that_was_made_elsewhere_is_taken_as_a_secret_and_never_shown(project: Project) -> None:
    project.edit_settings("    configuration: written\n", "    configuration: elsewhere\n    register: false\n")
    project.run("config", "set", "--plaintext", "model-serving:agentToken", GIVEN)
    plain = project.preview(fails=True)
    assert "is in plain text" in plain.text
    project.run("config", "set", "--secret", "model-serving:agentToken", GIVEN)
    assert GIVEN not in project.settings()
    up = project.up()
    assert mounted(project) == GIVEN
    assert project.cloud.resources("gitlab") == {}
    shown = plain.text + up.text + project.export() + project.preview().text
    assert plain_secrets(shown, GIVEN) == []


def test_a_stack_moves_behind_its_agent_without_a_change_and_goes_before_it(standing_project: Project) -> None:
    project = standing_project
    assert provider_of(project, "Deployment") == provider_of(project, "Release") == {"cluster"}

    project.edit_settings(
        "  model-serving:agent:\n", f"  model-serving:kubeContext: {CONTEXT}\n  model-serving:agent:\n"
    )
    moved = project.up()
    assert kinds(moved, "create") == kinds(moved, "update") == kinds(moved, "delete") == [], moved
    assert not any("replace" in step.operation for step in moved.steps), moved
    assert project.preview().changes == {}

    give_context(project)
    project.up()
    for kind in ("Deployment", "Service", "HTTPRoute", "Gateway", "HealthCheckPolicy"):
        assert provider_of(project, kind) == {"cluster"}, kind
    for kind in ("Namespace", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Secret", "Release"):
        assert provider_of(project, kind) == {"administrator"}, kind
    assert made_through_the_agent(project) <= {(group, kind) for group, kinds in DEPLOYED.items() for kind in kinds}
    (through,) = (
        each for each in project.all_resources() if each["urn"].endswith("pulumi:providers:kubernetes::cluster")
    )
    assert through["inputs"]["context"] == CONTEXT
    assert "kubeconfig" not in through["inputs"] or through["inputs"]["kubeconfig"] == ""
    assert project.preview().changes == {}

    # A merge request's job has no such context: the same program takes Google's credentials instead.
    kubeconfig(project).unlink()
    preview = project.preview()
    assert kinds(preview, "update") == kinds(preview, "create") == [], preview

    give_context(project)
    gone = kinds(project.destroy(), "delete")
    last_model = max(index for index, token in enumerate(gone) if token in ("kubernetes:apps/v1:Deployment",))
    assert last_model < gone.index(RELEASE), "the branch was sawn off before what hangs on it was down"
    assert project.cloud.resources("kubernetes") == {}
