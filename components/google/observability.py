"""What is watched: the servers' metrics, a dashboard of them, and alerts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, ResourceOptions

from components.manifest import Manifest

SCRAPER_NAMESPACES: Final = ("gke-gmp-system", "gmp-system")
"""Where Google's collectors run, on Autopilot and on Standard; the servers' metrics must be open to them."""

MODEL: Final = "served_model"
VERSION: Final = "served_version"
POD_LABELS: Final[Mapping[str, str]] = {
    MODEL: "app.kubernetes.io/name",
    VERSION: "app.kubernetes.io/version",
}
"""Label of a metric as stored -> label of the pod that it comes from.

MLServer has metrics per model of its own, and they do not serve: their duration has no quantiles, and their version is
``None`` for a request that names none. A pod here serves one version of one model, so the pod tells which it was.
"""

REQUESTS: Final = "rest_server_requests_total"
LATENCY: Final = "rest_server_request_duration_seconds_bucket"
MLSERVER_METRICS: Final[Mapping[str, frozenset[str]]] = {
    REQUESTS: frozenset({"app_name", "method", "path", "status_code"}),
    LATENCY: frozenset({"app_name", "method", "path", "status_code", "le"}),
}
"""Every metric of MLServer that is used, with all of its labels as MLServer 1.7.1 exports them (scraped 2026-11-22)."""

AVAILABLE: Final = "kube_deployment_status_replicas_available"
RESTARTS: Final = "kubernetes_io:container_restart_count"
PLATFORM_METRICS: Final[Mapping[str, frozenset[str]]] = {
    # https://cloud.google.com/kubernetes-engine/docs/how-to/kube-state-metrics
    AVAILABLE: frozenset({"deployment"}),
    # https://cloud.google.com/monitoring/api/metrics_kubernetes
    RESTARTS: frozenset({"monitored_resource", "cluster_name", "namespace_name", "container_name", "pod_name"}),
}
"""Every metric of Google's that is used, with the labels that are used."""

TARGET_LABELS: Final = frozenset({"cluster", "namespace", *POD_LABELS})
"""Labels that the collector adds to every metric from a pod."""

PREDICTIONS: Final = 'path=~".+/infer"'
"""Of all requests those that ask a model, and not for its readiness."""
WINDOW: Final = "5m"
SERVER_CONTAINER: Final = "mlserver"


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """When an alert is raised.

    Attributes:
        error_ratio: part of a version's requests that fail.
        latency_seconds: 99th percentile of a version's answers.
        not_ready_seconds: for how long a version may have no ready pod.
    """

    error_ratio: float
    latency_seconds: float
    not_ready_seconds: int


@dataclass(frozen=True, kw_only=True)
class CollectionArgs:
    """Collecting metrics.

    Attributes:
        namespace: of the servers.
        port: name of the port that has them.
    """

    namespace: Input[str]
    port: str = "metrics"


