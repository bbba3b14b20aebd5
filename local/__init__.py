"""The stack `local`: its cluster, and the tools that it needs."""
