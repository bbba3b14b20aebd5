from __future__ import annotations

import base64
import copy
import json
import os
import signal
import time

import pytest

from model_serving.pipelines import redact
from tests.engine import checkout
from tests.engine.checkout import Job, commit, git, run
from tests.engine.conftest import SmallProject
from tests.engine.empty_registry import EmptyRegistry
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
# A job of GitLab with a token that has expired, at a site that does not answer.
JOB = {
    "CI_API_V4_URL": "http://127.0.0.1:9/api/v4",
    "CI_JOB_NAME": "deploy test",
    "CI_PIPELINE_ID": "7",
    "MODEL_SERVING_GITLAB_TOKEN": "expired",
}
MODEL_ROUTE = {"token": "kubernetes:gateway.networking.k8s.io/v1:HTTPRoute", "name": "iris"}


@pytest.fixture
def project(small: SmallProject) -> Project:
    project = small(PROGRAM.format(version="1.0"))
    commit(project)
    return project


def deploy(project: Project, *options: str, **environ: str) -> checkout.Ended:
    return run(project, "deploy", "--stack", project.stack, *options, **environ)


def start(project: Project, *options: str, **environ: str) -> Job:
    return Job(project, "deploy", "--stack", project.stack, *options, **environ)


def preview(project: Project, folder: str) -> checkout.Ended:
    """Previews the checked-out commit into a folder outside of the checkout."""
    return run(project, "preview", "--stack", project.stack, "--out", f"../{folder}")


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
    (previews / "test.json").write_text(json.dumps({**preview, "commit": git(project, "rev-parse", "HEAD").strip()}))
    more = deploy(project, "--previewed", "previews")
    assert more.code == 1
    assert "create HTTPRoute iris" in more.text
    assert project.cloud.resources("kubernetes") == {}


def test_only_what_was_approved_is_deployed(project: Project) -> None:
    assert deploy(project).code == 0
    canary = commit(project, PROGRAM.format(version="1.1"))
    assert preview(project, "canary").code == 0
    back = commit(project, PROGRAM.format(version="1.0"))
    assert "no changes" in preview(project, "back").text

    git(project, "checkout", "--quiet", canary)
    project.cloud.fail({**MODEL_ROUTE, "fault": "permission-denied", "operation": "update"})
    failed = deploy(project, "--previewed", "../canary")
    assert failed.code == 1
    assert "Permission denied" in failed.text
    project.cloud.fail()
    # What was approved is not complete: no other approval is needed.
    done = deploy(project, "--previewed", "../canary")
    assert live(done) == [row("1.1")], done

    git(project, "checkout", "--quiet", back)
    refused = deploy(project, "--previewed", "../back", **JOB)
    assert refused.code == 1
    assert "delete HTTPRoute iris.1-1" in refused.text, refused
    assert "run the job `preview test` of this pipeline again" in refused.text
    assert live(refused) == []
    assert preview(project, "back").code == 0
    done = deploy(project, "--previewed", "../back")
    assert live(done) == [row("1.0")], done


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


@pytest.mark.parametrize("is_whole", [True, pytest.param(False, marks=pytest.mark.thorough("killing the whole job"))])
def test_a_job_that_was_killed_is_recovered_by_the_next_without_a_token(project: Project, *, is_whole: bool) -> None:
    assert deploy(project, "--only-job", **JOB).code == 0
    assert tags(project) == {}
    first = git(project, "rev-parse", "HEAD").strip()
    second = commit(project, PROGRAM.format(version="2.0"))
    project.cloud.fail({**MODEL_ROUTE, "fault": "slow", "operation": "update", "seconds": 30})
    killed = start(project, "--only-job", **JOB)
    killed.says("updating HTTPRoute iris")
    await_pending(project)
    kill(killed, is_whole=is_whole)
    project.cloud.fail()

    # The commit that was half deployed counts.
    git(project, "checkout", "--quiet", first)
    refused = deploy(project, "--only-job", **JOB)
    assert refused.code == 1, refused
    assert f"{second[:10]} is newer than" in refused.text, refused.text

    git(project, "checkout", "--quiet", "main")
    # Whether another job runs is not known without the option.
    waiting = deploy(project, "--lock-wait", "0", **JOB)
    assert waiting.code == 1, waiting
    assert "only its own machine can tell" in waiting.text

    pair = [start(project, "--only-job", **JOB) for _ in range(2)]
    ends = [job.ends() for job in pair]
    assert [each.code for each in ends] == [0, 0], ends
    text = "".join(each.text for each in ends)
    assert "removing the lock of a dead run: job deploy test of pipeline 7" in text
    assert "left by an earlier run: updating" in text
    assert live(deploy(project)) == [row("2.0")]
    assert "pending_operations" not in project.export()
    assert tags(project) == {}


