"""The program: from the stack's settings and the released models to what runs in the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from components import inputs, review
from components.providers import Reach
from components.serving import built_images
from components.serving.gateway import Gateway, GatewayArgs
from components.serving.images import ModelImages
from components.serving.models import Place, Serving
from components.serving.namespace import ServingNamespace

if TYPE_CHECKING:
    from components.gitlab_agent.agent import Agent
    from components.google.platform import Platform
    from model_serving.stack.settings import Settings


def main() -> None:
    stack = inputs.read()
    if review.declared(stack):
        return
    settings = stack.settings
    plan = built_images.plan(stack)
    platform = declare_platform(settings)
    # Before what is in the cluster: a release waits for its image, and the engine takes up things as it hears of them.
    images = ModelImages(settings, platform, stack.releases, plan)
    reach = Reach(stack, platform.cluster if platform else None)
    namespace = ServingNamespace("models", settings.namespace, reach.administrator)
    agent = declare_agent(settings, namespace, platform, reach.administrator)
    in_cluster = reach.models(after=agent)
    gateway = Gateway("gateway", GatewayArgs.of(settings, namespace.name, platform), in_cluster)
    if platform:
        platform.equip(settings, namespace.name, gateway.name, reach.administrator)
    place = Place(
        settings=settings, namespace=namespace.name, gateway=gateway, platform=platform, reach=reach, opts=in_cluster
    )
    serving = Serving(place, images)
    pulumi.export("endpoint", gateway.endpoint)
    pulumi.export("models", {model.name: serving.serve(model) for model in stack.models})
    serving.open_portal()
    built_images.remember(plan.declared.values())
    for name, value in (platform.outputs if platform else {}).items():
        pulumi.export(name, value)
    if settings.agent:
        pulumi.export("agent", {"kubeContext": settings.agent.kube_context})


def declare_platform(settings: Settings) -> Platform | None:
    if settings.gcp is None:
        return None
    # Imported here: a stack without a cloud does not wait for Google's SDK.
    from components.google.identity import Deployment  # noqa: PLC0415
    from components.google.platform import Platform  # noqa: PLC0415

    return Platform("platform", settings.gcp, settings.namespace, Deployment.of(settings, pulumi.get_stack()))


def declare_agent(
    settings: Settings, namespace: ServingNamespace, platform: Platform | None, opts: pulumi.ResourceOptions
) -> list[Agent]:
    if settings.agent is None:
        return []
    # Imported here: only a stack with an agent waits for Helm's classes.
    from components.gitlab_agent.agent import Agent, AgentArgs  # noqa: PLC0415

    token = pulumi.Config().get_secret("agentToken")
    verifier = platform.verifier if platform else None
    stack = pulumi.get_stack()
    args = AgentArgs.of(settings.agent, settings, stack=stack, namespace=namespace.name, token=token, verifier=verifier)
    return [Agent("gitlab-agent", args, opts)]


main()
