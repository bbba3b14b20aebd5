"""Removes the rules, chains and sets that kube-proxy, kube-router and the bridge plugin leave in the firewall.

Rules of others stay: what is removed is a chain of the cluster's own naming, or a rule that jumps to one.
"""

from __future__ import annotations

import re
import shutil
import subprocess

_OWN = r"(?:KUBE-|CNI-)\S+"
_OWN_RULE = re.compile(rf"-A (?P<chain>\S+) .*(?:-j|-g) {_OWN}(?: |$)")
_OWN_CHAIN = re.compile(rf":(?P<chain>{_OWN}) ")
_OWN_SET = re.compile(r"(?:inet6:)?(?:KUBE-|kube-router-)\S+")


def clean() -> None:
    for program in ("iptables", "ip6tables"):
        if shutil.which(program):
            _clean_tables(program)
    if shutil.which("ipset"):
        _clean_sets()


def _clean_tables(program: str) -> None:
    save = _output(f"{program}-save")
    lines = [line for table in save.split("*")[1:] for line in _removal(f"*{table}")]
    if lines:
        subprocess.run(
            [f"{program}-restore", "--noflush"],
            input="\n".join(lines) + "\n",
            text=True,
            check=True,
            capture_output=True,
        )


def _removal(table: str) -> list[str]:
    """The lines for iptables-restore that take the cluster's part out of one table."""
    lines = table.splitlines()
    chains = [match["chain"] for line in lines if (match := _OWN_CHAIN.match(line))]
    rules = [
        line.replace("-A ", "-D ", 1)
        for line in lines
        if (match := _OWN_RULE.match(line)) and match["chain"] not in chains
    ]
    if not chains and not rules:
        return []
    # The line that declares a chain flushes it, which has to come before any of them can go.
    flushed = [f":{chain} - [0:0]" for chain in chains]
    return [lines[0], *flushed, *rules, *(f"-X {chain}" for chain in chains), "COMMIT"]


def _clean_sets() -> None:
    own = [name for name in _output("ipset", "list", "-name").split() if _OWN_SET.fullmatch(name)]
    if own:
        # Some are members of others and can only go after them.
        script = "".join(f"{verb} {name}\n" for verb in ("flush", "destroy") for name in own)
        subprocess.run(["ipset", "restore"], input=script, text=True, check=True, capture_output=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
