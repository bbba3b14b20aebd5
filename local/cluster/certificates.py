"""The cluster's certificates and kubeconfigs, which kubeadm makes and which are renewed before they expire.

The authorities and the key that signs service-account tokens never change, because objects in etcd and the user's
kubeconfig depend on them. Certificates that name this machine's address are replaced when the address changes.
"""

import shutil
import subprocess
import time
from pathlib import Path

from local.cluster.layout import CONTEXT, Layout, write_atomically
from model_serving.problems import Failure

RENEWAL_SECONDS = 180 * 24 * 3600  # kubeadm's certificates expire after a year
KEPT = ("ca", "etcd/ca", "front-proxy-ca", "sa")


def ensure(layout: Layout, address: str) -> None:
    """Make certificates that are missing, that name another address or that expire soon."""
    folder = layout.certificates
    stamp = folder / "made-for"
    if (
        stamp.exists()
        and stamp.read_text() == address
        and time.time() - stamp.stat().st_mtime < RENEWAL_SECONDS
        and layout.kubeconfig.exists()
    ):
        return
    if stamp.exists():
        # There was an end to making the authorities; the rest has to be made again.
        write_atomically(stamp, "")
        _remove_leaves(folder, stamp)
    else:
        # There was none: kubeadm may have been killed while it wrote a key, and takes what is there.
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    configuration = folder / "kubeadm.yaml"
    write_atomically(configuration, layout.filled("kubeadm.yaml", own_address=address))
    _kubeadm(layout, "certs", "all", f"--config={configuration}")
    _kubeadm(layout, "kubeconfig", "all", f"--config={configuration}", f"--kubeconfig-dir={folder}")
    # kubeadm names the context after its user; the user's own kubeconfig has one whose name never changes.
    text = kubeconfig(layout, "admin").read_text().replace(f"kubernetes-admin@{CONTEXT}", CONTEXT)
    write_atomically(layout.kubeconfig, text, mode=0o600)
    write_atomically(stamp, address)


def kubeconfig(layout: Layout, user: str) -> Path:
    return layout.certificates / f"{user}.conf"


def _remove_leaves(folder: Path, stamp: Path) -> None:
    kept = {stamp, *(folder / f"{name}{ending}" for name in KEPT for ending in (".crt", ".key", ".pub"))}
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def _kubeadm(layout: Layout, *arguments: str) -> None:
    command = [f"{layout.bin}/kubeadm", "init", "phase", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"kubeadm could not make the cluster's certificates ({' '.join(command)}):\n{done.stderr}")
