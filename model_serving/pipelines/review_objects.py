"""The objects of reviews on a stack, found by their labels: no state has to be right for them to go."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from model_serving.problems import Failure
from model_serving.stack import preflight
from model_serving.stack.cluster_api import connect
from model_serving.stack.reviews import REQUEST_LABEL, UNTIL_LABEL, Place
from model_serving.stack.settings import Settings

TIMEOUT_SECONDS: Final = 30
KINDS: Final = (
    # What leads to the others goes first.
    ("gateway.networking.k8s.io", "v1", "httproutes"),
    ("apps", "v1", "deployments"),
    ("batch", "v1", "jobs"),
    ("networking.k8s.io", "v1", "networkpolicies"),
)
"""Group, version and kind of a review's objects; besides, there are Services and ConfigMaps."""
GOOGLES_KINDS: Final = tuple(
    ("networking.gke.io", "v1", kind) for kind in ("gcpbackendpolicies", "healthcheckpolicies")
)
"""Those that only a stack on Google Cloud has besides."""


class _Kind(NamedTuple):
    found: Callable[..., Any]
    remove: Callable[..., Any]


class ReviewObjects:
    """The objects of all reviews on a stack. Methods raise `Failure` if the cluster does not answer, or refuses."""

    def __init__(self, settings: Settings, *, stack: str) -> None:
        self._settings, self._stack, self._place = settings, stack, Place.of(settings)

    def gateway(self) -> str:
        """Address of the gateway that serves reviews."""
        place = self._place
        with self._api() as api:
            ask = client.CustomObjectsApi(api).get_namespaced_custom_object
            gateway = _answer(
                partial(ask, "gateway.networking.k8s.io", "v1", place.namespace, "gateways", place.gateway)
            )
            addresses = gateway.get("status", {}).get("addresses") or []
        if not addresses:
            raise Failure(
                f"the gateway {place.gateway} of {self._stack} has no address.\n"
                "  No request could reach what the merge request adds.\n"
                f"  Look at it with `kubectl --namespace {place.namespace} describe gateway {place.gateway}`."
            )
        return str(addresses[0]["value"])

    def remove(self, request: int) -> bool:
        """Removes a review; returns whether there was anything to remove."""
        selector = f"{REQUEST_LABEL}={request}"
        with self._api() as api:
            present = [kind for kind in self._kinds(api) if _labels(kind, selector)]
            for kind in present:
                _answer(kind.remove, label_selector=selector, propagation_policy="Background")
        return bool(present)

    def expired(self, now: float | None = None) -> list[int]:
        """Numbers of the merge requests whose reviews have reached their time."""
        moment = time.time() if now is None else now
        with self._api() as api:
            found = [labels for kind in self._kinds(api) for labels in _labels(kind, REQUEST_LABEL)]
        return sorted({int(each[REQUEST_LABEL]) for each in found if int(each.get(UNTIL_LABEL, 0)) <= moment})

    def _kinds(self, api: client.ApiClient) -> list[_Kind]:
        namespace, core, others = self._place.namespace, client.CoreV1Api(api), client.CustomObjectsApi(api)
        kinds = (*KINDS, *(GOOGLES_KINDS if self._settings.gcp else ()))
        return [
            *(
                _Kind(
                    partial(others.list_namespaced_custom_object, group, version, namespace, plural),
                    partial(others.delete_collection_namespaced_custom_object, group, version, namespace, plural),
                )
                for group, version, plural in kinds
            ),
            *(
                _Kind(partial(found, namespace), partial(remove, namespace))
                for found, remove in (
                    (core.list_namespaced_service, core.delete_collection_namespaced_service),
                    (core.list_namespaced_config_map, core.delete_collection_namespaced_config_map),
                )
            ),
        ]

    @contextmanager
    def _api(self) -> Iterator[client.ApiClient]:
        kubeconfig = str(preflight.kubeconfig_paths(self._settings)[0]) if self._settings.kubeconfig else ""
        try:
            yield connect(kubeconfig, self._settings.kube_context)
        except config.ConfigException as error:
            raise self._failure(f"the kubeconfig cannot be used: {error}") from None
        except client.ApiException as error:
            raise self._failure(f"the API server answers {error.status} {error.reason}") from None
        except HTTPError as error:
            raise self._failure(f"the API server does not answer: {error}") from None

    def _failure(self, what: str) -> Failure:
        return Failure(
            f"the reviews on {self._stack} could not be read or removed: {what}\n"
            "  What this merge request adds is not served, or still is.\n"
            f"  The stack has to be deployed, and the job's account needs the rights in the namespace "
            f"{self._place.namespace} that docs/ci.md lists under Reviews."
        )


def _labels(kind: _Kind, selector: str) -> list[Mapping[str, str]]:
    """The labels of the objects of a kind."""
    return [each["metadata"]["labels"] for each in _answer(kind.found, label_selector=selector)["items"]]


def _answer(ask: Callable[..., Any], **options: str) -> Any:
    """An answer as it is: the client's own types do not know a list of what was deleted."""
    return json.loads(ask(**options, _preload_content=False, _request_timeout=TIMEOUT_SECONDS).data)
