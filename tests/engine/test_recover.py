"""What `make up` does before its update leaves a state that the update can read."""

from __future__ import annotations

from tests.engine.checkout import run
from tests.engine.conftest import SmallProject
from tests.engine.empty_registry import EmptyRegistry
from tests.unit.conftest import serving

PROGRAM = """
import pulumi
import pulumi_docker_build as docker_build
import pulumi_kubernetes as k8s

kept = pulumi.ResourceOptions(retain_on_delete=True)
docker_build.Image("iris-1-0", tags=["{registry}/iris:1.0"], push=True, opts=kept)
check = k8s.core.v1.ConfigMap("check-{version}", metadata={{"name": "check-{version}", "namespace": "models"}})
k8s.core.v1.ConfigMap(
    "route", metadata={{"name": "route", "namespace": "models"}}, opts=pulumi.ResourceOptions(depends_on=[check])
)
"""


def test_an_image_that_is_lost_before_a_release_is_rebuilt_by_its_update(small: SmallProject) -> None:
    with serving(EmptyRegistry) as registry:
        project = small(PROGRAM.format(registry=registry, version="1"))
        project.up()
        # An update of the image alone, while other things are declared than in the last one, has damaged a state.
        (project.folder / "__main__.py").write_text(PROGRAM.format(registry=registry, version="2"))
        recovered = run(project, "recover", "--stack", project.stack)
        outcome = project.up()
    assert recovered.code == 0, recovered
    assert f"{registry}/iris:1.0 is no longer in the registry and will be rebuilt" in recovered.text
    assert outcome.names("replace") == {"iris-1-0"}