class Collection(ComponentResource):
    """Has Google's collectors read the metrics of every model server of a namespace."""

    def __init__(self, name: str, args: CollectionArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Collection", name, None, opts)
        Manifest(
            name,
            "monitoring.googleapis.com/v1",
            "PodMonitoring",
            metadata={"name": "model-servers", "namespace": args.namespace},
            spec={
                "selector": {
                    "matchExpressions": [{"key": label, "operator": "Exists"} for label in POD_LABELS.values()]
                },
                "endpoints": [{"port": args.port, "path": "/metrics", "interval": "30s"}],
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
    """What is watched.

    Attributes:
        name: what names in Google begin with.
        cluster: its name in Google.
        namespace: Kubernetes namespace of the servers; plain, because queries are texts that a preview should show.
        emails: short name -> address that is told of an alert.
        alerts: when an alert is raised.
    """

    project: str
    name: str
    cluster: str
    namespace: str
    emails: Mapping[str, str]
    alerts: Alerts


class Observability(ComponentResource):
    """A dashboard and alerts of the models of one stack.

    It leaves logs alone, which GKE collects by itself.
    """

    def __init__(self, name: str, args: ObservabilityArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Observability", name, None, opts)
        self._dashboard(name, args)
        channels = [self._channel(f"{name}-{key}", args, address).id for key, address in args.emails.items()]
        for key, alert in alerts(args).items():
            self._alert(f"{name}-{key}", args, alert, channels)
        self.register_outputs({})

    def _dashboard(self, name: str, args: ObservabilityArgs) -> None:
        gcp.monitoring.Dashboard(
            name,
            project=args.project,
            dashboard_json=json.dumps(dashboard(args), sort_keys=True),
            opts=ResourceOptions(parent=self),
        )

    def _channel(self, name: str, args: ObservabilityArgs, address: str) -> gcp.monitoring.NotificationChannel:
        return gcp.monitoring.NotificationChannel(
            name,
            project=args.project,
            type="email",
            display_name=f"{args.name}: {address}",
            labels={"email_address": address},
            opts=ResourceOptions(parent=self),
        )

    def _alert(self, name: str, args: ObservabilityArgs, alert: Alert, channels: Sequence[Input[str]]) -> None:
        gcp.monitoring.AlertPolicy(
            name,
            project=args.project,
            display_name=f"{args.name}: {alert.title}",
            combiner="OR",
            severity=alert.severity,
            conditions=[
                {
                    "display_name": alert.title,
                    "condition_prometheus_query_language": {
                        "query": alert.query,
                        "duration": f"{alert.seconds}s",
                        "evaluation_interval": "30s",
                        # Google knows no metric before the first request, and would refuse the policy:
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
    """One alert.

    Attributes:
        query: PromQL that has a result as long as something is wrong.
        seconds: for how long it must have one.
        advice: what to do, for whoever is woken by it.
    """

    title: str
    query: str
    seconds: int
    severity: str
    advice: str


def alerts(args: ObservabilityArgs) -> dict[str, Alert]:
    """Short name -> alert."""
    limits = args.alerts
    return {
        "errors": Alert(
            title=f"more than {limits.error_ratio:.0%} of a version's requests fail",
            query=f"{_errors(args)} / {_requests(args)} > {limits.error_ratio}",
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
    """The dashboard as Cloud Monitoring takes it, https://cloud.google.com/monitoring/api/ref_v3/rest/v1/projects.dashboards."""
    charts = [
        ("Requests per second", [_requests(args)], "1/s"),
        # No error is no series at all in Prometheus, which would draw nothing where a zero belongs.
        ("Part of the requests that fail", [f"({_errors(args)} or 0 * {_requests(args)}) / {_requests(args)}"], "1"),
        ("Latency, median", [_latency(args, 0.5)], "s"),
        ("Latency, 99th percentile", [_latency(args, 0.99)], "s"),
        ("Ready pods", [_available(args)], "1"),
        ("Restarts in 10 minutes", [_restarts(args)], "1"),
    ]
    height, width = 16, 24
    return {
        "displayName": f"{args.name}: models",
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


def _chart(title: str, queries: Sequence[str], unit: str) -> dict[str, Any]:
    return {
        "title": title,
        "xyChart": {
            "dataSets": [
                {"plotType": "LINE", "timeSeriesQuery": {"prometheusQuery": query, "unitOverride": unit}}
                for query in queries
            ]
        },
    }


def _selector(args: ObservabilityArgs, *further: str) -> str:
    return ",".join([f'cluster="{args.cluster}"', f'namespace="{args.namespace}"', *further])


def _rate(args: ObservabilityArgs, *further: str) -> str:
    rate = f"rate({REQUESTS}{{{_selector(args, PREDICTIONS, *further)}}}[{WINDOW}])"
    return f"sum by ({MODEL}, {VERSION}) ({rate})"


def _requests(args: ObservabilityArgs) -> str:
    return _rate(args)


def _errors(args: ObservabilityArgs) -> str:
    return _rate(args, 'status_code=~"5.."')


def _latency(args: ObservabilityArgs, quantile: float) -> str:
    rate = f"rate({LATENCY}{{{_selector(args, PREDICTIONS)}}}[{WINDOW}])"
    return f"histogram_quantile({quantile}, sum by (le, {MODEL}, {VERSION}) ({rate}))"


def _available(args: ObservabilityArgs) -> str:
    return f"sum by (deployment) ({AVAILABLE}{{{_selector(args)}}})"


def _restarts(args: ObservabilityArgs) -> str:
    # One of Google's own metrics, whose names in PromQL need the kind of what they are about.
    # https://cloud.google.com/monitoring/promql/promql-mapping
    selector = (
        f'monitored_resource="k8s_container",cluster_name="{args.cluster}",namespace_name="{args.namespace}",'
        f'container_name="{SERVER_CONTAINER}"'
    )
    return f"sum by (pod_name) (increase({RESTARTS}{{{selector}}}[10m]))"
