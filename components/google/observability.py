"""Observability: collection of the servers' metrics, a dashboard and alerts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, ResourceOptions

from components.manifest import Manifest
from model_serving.stack.google import GcpSettings, names

SCRAPER_NAMESPACES: Final = ("gke-gmp-system", "gmp-system")
"""Namespaces of Google's collectors on Autopilot and on Standard; they must be able to read the servers' metrics."""

MODEL: Final = "served_model"
VERSION: Final = "served_version"
POD_LABELS: Final[Mapping[str, str]] = {MODEL: "app.kubernetes.io/name", VERSION: "app.kubernetes.io/version"}
"""Label of a stored metric -> label of its pod, which serves one version of one model.

MLServer's own metrics per model do not help: their duration has no quantiles, and their version is ``None`` for a
request that names none.
"""

REQUESTS: Final = "rest_server_requests_total"
LATENCY: Final = "rest_server_request_duration_seconds_bucket"
MLSERVER_METRICS: Final[Mapping[str, frozenset[str]]] = {
    REQUESTS: frozenset({"app_name", "method", "path", "status_code"}),
    LATENCY: frozenset({"app_name", "method", "path", "status_code", "le"}),
}
"""MLServer's metrics in use, with all labels that MLServer 1.7.1 exports (scraped 2026-11-22)."""

AVAILABLE: Final = "kube_deployment_status_replicas_available"
RESTARTS: Final = "kubernetes_io:container_restart_count"
PLATFORM_METRICS: Final[Mapping[str, frozenset[str]]] = {
    # https://cloud.google.com/kubernetes-engine/docs/how-to/kube-state-metrics
    AVAILABLE: frozenset({"deployment"}),
    # https://cloud.google.com/monitoring/api/metrics_kubernetes
    RESTARTS: frozenset({"monitored_resource", "cluster_name", "namespace_name", "container_name", "pod_name"}),
}
"""Google's metrics and their labels in use."""

TARGET_LABELS: Final = frozenset({"cluster", "namespace", *POD_LABELS})
"""Labels that the collector adds to every metric from a pod."""

PREDICTIONS: Final = 'path=~".+/infer"'
"""Selects predictions among all requests, e.g. readiness probes."""
FAILED: Final = 'status_code=~"5.."'
WINDOW: Final = "5m"
SERVER_CONTAINER: Final = "mlserver"


