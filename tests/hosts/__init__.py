"""A stand-in for GitLab and GitHub: the parts of their APIs that ci/ uses, on loopback.

It refuses what they refuse, keeps what it received, and can be told to fail. For tests in this process:

    with serving() as server:
        site = GitLab(server.gitlab.environ(), patience=AT_ONCE)

For jobs in other processes: ``python -m tests.hosts --port-file F --log F``.
"""

from tests.hosts.server import AT_ONCE, Received, Server, serving

__all__ = ["AT_ONCE", "Received", "Server", "serving"]
