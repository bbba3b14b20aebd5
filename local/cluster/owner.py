"""What a running instance says about itself in its runtime folder."""

from __future__ import annotations

import json
from pathlib import Path

from local.cluster import network
from local.cluster.layout import Layout
from local.cluster.processes import boot


def owner_of(run: Path) -> dict[str, str]:
    """State folder, network namespace and boot of the instance with that runtime folder; empty when it is stopped."""
    try:
        owner: dict[str, str] = json.loads((run / "state").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return owner


def write_owner(layout: Layout) -> None:
    """Whole or not at all: without it, `stop` cannot know which firewall to clean."""
    owner = {"state": str(layout.state), "network": network.namespace(), "boot": boot()}
    temporary = layout.run / "state.new"
    temporary.write_text(json.dumps(owner))
    temporary.rename(layout.run / "state")