class Collection(ComponentResource):
    """Collection of the metrics of every model server in a namespace, by Google's collectors."""

    def __init__(self, name: str, namespace: Input[str], opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Collection", name, None, opts)
        Manifest(
            name,
            "monitoring.googleapis.com/v1",
            "PodMonitoring",
            metadata={"name": "model-servers", "namespace": namespace},
            spec={
                "selector": {
                    "matchExpressions": [{"key": label, "operator": "Exists"} for label in POD_LABELS.values()]
                },
                "endpoints": [{"port": "metrics", "path": "/metrics", "interval": "30s"}],
                "targetLabels": {
                    "metadata": ["pod"],
                    "fromPod": [{"from": label, "to": name} for name, label in POD_LABELS.items()],
                },
            },
            opts=ResourceOptions(parent=self),
        )
        self.register_outputs({})


@dataclass(frozen=True, kw_only=True)
class ObservabilityArgs:
    """The dashboard and alerts of a stack.

    Attributes:
        cluster: its name in Google.
        namespace: Kubernetes namespace of the servers; plain, so that a preview shows the queries.
    """

    settings: GcpSettings
    cluster: str
    namespace: str


class Observability(ComponentResource):
    """A dashboard and alerts for the models of one stack. GKE collects logs by itself."""

    def __init__(self, name: str, args: ObservabilityArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Observability", name, None, opts)
        gcp.monitoring.Dashboard(
            name,
            project=args.settings.project,
            dashboard_json=json.dumps(_as_returned(dashboard(args)), sort_keys=True),
            opts=ResourceOptions(parent=self),
        )
        emails = args.settings.observability.emails
        channels = [
            self._channel(f"{name}-{key}", args.settings, email).id
            for key, email in zip(names(emails), emails, strict=True)
        ]
        for key, alert in alerts(args).items():
            self._alert(f"{name}-{key}", args.settings, alert, channels)
        self.register_outputs({})

    def _channel(self, name: str, settings: GcpSettings, email: str) -> gcp.monitoring.NotificationChannel:
        return gcp.monitoring.NotificationChannel(
            name,
            project=settings.project,
            type="email",
            display_name=f"{settings.name}: {email}",
            labels={"email_address": email},
            opts=ResourceOptions(parent=self),
        )

    def _alert(self, name: str, settings: GcpSettings, alert: Alert, channels: Sequence[Input[str]]) -> None:
        gcp.monitoring.AlertPolicy(
            name,
            project=settings.project,
            display_name=f"{settings.name}: {alert.title}",
            combiner="OR",
            severity=alert.severity,
            conditions=[
                {
                    "display_name": alert.title,
                    "condition_prometheus_query_language": {
                        "query": alert.query,
                        "duration": f"{alert.seconds}s",
                        "evaluation_interval": "30s",
                        # Google does not know a metric before the first request, and would refuse the policy:
                        # https://github.com/hashicorp/terraform-provider-google/issues/11102
                        "disable_metric_validation": True,
                    },
                }
            ],
            documentation={"content": alert.advice, "mime_type": "text/markdown"},
            notification_channels=[*channels],
            opts=ResourceOptions(parent=self),
        )


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert, raised when its PromQL query has had a result for so many seconds."""

    title: str
    query: str
    seconds: int
    severity: str
    advice: str


def alerts(args: ObservabilityArgs) -> dict[str, Alert]:
    """Short name -> alert."""
    limits = args.settings.observability.alerts
    return {
        "errors": Alert(
            title=f"more than {limits.error_ratio:.0%} of a version's requests fail",
            query=f"{_requests(args, FAILED)} / {_requests(args)} > {limits.error_ratio}",
            seconds=120,
            severity="CRITICAL",
            advice="A version answers with errors of its own (5xx). To go back, write the version before it under "
            "`model-serving:models` in the stack file and merge that; its image is still there.",
        ),
        "latency": Alert(
            title=f"a version's slowest answers take more than {limits.latency_seconds:g} s",
            query=f"{_latency(args, 0.99)} > {limits.latency_seconds}",
            seconds=300,
            severity="WARNING",
            advice="The 99th percentile as the server measures it. More `replicas` help if the pods are busy; if they "
            "are not, the version itself is slower than the one before it.",
        ),
        "not-ready": Alert(
            title="a version has no ready pod",
            query=f"{_available(args)} == 0",
            seconds=limits.not_ready_seconds,
            severity="CRITICAL",
            advice="Every request to this version gets 503. `kubectl describe pods` in the namespace of the models "
            "says why no pod starts.",
        ),
    }


def dashboard(args: ObservabilityArgs) -> dict[str, Any]:
    """The dashboard in Cloud Monitoring's format, https://cloud.google.com/monitoring/api/ref_v3/rest/v1/projects.dashboards."""
    requests, failed = _requests(args), _requests(args, FAILED)
    charts = [
        ("Requests per second", requests, "1/s"),
        # Without errors there is no series at all in Prometheus, and the chart would be empty instead of zero.
        ("Part of the requests that fail", f"({failed} or 0 * {requests}) / {requests}", "1"),
        ("Latency, median", _latency(args, 0.5), "s"),
        ("Latency, 99th percentile", _latency(args, 0.99), "s"),
        ("Ready pods", _available(args), "1"),
        ("Restarts in 10 minutes", _restarts(args), "1"),
    ]
    height, width = 16, 24
    return {
        "displayName": f"{args.settings.name}: models",
        "mosaicLayout": {
            "columns": 2 * width,
            "tiles": [
                {
                    "xPos": index % 2 * width,
                    "yPos": index // 2 * height,
                    "width": width,
                    "height": height,
                    "widget": _chart(*chart),
                }
                for index, chart in enumerate(charts)
            ],
        },
    }


def _as_returned(value: Any) -> Any:
    """JSON as Google returns it: without fields that have their type's default (0, false, "" and empty lists).

    The provider compares the two texts, and would report such a field as changed in every refresh.
    https://protobuf.dev/programming-guides/json/#presence
    """
    match value:
        case dict():
            shown = {key: _as_returned(each) for key, each in value.items()}
            return {key: each for key, each in shown.items() if each or isinstance(each, dict)}
        case list():
            return [_as_returned(each) for each in value]
        case _:
            return value


def _chart(title: str, query: str, unit: str) -> dict[str, Any]:
    time_series = {"prometheusQuery": query, "unitOverride": unit}
    return {"title": title, "xyChart": {"dataSets": [{"plotType": "LINE", "timeSeriesQuery": time_series}]}}


def _selector(args: ObservabilityArgs, *further: str) -> str:
    return ",".join([f'cluster="{args.cluster}"', f'namespace="{args.namespace}"', *further])


def _requests(args: ObservabilityArgs, *further: str) -> str:
    rate = f"rate({REQUESTS}{{{_selector(args, PREDICTIONS, *further)}}}[{WINDOW}])"
    return f"sum by ({MODEL}, {VERSION}) ({rate})"


def _latency(args: ObservabilityArgs, quantile: float) -> str:
    rate = f"rate({LATENCY}{{{_selector(args, PREDICTIONS)}}}[{WINDOW}])"
    return f"histogram_quantile({quantile}, sum by (le, {MODEL}, {VERSION}) ({rate}))"


def _available(args: ObservabilityArgs) -> str:
    return f"sum by (deployment) ({AVAILABLE}{{{_selector(args)}}})"


def _restarts(args: ObservabilityArgs) -> str:
    # PromQL needs the kind of resource for Google's own metrics.
    # https://cloud.google.com/monitoring/promql/promql-mapping
    selector = (
        f'monitored_resource="k8s_container",cluster_name="{args.cluster}",namespace_name="{args.namespace}",'
        f'container_name="{SERVER_CONTAINER}"'
    )
    return f"sum by (pod_name) (increase({RESTARTS}{{{selector}}}[10m]))"
