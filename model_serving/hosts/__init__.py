"""The site whose pipeline this is: GitLab or GitHub, as the environment tells."""

from collections.abc import Mapping

from model_serving.hosts.access import SiteError, TooLong
from model_serving.hosts.github import GitHub
from model_serving.hosts.gitlab import GitLab
from model_serving.hosts.marked import PREVIEW, Outcome
from model_serving.hosts.site import Run, Site

__all__ = ["PREVIEW", "Outcome", "Run", "Site", "SiteError", "TooLong", "here"]


def here(environ: Mapping[str, str]) -> Site | None:
    """The site in whose job this runs; None on a laptop. Asks nothing and needs no token yet."""
    if environ.get("CI_API_V4_URL"):
        return GitLab(environ)
    if environ.get("GITHUB_API_URL"):
        return GitHub(environ)
    return None
