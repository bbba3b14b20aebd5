"""Ports of the local cluster; that of the image registry is part of REGISTRY in layout.py."""

from __future__ import annotations

GATEWAY = 8080
CLUSTER_GATEWAY = 80  # of the gateway at the bridge's address, for pods; the port of the Gateway's listener
API = 6443

ETCD = 2379
ETCD_PEER = 2380
ETCD_HEALTH = 2381
CONTROLLER_MANAGER = 10257
SCHEDULER = 10259
KUBELET = 10250
KUBELET_HEALTH = 10248
KUBE_PROXY_HEALTH = 10256
KUBE_PROXY_METRICS = 10249
KUBE_ROUTER_HEALTH = 20244
CONTOUR_XDS = 8001
CONTOUR_HEALTH = 8000
CONTOUR_DEBUG = 6060
ENVOY_STATS = 8002
ENVOY_ADMINISTRATION = 9001
