"""The program: from the stack's settings and the released models to what runs in the cluster."""

from __future__ import annotations

from typing import Any

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
from live import LiveModel, LiveVersion
from problems import InvalidInput

try:
    stack = inputs.read(pulumi.get_stack(), pulumi.runtime.config.get_config_env())
except InvalidInput as error:
    raise pulumi.RunError(f"nothing was changed.\n\n{error}\n") from None
settings = stack.settings

cluster = kubernetes.Provider(
    "cluster",
    kubeconfig=settings.kubeconfig,
    context=settings.kube_context,
    # Plain and constant: a preview replaces everything in a cluster whose identity it does not know.
    cluster_identifier=pulumi.get_stack(),
)
in_cluster = pulumi.ResourceOptions(providers=[cluster])
namespace = ServingNamespace("models", ServingNamespaceArgs(namespace=settings.namespace), in_cluster)
gateway = Gateway(
    "gateway",
    GatewayArgs(
        namespace=namespace.name,
        class_name=settings.gateway.class_name,
        endpoint=settings.gateway.endpoint,
    ),
    in_cluster,
)
build = BuildArgs(registry=settings.registry, builder=settings.images.builder)


@pulumi.resource_hook("released-models-never-change", pulumi.ResourceHookOptions(on_dry_run=True))
def guard(args: pulumi.ResourceHookArgs) -> None:
    new, old = args.new_inputs or {}, args.old_inputs or {}
    published.refuse_other_content(
        new["tags"][0], new["labels"][CONTENT_LABEL], label=CONTENT_LABEL, previous=old.get("labels")
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


def model_image(version: LiveVersion) -> ModelImage:
    release = version.release
    return ModelImage(
        version.release.label,
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


def model_server(model: LiveModel, version: LiveVersion, image: ModelImage) -> ModelServer:
    return ModelServer(
        version.release.label,
        ModelServerArgs(
            name=version.release.label,
            model=model.name,
            version=version.release.version,
            namespace=namespace.name,
            image=image.reference,
            replicas=model.settings.replicas,
            cpu=model.settings.resources.cpu,
            memory=model.settings.resources.memory,
            environment=model.settings.environment,
            drain_seconds=model.settings.drain_seconds,
            client_ranges=settings.gateway.client_ranges,
            scraper_namespaces=settings.scraper_namespaces,
        ),
        in_cluster,
    )


def serve(model: LiveModel) -> dict[str, Any]:
    """Declares one model; returns what the stack's outputs tell of it."""
    backends, versions = {}, {}
    for version in model.versions:
        image = model_image(version)
        server = model_server(model, version, image)
        name, release = version.release.version, version.release
        backends[name] = Backend(slug=release.slug, service=server.service, weight=version.weight)
        versions[name] = {"weight": version.weight, "digest": image.digest}
    route = ModelRoute(
        model.name,
        ModelRouteArgs(model=model.name, namespace=namespace.name, gateway=gateway.name, backends=backends),
        in_cluster,
    )
    return {"url": pulumi.Output.concat(gateway.endpoint, route.path), "versions": versions}


pulumi.export("endpoint", gateway.endpoint)
pulumi.export("models", {model.name: serve(model) for model in stack.models})
