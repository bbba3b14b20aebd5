"""Removes the rules, chains and sets that kube-proxy, kube-router and the bridge plugin leave in the firewall.

It removes Kubernetes' own chains, the chains to which a rule for this instance's pod network jumps, and the rules that
jump to either. All other rules stay, including those of other users of CNI.
"""

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
            tables = _output(f"{program}-save").split("*")[1:]
            if lines := [line for table in tables for line in _removal(f"*{table}", layout.network)]:
                _restore([f"{program}-restore", "--noflush"], "\n".join(lines) + "\n")
    sets = _output("ipset", "list", "-name").split() if shutil.which("ipset") else []
    if own := [name for name in sets if _OWN_SET.fullmatch(name)]:
        # Some are members of others: all are flushed before any is destroyed.
        commands = [f"{verb} {name}\n" for verb in ("flush", "destroy") for name in own]
        _restore(["ipset", "restore"], "".join(commands))


def _removal(table: str, network: str) -> list[str]:
    """Input of iptables-restore that removes the cluster's part of one table."""
    lines = table.splitlines()
    rules = [(line, match["chain"], match["target"]) for line in lines if (match := _RULE.match(line))]
    chains = {match["chain"] for line in lines if (match := _KUBERNETES_CHAIN.match(line))}
    chains |= {target for line, _, target in rules if target.startswith("CNI-") and f'name: \\"{network}\\"' in line}
    if not chains:
        return []
    # The line that declares a chain flushes it; all must be flushed before any can be deleted.
    flushed = [f":{chain} - [0:0]" for chain in sorted(chains)]
    jumps = [line.replace("-A ", "-D ", 1) for line, chain, target in rules if target in chains and chain not in chains]
    return [lines[0], *flushed, *jumps, *(f"-X {chain}" for chain in sorted(chains)), "COMMIT"]


def _output(*command: str) -> str:
    """Output of a command, which fails if the kernel lacks the feature."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _restore(command: list[str], text: str) -> None:
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)
