"""The program: from the stack's settings and the released models to what runs in the cluster."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pulumi

import inputs
import state
from components.gateway import Gateway, GatewayArgs
from components.namespace import ServingNamespace, ServingNamespaceArgs
from model_images import ModelImages
from model_serving.problems import InvalidInput
from reach import Reach
from serving import Place, Serving
from settings import Settings

if TYPE_CHECKING:
    from components.agent import Agent
    from components.platform import Platform


def read_inputs() -> inputs.Inputs:
    config = pulumi.runtime.config.get_config_env()
    encrypted = [key for key in config if pulumi.runtime.is_config_secret(key)]
    try:
        return inputs.read(pulumi.get_stack(), config, secret=encrypted)
    except InvalidInput as error:
        raise pulumi.RunError(f"nothing was changed.\n\n{error}\n") from None


def declare_platform(settings: Settings) -> Platform | None:
    if settings.gcp is None:
        return None
    # Imported here: a stack without a cloud does not wait for what declares one.
    from components.platform import Platform, PlatformArgs  # noqa: PLC0415

    return Platform("platform", PlatformArgs(settings=settings.gcp, namespace=settings.namespace))


def declare_agent(settings: Settings, opts: pulumi.ResourceOptions) -> list[Agent]:
    if settings.agent is None:
        return []
    # Imported here: only a stack with an agent waits for Helm's classes.
    from components.agent import Agent, AgentArgs  # noqa: PLC0415

    chosen, token = settings.agent, pulumi.Config().get_secret("agentToken")
    args = AgentArgs(
        settings=chosen,
        stack=pulumi.get_stack(),
        serving_namespace=settings.namespace,
        namespace=namespace.name,
        tier=settings.ci.tier if settings.ci else None,
        tokens={chosen.mounted_token: token} if token else {},
    )
    return [Agent("gitlab-agent", args, opts)]


def gateway_args(settings: Settings) -> GatewayArgs:
    chosen = settings.gateway
    if platform is None or not settings.has_googles_gateway:
        return GatewayArgs(
            namespace=namespace.name,
            class_name=str(chosen.class_name),
            endpoint=chosen.endpoint,
            cluster_endpoint=chosen.cluster_endpoint,
        )
    edge = platform.edge
    return GatewayArgs(
        namespace=namespace.name,
        class_name=edge.class_name,
        endpoint=chosen.endpoint or edge.endpoint,
        cluster_endpoint=chosen.cluster_endpoint,
        protocol=edge.protocol,
        port=edge.port,
        tls_options=edge.tls_options,
        annotations=edge.annotations,
        address_name=edge.address_name,
    )


# Of each resource the SDK tells the engine six things that only `pulumi --debug` shows, and waits for each to be taken:
# with 50 live versions half a second of a preview.
pulumi.log.debug = lambda *_, **__: None
# The program ends in seconds, with little garbage: the search for it costs more than it frees.
gc.disable()

stack = read_inputs()
settings = stack.settings
# First, while the engine writes nothing of this update yet.
known_images = state.built_images()

platform = declare_platform(settings)
registry = settings.registry or (platform.registry.url if platform else "")
releases = [version.release for model in stack.models for version in model.versions]
# Before what is in the cluster: a release waits for its image, and the engine takes up things as it hears of them.
images = ModelImages(settings, registry, releases, known=known_images)
reach = Reach(stack, platform.cluster if platform else None)
namespace = ServingNamespace("models", ServingNamespaceArgs(namespace=settings.namespace), reach.administrator)
agent = declare_agent(settings, reach.administrator)
in_cluster = reach.models(after=agent)
gateway = Gateway("gateway", gateway_args(settings), in_cluster)
if platform:
    platform.equip(namespace.name, gateway.name, reach.administrator)

place = Place(
    settings=settings,
    namespace=namespace.name,
    gateway=gateway,
    platform=platform,
    opts=in_cluster,
    kubectl=reach.kubectl,
)
serving = Serving(place, images)

pulumi.export("endpoint", gateway.endpoint)
pulumi.export("models", {model.name: serving.serve(model) for model in stack.models})
state.remember_images(images.declared)
if platform:
    pulumi.export("platform", platform.outputs)
if settings.agent:
    pulumi.export("agent", {"kubeContext": settings.agent.kube_context})
