"""The one way in which a command of the local cluster fails."""

from __future__ import annotations


class LocalError(Exception):
    """What went wrong and what to do about it, written for the person who typed the command."""
