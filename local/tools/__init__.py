"""Builds the pinned tools from their sources."""
