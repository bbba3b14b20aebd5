from __future__ import annotations

import base64
import json
import signal
from http.server import BaseHTTPRequestHandler

import pytest

from model_serving.pipelines import redact
from tests.engine import checkout
from tests.engine.checkout import Job, commit, git, run
from tests.engine.conftest import SmallProject
from tests.engine.harness import Project, plain_secrets
from tests.unit.conftest import serving

PROGRAM = """
import pulumi
import pulumi_kubernetes as k8s

VERSION = "{version}"

def route(name, path, backends):
    rule = {{
        "matches": [{{"path": {{"type": "PathPrefix", "value": "/mlapi/v2/models/" + path}}}}],
        "backendRefs": [{{"name": service, "port": 8080, "weight": weight}} for service, weight in backends.items()],
    }}
    return k8s.apiextensions.CustomResource(
        name, api_version="gateway.networking.k8s.io/v1", kind="HTTPRoute",
        metadata={{"name": name, "namespace": "models"}}, spec={{"rules": [rule]}},
    )

slug = "iris-" + VERSION.replace(".", "-")
pinned = route("iris." + VERSION.replace(".", "-"), "iris/versions/" + VERSION, {{slug: 1}})
route("iris", "iris", {{slug: 100}})
pulumi.export("endpoint", "https://models.example.com")
pulumi.export("models", {{"iris": {{"url": "https://x", "versions": {{VERSION: {{"weight": 100}}}}}}}})
"""
IMAGE = """
import pulumi_docker_build as docker_build

kept = pulumi.ResourceOptions(retain_on_delete=True)
docker_build.Image("iris-1-0", tags=["{registry}/iris:1.0"], push=True, opts=kept)
"""
MODEL_ROUTE = {"token": "kubernetes:gateway.networking.k8s.io/v1:HTTPRoute", "name": "iris"}


@pytest.fixture
def project(small: SmallProject) -> Project:
    project = small(PROGRAM.format(version="1.0"))
    commit(project)
    return project


def deploy(project: Project, *options: str, **environ: str) -> checkout.Ended:
    return run(project, "deploy", "--stack", project.stack, *options, **environ)


def start(project: Project, **environ: str) -> Job:
    return Job(project, "deploy", "--stack", project.stack, **environ)


def live(ended: checkout.Ended) -> list[list[str]]:
    """The rows of the table."""
    below = ended.text.partition("live on test now:\n")[2]
    return [line.split() for line in below.partition("\n\n")[0].splitlines()[1:] if "%" in line]


def row(version: str) -> list[str]:
    return ["iris", version, "100%", "https://models.example.com/mlapi/v2/models/iris"]


def test_main_goes_forward_and_an_old_job_does_not_take_it_back(project: Project) -> None:
    first = git(project, "rev-parse", "HEAD").strip()
    done = deploy(project, CI_COMMIT_SHA=first)
    assert done.code == 0, done
    assert live(done) == [row("1.0")], done
    assert "own overhead" in done.text
    assert project.run("stack", "tag", "ls", "--json").text.strip() in ("", "{}"), "a record stayed"

    second = commit(project, PROGRAM.format(version="1.1"))
    other = deploy(project, CI_COMMIT_SHA=first)
    assert other.code == 1
    assert "CI_COMMIT_SHA is" in other.text
    assert live(deploy(project, CI_COMMIT_SHA=second)) == [row("1.1")]

    git(project, "checkout", "--quiet", first)
    refused = deploy(project)
    assert refused.code == 1, refused
    assert f"{second[:10]} is newer than {first[:10]}, and was deployed" in refused.text
    assert "updating" not in refused.text
    forced = deploy(project, DEPLOY_FORCE_OLDER="true")
    assert forced.code == 0, forced
    assert live(forced) == [row("1.0")]


def test_what_is_in_no_commit_or_was_not_previewed_is_not_deployed(project: Project) -> None:
    (project.folder / "__main__.py").write_text(PROGRAM.format(version="6.6"))
    dirty = deploy(project)
    assert dirty.code == 1
    assert "changes that are in no commit: __main__.py" in dirty.text
    git(project, "checkout", "--quiet", "__main__.py")

    previews = project.folder / "previews"
    previews.mkdir()
    preview = {"stack": "test", "commit": "0" * 40, "outcome": "ok"}
    (previews / "test.json").write_text(json.dumps(preview))
    other = deploy(project, "--previewed", "previews")
    assert other.code == 1
    assert "the preview is of commit 0000000000" in other.text
    assert project.cloud.resources("kubernetes") == {}
    (previews / "test.json").write_text(json.dumps({**preview, "commit": git(project, "rev-parse", "HEAD").strip()}))
    assert deploy(project, "--previewed", "previews").code == 0


