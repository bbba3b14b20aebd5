"""Flags and configuration of the cluster's programs, which are files in ``programs/`` in each program's own format."""

from __future__ import annotations

from pathlib import Path
from string import Template

from local.cluster import layout as names
from local.cluster import ports
from local.cluster.layout import Layout

FOLDER = Path(__file__).with_name("programs")


def filled(name: str, layout: Layout, **further: object) -> str:
    """A file with its placeholders filled: by ports.py and layout.py, the paths of a layout, and further values."""
    values = {**vars(names), **vars(ports), **vars(layout), **further}
    return Template((FOLDER / name).read_text()).substitute(values)


def files(layout: Layout, *names: str, **further: object) -> dict[Path, str]:
    """Path -> text of a process's configuration files."""
    return {layout.configuration / name: filled(name, layout, **further) for name in names}


def command(program: str, layout: Layout, **further: object) -> tuple[str, ...]:
    """A program that `make tools` builds, with the arguments in its file, one per line."""
    lines = filled(f"{program}.flags", layout, **further).splitlines()
    return (f"{layout.bin}/{program}", *(line for line in lines if not line.startswith("#")))
