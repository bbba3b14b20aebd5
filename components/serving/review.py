"""A review: the releases that a merge request adds, each served and checked under the path of the request.

It declares no namespace, gateway or access of its own: those are the stack's, or what the stack has for reviews. No
traffic of the stack reaches it, and its images are where no stack runs anything from.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

import pulumi

from components.manifest import Manifest
from components.providers import Reach
from components.serving import hooks
from components.serving.contract import Check, CheckArgs, ContractChecks, ContractChecksArgs
from components.serving.gateway import API_VERSION
from components.serving.image import BuildArgs, ModelImage, ModelImageArgs, RuntimeImage, RuntimeImageArgs
from components.serving.models import CONTRACT_SCRIPTS, gateway_seconds, pace_of
from components.serving.rollouts import Rollouts, Version
from components.serving.server import HTTP_PORT, NAME_LABEL, ModelServer, ModelServerArgs
from model_serving.catalog import Release
from model_serving.images import builds, runtimes
from model_serving.images.registry import Registry
from model_serving.stack.inputs import Inputs
from model_serving.stack.live import LiveModel, LiveVersion
from model_serving.stack.reviews import Place, Review

LONGEST_NAME: Final = 63
"""Characters of a Service's name."""


class ReviewImages:
    """The images of a review.

    They are named by what is in them, because a release may still change before it is merged. A runtime that the stack
    has already is used as it is.
    """

    def __init__(self, stack: Inputs) -> None:
        self._settings = stack.settings.images
        registry = stack.settings.image_registry
        own = Place.of(stack.settings).registry
        self._build = BuildArgs(registry=own, builder=self._settings.builder, compression=self._settings.compression)
        self._own = Registry(own)
        self._places = {registry: Registry(registry), own: self._own}
        self._fetched = hooks.large_files_are_fetched(str(stack.settings.remote))
        self._removed = hooks.large_files_are_removed()
        self._runtimes: dict[str, pulumi.Input[str]] = {}

    def of(self, release: Release) -> pulumi.Output[str]:
        """Declares the image of a release, unless it is there already; returns its reference by digest."""
        tag = f"{release.version}-{runtimes.fingerprint(release, self._settings)}"
        known = builds.find(self._own, f"{release.repository}:{tag}")
        return ModelImage(
            release.label,
            ModelImageArgs.of(
                release,
                build=self._build,
                version=tag,
                runtime=None if known else self._runtime(release),
                digest=known.digest if known else None,
                fetched=self._fetched,
                removed=self._removed,
            ),
        ).reference

    def _runtime(self, release: Release) -> pulumi.Input[str]:
        tag = runtimes.tag_of(release, self._settings)
        if tag not in self._runtimes:
            self._runtimes[tag] = self._existing(tag) or self._built(release)
        return self._runtimes[tag]

    def _existing(self, tag: str) -> str | None:
        """A runtime that is in the registry, of the stack or of an earlier review."""
        name = builds.runtime_image(tag)
        for place, registry in self._places.items():
            if found := builds.find(registry, name):
                return f"{place}/{name}@{found.digest}"
        return None

    def _built(self, release: Release) -> pulumi.Output[str]:
        recipe = runtimes.runtime_of(release, self._settings)
        args = RuntimeImageArgs.of(
            recipe,
            build=self._build,
            repository=builds.RUNTIME,
            base=self._settings.base,
            dockerfile=runtimes.DOCKERFILE,
        )
        return RuntimeImage(builds.runtime_resource(recipe.tag), args).reference