def test_a_failure_says_what_is_live_and_how_to_go_on(project: Project) -> None:
    assert deploy(project).code == 0
    commit(project, PROGRAM.format(version="2.0"))
    project.cloud.fail({**MODEL_ROUTE, "fault": "permission-denied", "operation": "update"})
    failed = deploy(project)
    assert failed.code == 1, failed
    assert "Permission denied on resource iris" in failed.text
    assert live(failed) == [row("1.0")], "the route still leads to the old version"
    assert "`pulumi stack output` differs" in failed.text
    assert "python -m model_serving deploy --stack test" in failed.text
    project.cloud.fail()
    assert live(deploy(project)) == [row("2.0")]


def test_a_run_that_was_killed_is_recovered_by_the_next(project: Project) -> None:
    assert deploy(project).code == 0
    first = git(project, "rev-parse", "HEAD").strip()
    second = commit(project, PROGRAM.format(version="2.0"))
    project.cloud.fail({**MODEL_ROUTE, "fault": "slow", "operation": "update", "seconds": 30})
    killed = start(project)
    killed.says("updating HTTPRoute iris")
    killed.kill()
    project.cloud.fail()

    # The commit that was half deployed counts.
    git(project, "checkout", "--quiet", first)
    refused = deploy(project)
    assert refused.code == 1, refused
    assert f"{second[:10]} is newer than" in refused.text, refused.text

    git(project, "checkout", "--quiet", "main")
    recovered = deploy(project)
    assert recovered.code == 0, recovered
    assert f"cancelling the lock of a dead run: {killed_by(killed)}" in recovered.text
    assert "left by an earlier run: updating" in recovered.text
    assert live(recovered) == [row("2.0")]
    assert "pending_operations" not in project.export()
    assert project.run("stack", "tag", "ls", "--json").text.strip() in ("", "{}"), "a record stayed"


def killed_by(job: Job) -> str:
    """How a job called itself."""
    return job.text.partition("to test: ")[2].partition("\n")[0]


def test_of_two_deployments_at_once_one_waits(project: Project) -> None:
    assert deploy(project).code == 0
    commit(project, PROGRAM.format(version="2.0"))
    project.cloud.fail({**MODEL_ROUTE, "fault": "slow", "operation": "update", "seconds": 60})
    first = start(project)
    first.says("updating HTTPRoute iris")
    second = start(project)
    assert "its process is running on this machine" in second.says("the stack is locked, waiting")
    project.cloud.fail()
    ends = [first.ends(), second.ends()]
    assert [end.code for end in ends] == [0, 0], ends
    assert live(ends[1]) == [row("2.0")]
    assert "cancelling" not in ends[1].text


def test_a_living_run_is_not_waited_for_longer_than_is_asked(project: Project) -> None:
    project.cloud.fail({**MODEL_ROUTE, "fault": "slow", "seconds": 60})
    first = start(project)
    first.says("creating HTTPRoute iris")
    refused = deploy(project, "--lock-wait", "0")
    first.kill()
    assert refused.code == 1, refused
    assert "pulumi cancel --yes --stack test" in refused.text


def test_a_signal_ends_pulumi_in_order_and_says_what_is_live(project: Project) -> None:
    assert deploy(project).code == 0
    commit(project, PROGRAM.format(version="2.0"))
    project.cloud.fail({**MODEL_ROUTE, "fault": "slow", "operation": "update", "seconds": 4})
    job = start(project)
    job.says("updating HTTPRoute iris")
    job.process.send_signal(signal.SIGTERM)
    ended = job.ends()
    assert ended.code not in (0, None), ended
    assert "live on test now:" in ended.text
    assert "python -m model_serving deploy --stack test" in ended.text
    again = deploy(project)
    assert again.code == 0, again
    assert "cancelling" not in again.text, "the lock was left behind"
    assert live(again) == [row("2.0")]


