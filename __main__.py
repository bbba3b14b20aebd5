"""The program: from the stack's settings and the released models to what runs in the cluster."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_kubernetes as kubernetes

import inputs
import published
import runtimes
from catalog import Release
from components.gateway import Gateway, GatewayArgs
from components.image import CONTENT_LABEL, BuildArgs, ModelImage, ModelImageArgs, RuntimeImage, RuntimeImageArgs
from components.namespace import ServingNamespace, ServingNamespaceArgs
from components.route import Backend, ModelRoute, ModelRouteArgs
from components.server import ModelServer, ModelServerArgs
from live import LiveModel
from problems import InvalidInput
from settings import Settings

if TYPE_CHECKING:
    from components.platform import Platform

try:
    stack = inputs.read(pulumi.get_stack(), pulumi.runtime.config.get_config_env())
except InvalidInput as error:
    raise pulumi.RunError(f"nothing was changed.\n\n{error}\n") from None


def declare_platform(settings: Settings) -> Platform | None:
    if settings.gcp is None:
        return None
    # The SDK's thousands of classes are there to stay; looking for garbage among them takes a quarter of the import.
    gc.disable()
    # Imported here: a stack without a cloud does not wait for the cloud's SDK.
    from components.platform import Platform, PlatformArgs  # noqa: PLC0415

    platform = Platform("platform", PlatformArgs(settings=settings.gcp, namespace=settings.namespace))
    gc.enable()
    return platform


def gateway_args(settings: Settings) -> GatewayArgs:
    chosen = settings.gateway
    if platform is None or chosen.class_name:
        return GatewayArgs(namespace=namespace.name, class_name=str(chosen.class_name), endpoint=chosen.endpoint)
    edge = platform.edge
    return GatewayArgs(
        namespace=namespace.name,
        class_name=edge.class_name,
        endpoint=chosen.endpoint or edge.endpoint,
        protocol=edge.protocol,
        port=edge.port,
        tls_options=edge.tls_options,
        annotations=edge.annotations,
        address_name=edge.address_name,
    )


settings = stack.settings
platform = declare_platform(settings)
cluster = kubernetes.Provider(
    "cluster",
    # Empty and not None, for which the SDK fills in KUBECONFIG itself: the provider finds the same file by itself, and
    # leaves no copy of it in /tmp, as it does with one that it is given.
    kubeconfig=settings.kubeconfig or (platform.cluster.kubeconfig if platform else ""),
    context=settings.kube_context,
    # Plain and constant: a preview replaces everything in a cluster whose identity it does not know.
    cluster_identifier=pulumi.get_stack(),
)
in_cluster = pulumi.ResourceOptions(providers=[cluster])
namespace = ServingNamespace("models", ServingNamespaceArgs(namespace=settings.namespace), in_cluster)
gateway = Gateway("gateway", gateway_args(settings), in_cluster)
if platform:
    platform.equip(namespace.name, gateway.name, in_cluster)


@pulumi.resource_hook("released-models-never-change", pulumi.ResourceHookOptions(on_dry_run=True))
def guard(args: pulumi.ResourceHookArgs) -> None:
    new, old = args.new_inputs or {}, args.old_inputs or {}
    # A registry that the stack names is asked; the platform's own has immutable tags and may not be there yet.
    unknown_to_state: dict[str, str] | None = None if settings.registry else {}
    published.refuse_other_content(
        new["tags"][0],
        new["labels"][CONTENT_LABEL],
        label=CONTENT_LABEL,
        previous=old.get("labels", unknown_to_state),
    )


build = BuildArgs(
    registry=settings.registry or (platform.registry.url if platform else ""),
    builder=settings.images.builder,
)
runtime_images: dict[str, RuntimeImage] = {}


def runtime_image(release: Release) -> RuntimeImage:
    runtime = runtimes.runtime_of(release, settings.images)
    if runtime.tag not in runtime_images:
        runtime_images[runtime.tag] = RuntimeImage(
            f"runtime-{runtime.tag}",
            RuntimeImageArgs(
                build=build,
                tag=runtime.tag,
                base=settings.images.base,
                dockerfile=str(runtimes.DOCKERFILE),
                context=str(runtime.context),
                wheels=str(runtime.wheels) if runtime.wheels else None,
            ),
        )
    return runtime_images[runtime.tag]


def model_image(release: Release) -> ModelImage:
    return ModelImage(
        release.label,
        ModelImageArgs(
            build=build,
            model=release.name,
            version=release.version,
            runtime=runtime_image(release).reference,
            dockerfile="images/model.Dockerfile",
            folder=str(release.folder),
            content_hash=release.content_hash,
            guard=guard,
        ),
    )


def model_server(model: LiveModel, release: Release, image: ModelImage) -> ModelServer:
    edge_ranges = platform.edge.client_ranges if platform else ()
    scrapers = platform.scraper_namespaces if platform else ()
    return ModelServer(
        release.label,
        ModelServerArgs(
            name=release.label,
            model=model.name,
            version=release.version,
            namespace=namespace.name,
            image=image.reference,
            replicas=model.settings.replicas,
            cpu=model.settings.resources.cpu,
            memory=model.settings.resources.memory,
            environment=model.settings.environment,
            drain_seconds=model.settings.drain_seconds,
            client_ranges=[*settings.gateway.client_ranges, *edge_ranges],
            scraper_namespaces=[*settings.scraper_namespaces, *scrapers],
        ),
        in_cluster,
    )


def policies(model: LiveModel, release: Release, server: ModelServer) -> list[pulumi.Resource]:
    """What the platform's load balancer has to know of a Service before a route leads to it."""
    if platform is None:
        return []
    service = platform.equip_service(
        release.label,
        namespace=namespace.name,
        ready_path=server.ready_path,
        drain_seconds=model.settings.drain_seconds,
        opts=in_cluster,
    )
    return [service]


def serve(model: LiveModel) -> dict[str, Any]:
    """Declares one model; returns what the stack's outputs tell of it."""
    backends, versions = {}, {}
    for version in model.versions:
        release = version.release
        image = model_image(release)
        server = model_server(model, release, image)
        backends[release.version] = Backend(
            slug=release.slug,
            service=server.service,
            weight=version.weight,
            ready=policies(model, release, server),
        )
        versions[release.version] = {"weight": version.weight, "digest": image.digest}
    route = ModelRoute(
        model.name,
        ModelRouteArgs(model=model.name, namespace=namespace.name, gateway=gateway.name, backends=backends),
        in_cluster,
    )
    return {"url": pulumi.Output.concat(gateway.endpoint, route.path), "versions": versions}


pulumi.export("endpoint", gateway.endpoint)
pulumi.export("models", {model.name: serve(model) for model in stack.models})
if platform:
    pulumi.export("platform", platform.outputs)
