"""The error of the local cluster's commands."""

from __future__ import annotations


class LocalError(Exception):
    """A problem and its remedy, in words for the person who ran the command."""
