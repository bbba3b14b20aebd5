"""Removes the rules, chains and sets that kube-proxy, kube-router and the bridge plugin leave in the firewall.

Rules of others stay, those of other users of CNI among them: what goes is a chain of Kubernetes' naming, a chain to
which a rule jumps in the name of this instance's pod network, and the rules that jump to either.
"""

from __future__ import annotations

import re
import shutil
import subprocess

from local.cluster.layout import Layout

_RULE = re.compile(r"-A (?P<chain>\S+) .*(?:-j|-g) (?P<target>\S+)")
_KUBERNETES_CHAIN = re.compile(r":(?P<chain>KUBE-\S+) ")
_OWN_SET = re.compile(r"(?:inet6:)?(?:KUBE-|kube-router-)\S+")


def clean(layout: Layout) -> None:
    for program in ("iptables", "ip6tables"):
        if shutil.which(program):
            _clean_tables(program, layout.network)
    if shutil.which("ipset"):
        _clean_sets()


def _clean_tables(program: str, network: str) -> None:
    tables = _output(f"{program}-save").split("*")[1:]
    lines = [line for table in tables for line in _removal(f"*{table}", network)]
    if lines:
        text = "\n".join(lines) + "\n"
        subprocess.run([f"{program}-restore", "--noflush"], input=text, text=True, check=True, capture_output=True)


def _removal(table: str, network: str) -> list[str]:
    """The lines for iptables-restore that take the cluster's part out of one table."""
    lines = table.splitlines()
    rules = [(line, match["chain"], match["target"]) for line in lines if (match := _RULE.match(line))]
    chains = {match["chain"] for line in lines if (match := _KUBERNETES_CHAIN.match(line))}
    chains |= {target for line, _, target in rules if target.startswith("CNI-") and f'name: \\"{network}\\"' in line}
    if not chains:
        return []
    # The line that declares a chain flushes it, which has to come before any of them can go.
    flushed = [f":{chain} - [0:0]" for chain in sorted(chains)]
    jumps = [line.replace("-A ", "-D ", 1) for line, chain, target in rules if target in chains and chain not in chains]
    return [lines[0], *flushed, *jumps, *(f"-X {chain}" for chain in sorted(chains)), "COMMIT"]


def _clean_sets() -> None:
    own = [name for name in _output("ipset", "list", "-name").split() if _OWN_SET.fullmatch(name)]
    if own:
        # Some are members of others and can only go after them.
        script = "".join(f"{verb} {name}\n" for verb in ("flush", "destroy") for name in own)
        subprocess.run(["ipset", "restore"], input=script, text=True, check=True, capture_output=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
