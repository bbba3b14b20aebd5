"""The cluster's certificates and kubeconfigs, made by kubeadm and renewed before they end.

The authority and the key that signs service-account tokens stay the same for the cluster's life: objects in etcd and
the user's kubeconfig depend on them. What names this machine's address is made anew when the address changes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from local.cluster.errors import LocalError
from local.cluster.layout import API_PORT, CONTEXT, LOOPBACK, NODE, POD_RANGE, SERVICE_RANGE, Layout

RENEWAL_SECONDS = 180 * 24 * 3600  # kubeadm's certificates end after a year
KEPT = ("ca", "etcd/ca", "front-proxy-ca", "sa")


def are_current(layout: Layout, address: str) -> bool:
    stamp = _stamp(layout)
    return (
        stamp.exists()
        and stamp.read_text() == address
        and time.time() - stamp.stat().st_mtime < RENEWAL_SECONDS
        and layout.kubeconfig.exists()
    )


def ensure(layout: Layout, address: str) -> None:
    """Make what is missing, and make anew what names another address or nears its end."""
    if are_current(layout, address):
        return
    _stamp(layout).unlink(missing_ok=True)
    layout.certificates.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_leaves(layout.certificates)
    configuration = layout.certificates / "kubeadm.yaml"
    configuration.write_text(_configuration(layout, address))
    _kubeadm(layout, "certs", "all", "--config", str(configuration))
    folder = ("--kubeconfig-dir", str(layout.certificates))
    _kubeadm(layout, "kubeconfig", "all", "--config", str(configuration), *folder)
    _write_kubeconfig(layout)
    _stamp(layout).write_text(address)


def kubeconfig(layout: Layout, user: str) -> Path:
    return layout.certificates / f"{user}.conf"


def _stamp(layout: Layout) -> Path:
    return layout.certificates / "made-for"


def _remove_leaves(folder: Path) -> None:
    kept = {folder / f"{name}{ending}" for name in KEPT for ending in (".crt", ".key", ".pub")}
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def _configuration(layout: Layout, address: str) -> str:
    """Two documents, each JSON, which is YAML too."""
    version = "kubeadm.k8s.io/v1beta4"
    initialisation = {
        "apiVersion": version,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": address, "bindPort": API_PORT},
        "nodeRegistration": {"name": NODE, "criSocket": f"unix://{layout.containerd_socket}"},
    }
    cluster = {
        "apiVersion": version,
        "kind": "ClusterConfiguration",
        "clusterName": CONTEXT,
        # Without a version kubeadm asks the internet for the newest.
        "kubernetesVersion": "v1.34.4",
        "certificatesDir": str(layout.certificates),
        "encryptionAlgorithm": "ECDSA-P256",  # RSA keys take a second to find
        "controlPlaneEndpoint": f"{address}:{API_PORT}",
        "apiServer": {"certSANs": [address, LOOPBACK, "localhost"]},
        "networking": {"serviceSubnet": str(SERVICE_RANGE), "podSubnet": str(POD_RANGE)},
    }
    return f"{json.dumps(initialisation)}\n---\n{json.dumps(cluster)}\n"


def _kubeadm(layout: Layout, *arguments: str) -> None:
    command = [layout.tool("kubeadm"), "init", "phase", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LocalError(f"kubeadm could not make the cluster's certificates ({' '.join(command)}):\n{done.stderr}")


def _write_kubeconfig(layout: Layout) -> None:
    """The user's own, with a context whose name stays the same whatever kubeadm calls its users."""
    source = kubeconfig(layout, "admin")
    text = source.read_text().replace(f"kubernetes-admin@{CONTEXT}", CONTEXT)
    temporary = layout.kubeconfig.with_suffix(".new")
    shutil.copyfile(source, temporary)
    temporary.chmod(0o600)
    temporary.write_text(text)
    temporary.rename(layout.kubeconfig)