def test_an_interrupted_creation_in_the_cloud_comes_with_the_command_that_takes_it_in(small: SmallProject) -> None:
    bucket = 'import pulumi_gcp as gcp\ngcp.storage.Bucket("b", name="bucket-b", location="EU")\n'
    project = small(bucket)
    commit(project)
    # As if the cloud had finished what the killed run had begun.
    project.up()
    (urn,) = (each["urn"] for each in project.resources())
    project.run("state", "delete", urn, "--yes")
    project.cloud.fail({"fault": "slow", "seconds": 30})
    killed = start(project)
    killed.says("creating Bucket b")
    killed.kill()
    project.cloud.fail()
    failed = deploy(project)
    assert failed.code == 1, failed
    assert "The killed run may have created b." in failed.text
    (command,) = (line.strip() for line in failed.text.splitlines() if line.strip().startswith("pulumi import"))
    words = command.replace("'", "").replace("--stack test ", "").split()
    project.run(*words[1:-1], "bucket-b", "--skip-preview")
    done = deploy(project)
    assert done.code == 0, done
    assert "pending_operations" not in project.export()


SECRET = "planted-in-config-1"  # noqa: S105
NESTED = "planted-in-object-2"
OUTPUT = "planted-in-output-3"
TOKEN = "planted-in-environment-4"  # noqa: S105
LINES = "planted-line-5a\nplanted-line-5b\n"
LEAKING = """
import base64
import os
import pulumi
import pulumi_kubernetes as k8s

def text_of(encoded):
    return base64.b64encode(encoded.encode()).decode()

config = pulumi.Config()
secret, lines = config.require_secret("secret"), config.require_secret("lines")
nested = config.require_secret_object("object").apply(lambda value: value["deep"][0])
for number, value in enumerate([secret, secret.apply(text_of), nested]):
    metadata = {"name": value, "namespace": "x"}
    first = k8s.core.v1.ConfigMap(f"first-{number}", metadata=metadata)
    if os.environ.get("TWICE") == str(number):
        # The second of a name is refused, and the refusal tells the name.
        after = pulumi.ResourceOptions(depends_on=first)
        k8s.core.v1.ConfigMap(f"second-{number}", metadata=metadata, opts=after)
pulumi.export("nested", pulumi.Output.secret({"deep": ["planted-in-output-3"]}))
pulumi.Output.all(secret, nested, lines).apply(lambda all: [print(each) for each in all])
token = os.environ["API_TOKEN"]
print(token, text_of(token), text_of("user:" + token))
# A literal is known from the first deployment on, when it is in the state.
print("planted-in-output-3" if os.environ.get("TWICE") else "")
"""


def test_no_planted_secret_is_in_the_log(small: SmallProject) -> None:
    project = small(LEAKING)
    project.run("config", "set", "--secret", "secret", SECRET)
    project.run("config", "set", "--secret", "--path", "object.deep[0]", NESTED)
    project.run("config", "set", "--secret", "lines", LINES)
    commit(project)
    planted = [SECRET, NESTED, OUTPUT, TOKEN, *LINES.split()]
    done = deploy(project, API_TOKEN=TOKEN)
    assert done.code == 0, done
    assert redact.MARK in done.text
    assert plain_secrets(done.text, *planted) == []
    for number in ("0", "1"):  # plain, then base64
        failed = deploy(project, API_TOKEN=TOKEN, TWICE=number)
        assert failed.code == 1, failed
        assert f"Error 409: x/{redact.MARK} already exists" in failed.text
        assert plain_secrets(failed.text, *planted) == []
        assert base64.b64encode(f"user:{TOKEN}".encode()).decode() not in failed.text


class EmptyRegistry(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


def test_an_image_that_the_registry_has_lost_is_built_again(small: SmallProject) -> None:
    with serving(EmptyRegistry) as registry:
        project = small(PROGRAM.format(version="1.0") + IMAGE.format(registry=registry))
        commit(project)
        assert "rebuilt" not in deploy(project).text
        again = deploy(project)
    assert again.code == 0, again
    assert f"{registry}/iris:1.0 is no longer in the registry and will be rebuilt" in again.text
    assert "created replacement Image iris-1-0" in again.text