def tags(project: Project) -> object:
    return json.loads(project.run("stack", "tag", "ls", "--json").text or "{}")


def await_pending(project: Project) -> None:
    """Waits until the state tells of an operation that has begun: Pulumi says that it begins before it writes this."""
    until = time.monotonic() + checkout.SECONDS
    while "pending_operations" not in project.export():
        assert time.monotonic() < until
        time.sleep(0.05)


def kill(job: Job, *, is_whole: bool) -> None:
    """Kills a job, or only its Pulumi, as a machine without memory does."""
    if is_whole:
        job.kill()
        return
    os.kill(checkout.descendants(job.process.pid)[0], signal.SIGKILL)
    assert job.ends().code == 128 + signal.SIGKILL


def test_a_person_at_a_laptop_is_never_taken_for_a_killed_job(project: Project) -> None:
    project.cloud.fail({**MODEL_ROUTE, "fault": "slow", "seconds": 60})
    person = start(project)
    person.says("creating HTTPRoute iris")
    # As if it were another machine's, with the process of this one.
    (path,) = (project.folder.parent / f"{project.folder.name}-state").glob(".pulumi/locks/**/*.json")
    path.write_text(path.read_text().replace(json.loads(path.read_text())["hostname"], "laptop"))
    refused = deploy(project, "--only-job", "--lock-wait", "0", **JOB)
    assert refused.code == 1, refused
    assert "pulumi cancel --yes --stack test" in refused.text
    assert path.exists()
    person.kill()


def test_a_commit_that_was_never_pushed_is_refused_with_a_way_out_that_works(project: Project) -> None:
    pipeline = copy.copy(project)
    origin, pipeline.folder = (project.folder.parent / name for name in ("origin", "clone"))
    git(project, "clone", "--quiet", "--bare", ".", str(origin))
    git(project, "clone", "--quiet", str(origin), str(pipeline.folder))
    (pipeline.folder / ".venv").symlink_to(project.folder / ".venv")
    unpushed = commit(project, PROGRAM.format(version="2.0"))
    project.up()

    refused = deploy(pipeline, **JOB)
    assert refused.code == 1, refused
    assert f"{unpushed[:10]} cannot be fetched from the repository, and was deployed" in refused.text
    assert "by a laptop" in refused.text
    assert "start a pipeline for main (Build > Pipelines > New pipeline) with DEPLOY_FORCE_OLDER=true" in refused.text
    done = deploy(pipeline, DEPLOY_FORCE_OLDER="true", **JOB)
    assert live(done) == [row("1.0")], done


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
    await_pending(project)
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


def test_an_image_that_the_registry_has_lost_is_built_again(small: SmallProject) -> None:
    with serving(EmptyRegistry) as registry:
        project = small(PROGRAM.format(version="1.0") + IMAGE.format(registry=registry))
        commit(project)
        assert "rebuilt" not in deploy(project).text
        again = deploy(project)
    assert again.code == 0, again
    assert f"{registry}/iris:1.0 is no longer in the registry and will be rebuilt" in again.text
    assert "created replacement Image iris-1-0" in again.text
