"""Reads YAML that people and other programs wrote."""

from __future__ import annotations

from typing import Any

import yaml


def parse(text: str | bytes, loader: type[yaml.SafeLoader | yaml.CSafeLoader] = yaml.SafeLoader) -> Any:
    """What a document holds.

    Args:
        text: of the document.
        loader: that constructs nothing but plain values.

    Raises:
        ValueError: if it is no YAML; the message is the reason, in one line.
    """
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        reason = "its lists and mappings are nested too deeply"
    # A date such as 2024-13-45 is a plain ValueError.
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
    raise ValueError(reason)