class ServedReview:
    """Declares a review."""

    def __init__(self, stack: Inputs, review: Review) -> None:
        self._settings, self._review, self._models = stack.settings, review, stack.models
        self._place = Place.of(stack.settings)
        reach = Reach(stack, None)
        self._opts = reach.administrator
        self._images = ReviewImages(stack)
        self._rollouts = Rollouts(reach, self._place.namespace)

    def declare(self) -> None:
        """Declares everything; each model's output, its URL, is known once its versions have been checked."""
        for model in self._models:
            self._serve(model)

    def _serve(self, model: LiveModel) -> None:
        images = {version.release.version: self._images.of(version.release) for version in model.versions}
        servers = {
            version.release.version: self._server(model, version, images[version.release.version])
            for version in model.versions
        }
        route = self._route(model, servers)
        proven = [
            self._rollouts.proven(
                Version(
                    title=f"{model.name} {version.release.version}",
                    pods=servers[version.release.version].pods,
                    seconds=model.settings.provision_seconds + model.settings.start_seconds,
                    check=self._check(model, version.release, images[version.release.version], route),
                )
            )
            for version in model.versions
        ]
        url = f"{self._settings.gateway.endpoint}{self._review.path(model.name)}"
        pulumi.export(model.name, pulumi.Output.all(*proven).apply(lambda _: url))

    def _server(self, model: LiveModel, version: LiveVersion, image: pulumi.Output[str]) -> ModelServer:
        release = version.release
        args = ModelServerArgs(
            model=model.name,
            version=release.version,
            namespace=self._place.namespace,
            image=image,
            settings=model.settings,
            resources=version.resources,
            drain_seconds=0,
            allowed_origins=self._settings.gateway.allowed_origins,
            changes=self._rollouts.changes,
            # Once it is merged, the Service of the stack must not find these pods, or an older content's.
            more_labels={
                **self._review.labels,
                NAME_LABEL: f"{self._review.name}-{runtimes.fingerprint(release, self._settings.images)}",
            },
        )
        return ModelServer(self._name_of(release), args, self._opts)

    def _name_of(self, release: Release) -> str:
        name = f"{self._review.name}-{release.label}"
        if len(name) <= LONGEST_NAME:
            return name
        fingerprint = runtimes.fingerprint(release, self._settings.images)
        return f"{name[: LONGEST_NAME - len(fingerprint) - 1].rstrip('-')}-{fingerprint}"

    def _route(self, model: LiveModel, servers: dict[str, ModelServer]) -> Manifest:
        """One route for the model: to each version by its own path, and to the newest one without."""
        ready = [policies for each in model.versions for policies in self._policies(model, each.release, servers)]
        newest = model.versions[-1].release.version
        rules = [self._rule(model, f"/versions/{version}", server) for version, server in servers.items()]
        name = f"{self._review.name}-{model.object_name}"
        return Manifest(
            name,
            API_VERSION,
            "HTTPRoute",
            metadata={"name": name, "namespace": self._place.namespace, "labels": self._review.labels},
            spec={
                "parentRefs": [{"name": self._place.gateway}],
                "rules": [*rules, self._rule(model, "", servers[newest])],
            },
            opts=pulumi.ResourceOptions.merge(self._opts, pulumi.ResourceOptions(depends_on=ready)),
        )

    def _policies(self, model: LiveModel, release: Release, servers: dict[str, ModelServer]) -> list[pulumi.Resource]:
        """What Google's load balancer needs before a route leads to a Service."""
        if self._settings.gcp is None:
            return []
        # Imported here: a stack without a cloud does not wait for Google's SDK.
        from components.google.edge import ServicePolicies  # noqa: PLC0415

        policies = ServicePolicies(
            self._name_of(release),
            self._opts,
            namespace=self._place.namespace,
            ready_path=servers[release.version].ready_path,
            drain_seconds=0,
            answer_seconds=gateway_seconds(model),
            labels=self._review.labels,
        )
        return [policies]

    def _rule(self, model: LiveModel, below: str, server: ModelServer) -> dict[str, Any]:
        path = {"type": "PathPrefix", "value": f"{self._review.path(model.name)}{below}"}
        rewrite = {"type": "ReplacePrefixMatch", "replacePrefixMatch": f"/v2/models/{model.name}{below}"}
        # Google's load balancer takes it from a policy, not from the route.
        limit = {} if self._settings.has_googles_gateway else {"timeouts": {"request": f"{gateway_seconds(model)}s"}}
        return {
            "matches": [{"path": path}],
            "filters": [{"type": "URLRewrite", "urlRewrite": {"path": rewrite}}],
            "backendRefs": [{"name": server.service, "port": HTTP_PORT, "weight": 1}],
            **limit,
        }

    def _check(self, model: LiveModel, release: Release, image: pulumi.Output[str], route: Manifest) -> Check | None:
        chosen = model.settings.contract
        if not (chosen.check and release.can_be_asked):
            return None
        args = CheckArgs(
            label=f"{self._review.name}-{release.label}",
            model=model.name,
            version=release.version,
            image=image,
            fingerprint=runtimes.fingerprint(release, self._settings.images),
            start_seconds=model.settings.start_seconds,
            provision_seconds=model.settings.provision_seconds,
            seconds=chosen.seconds or pace_of(self._settings).learn,
            answer_seconds=model.settings.answer_seconds,
            after=[route],
            path=f"{self._review.path(model.name)}/versions/{release.version}",
        )
        return self._contract_checks.check(args)

    @cached_property
    def _contract_checks(self) -> ContractChecks:
        return ContractChecks(
            "contract",
            ContractChecksArgs(
                namespace=self._place.namespace,
                scripts={path.name: path.read_text(encoding="utf-8") for path in CONTRACT_SCRIPTS},
                url=str(self._settings.gateway.cluster_endpoint),
                proxy_ranges=self._settings.gateway.client_ranges,
                name=f"{self._review.name}-contract",
                more_labels=self._review.labels,
                # The account of reviews cannot write policies: branches open no way into the network.
                is_allowed=self._settings.gcp is not None,
            ),
            self._opts,
        )
