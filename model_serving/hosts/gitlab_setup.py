"""What of docs/ci.md's setup is done on GitLab. It only reads, mostly with the role Maintainer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from model_serving.hosts import gitlab, setup
from model_serving.hosts.access import Access, Missing, Unauthorized
from model_serving.hosts.setup import BRANCH, PASSPHRASE, Check, Environment, Step, Unreadable, Verdict

if TYPE_CHECKING:
    from gitlab.v4.objects import Project

REPORTER: Final = 20
"""Roles as numbers: Guest 10, Planner 15, Reporter 20, Developer 30, Maintainer 40, Owner 50."""
ORDERED: Final = "oldest_first"
NEEDS: Final = "Use a token of a Maintainer with the scope read_api: GITLAB_TOKEN=…"
PREMIUM: Final = (
    "GitLab Free has no protected environments: there, anyone who can push to main can start the deployment, which "
    f"waits. With Premium: {NEEDS}"
)
OLD: Final = f"{NEEDS} It needs GitLab 17.8 or newer."


@dataclass(frozen=True, kw_only=True)
class Found:
    """A project as the token sees it: number, path, and its setup."""

    id: int
    path: str
    steps: Sequence[Step]


def read(access: Access, name: str, environments: Sequence[Environment], *, own_token: str | None) -> Found:
    """Reads a project, by its number or path.

    Args:
        access: to the API.
        name: the project's.
        environments: that the pipelines deploy to.
        own_token: the one that jobs write notes with, if it is known here.

    Raises:
        SiteError: if the token does not see the project at all.
    """
    with gitlab.connected(access, name) as lazy:
        project = lazy.manager.gitlab.projects.get(name)
        found = _Reader(project=project, environments=environments, access=access, own_token=own_token)
        steps = setup.examined(found.checks(), lambda: gitlab.answered(access))
        return Found(id=project.id, path=project.path_with_namespace, steps=steps)


@dataclass(frozen=True, kw_only=True)
class _Reader:
    project: "Project"
    environments: Sequence[Environment]
    access: Access
    own_token: str | None

    def checks(self) -> list[Check]:
        return [
            Check(
                name="protected branch",
                remedy=f"Protect {BRANCH} without force pushes: Settings > Repository > Protected branches.",
                access=NEEDS,
                examine=self._branch,
            ),
            *(self._protected(each) for each in self.environments if each.approval),
            *(self._ordered(each) for each in self.environments),
            Check(
                name="token for notes",
                remedy=gitlab.HOW_TO_GET_A_TOKEN + " Do not protect the variable: merge requests need it.",
                access=NEEDS,
                examine=self._token,
            ),
            *([self._passphrase()] if any(each.passphrase for each in self.environments) else []),
            Check(
                name="schedule",
                remedy=f"Create an active schedule for {BRANCH}: Build > Pipeline schedules.",
                access=NEEDS,
                examine=self._schedule,
            ),
            Check(
                name="runners",
                remedy="Set up a runner with the Docker executor and `privileged = true`: Settings > CI/CD > Runners.",
                access=NEEDS,
                examine=self._runners,
            ),
            Check(
                name="protected container repository",
                remedy=f"Protect {self._tools} with the minimum role Maintainer for pushing: Settings > Packages and "
                "registries > Protected container repositories.",
                access=OLD,
                examine=self._registry,
            ),
            Check(
                name="fork pipelines",
                remedy="glab api --method PUT projects/:id -F ci_allow_fork_pipelines_to_run_in_parent_project=false",
                access=NEEDS,
                examine=self._forks,
            ),
        ]

    @property
    def _tools(self) -> str:
        """Container repository of the image in which jobs on main run."""
        return f"{self.project.path_with_namespace.lower()}/ci/main"

    def _branch(self) -> Verdict:
        rules = [each for each in _all(self.project.protectedbranches) if fnmatchcase(BRANCH, each["name"])]
        if not rules:
            return Verdict(found="", wrong=[f"{BRANCH} is not protected"])
        # GitLab applies the most permissive of several rules.
        forced = any(each.get("allow_force_push") for each in rules)
        wrong = ["force pushes are allowed"] if forced else []
        return Verdict(found=f"{BRANCH} is protected", wrong=wrong)

    def _protected(self, environment: Environment) -> Check:
        def examine() -> Verdict:
            try:
                rules = _all(self.project.protected_environments)
            except Missing:
                raise Unreadable("GitLab answered 404 to the list of protected environments") from None
            for rule in rules:
                if rule["name"] == environment.name:
                    people = [*(rule.get("deploy_access_levels") or []), *(rule.get("approval_rules") or [])]
                    who = ", ".join(str(each.get("access_level_description") or "someone") for each in people)
                    wrong = [] if people else ["no one is named who may deploy"]
                    return Verdict(found=f"protected; deployments and approvals by {who}", wrong=wrong)
            return Verdict(found="", wrong=["it is not protected, so anyone who can push to main can deploy"])

        return Check(
            name=f"protected environment {environment.name}",
            remedy=f"Protect {environment.name} and add who may deploy: Settings > CI/CD > Protected environments.",
            access=PREMIUM,
            examine=examine,
        )

    def _ordered(self, environment: Environment) -> Check:
        def examine() -> Verdict:
            for group in _all(self.project.resource_groups):
                if group["key"] == environment.name:
                    mode = group["process_mode"]
                    return Verdict(found=mode, wrong=[] if mode == ORDERED else [f"its resource group is {mode}"])
            mode = self._setting("resource_group_default_process_mode")
            told = f"its resource group does not exist yet, and the project's default is {mode}"
            return Verdict(found=told, wrong=[] if mode == ORDERED else [told])

        name = environment.name
        return Check(
            name=f"order of deployments of {name}",
            remedy=f"glab api --method PUT projects/:id/resource_groups/{name} -f process_mode={ORDERED}; before the "
            f"first deployment glab api --method PUT projects/:id -f resource_group_default_process_mode={ORDERED}",
            access=f"{NEEDS} The project's default needs GitLab 18.4 or newer; before, deploy once and set the group.",
            examine=examine,
        )

    def _variable(self, name: str) -> dict[str, Any] | None:
        return next((each for each in _all(self.project.variables) if each["key"] == name), None)

    def _token(self) -> Verdict:
        variable = self._variable(gitlab.TOKEN)
        if variable is None:
            return Verdict(found="", wrong=[f"the variable {gitlab.TOKEN} does not exist"])
        wrong = [] if variable["masked"] else ["the variable is not masked"]
        if variable["protected"]:
            wrong.append("the variable is protected, and merge requests do not get it")
        # A hidden variable's value cannot be read again.
        token = variable.get("value") or self.own_token
        if not token:
            raise Unreadable("the value of the variable is hidden, so its scopes are not known")
        described, faults = self._described(token)
        return Verdict(found=f"masked; {described}", wrong=[*wrong, *faults])

    def _described(self, token: str) -> tuple[str, list[str]]:
        """What a token may do, in its own words, and what is wrong with that."""
        try:
            with gitlab.connected(replace(self.access, token=token), str(self.project.id)) as project:
                found = project.manager.gitlab.personal_access_tokens.get("self").attributes
        except Unauthorized:
            return "", ["the token is wrong, expired or revoked"]
        wrong = [] if "api" in found["scopes"] else [f"its scopes are {', '.join(found['scopes'])}, without api"]
        roles = {each["id"]: each["access_level"] for each in _all(self.project.access_tokens)}
        if found["id"] not in roles:
            wrong.append(f"it is not an access token of this project, but {found['name']} of a user or a group")
        elif roles[found["id"]] > REPORTER:
            wrong.append(f"its role is {roles[found['id']]}, above Reporter ({REPORTER}): it could change code")
        return f"{found['name']}, scopes {', '.join(found['scopes'])}, expires {found['expires_at'] or 'never'}", wrong

    def _passphrase(self) -> Check:
        def examine() -> Verdict:
            variable = self._variable(PASSPHRASE)
            if variable is None:
                return Verdict(found="", wrong=["the variable does not exist"])
            return Verdict(found="masked", wrong=[] if variable["masked"] else ["the variable is not masked"])

        return Check(
            name=PASSPHRASE,
            remedy="Set it as a masked variable: Settings > CI/CD > Variables.",
            access=NEEDS,
            examine=examine,
        )

    def _schedule(self) -> Verdict:
        schedules = [each for each in _all(self.project.pipelineschedules) if each["ref"].endswith(BRANCH)]
        on_main = [each for each in schedules if each["ref"] in (BRANCH, f"refs/heads/{BRANCH}")]
        active = [each for each in on_main if each["active"]]
        if not active:
            return Verdict(found="", wrong=["the schedule is not active" if on_main else f"{BRANCH} has no schedule"])
        owner = (active[0].get("owner") or {}).get("username", "no one")
        return Verdict(found=f"{active[0]['cron']}, as {owner}")

    def _runners(self) -> Verdict:
        runners = _all(self.project.runners)
        online = [each for each in runners if each.get("status") == "online" and not each.get("paused")]
        wrong = [] if online else [f"none of {len(runners)} runners is online"]
        told = f"{len(online)} online; GitLab does not tell whether they are privileged, which `docker:dind` needs"
        return Verdict(found=told, wrong=wrong)

    def _registry(self) -> Verdict:
        rules = [
            each
            for each in _all(self.project.registry_protection_repository_rules)
            if fnmatchcase(self._tools, each["repository_path_pattern"].lower())
        ]
        levels = [each.get("minimum_access_level_for_push") for each in rules]
        if not any(levels):
            return Verdict(found="", wrong=[f"{self._tools} is not protected: every Developer can push to it"])
        return Verdict(found=f"{self._tools}, pushing from {' and '.join(str(level) for level in levels if level)}")

    def _forks(self) -> Verdict:
        allowed = self._setting("ci_allow_fork_pipelines_to_run_in_parent_project")
        wrong = ["a member can run a fork's pipeline here, with this project's identity"] if allowed else []
        return Verdict(found="they run in the fork", wrong=wrong)

    def _setting(self, key: str) -> Any:
        """A setting of the project; GitLab only shows them to Maintainers."""
        if key not in self.project.attributes:
            raise Unreadable(f"GitLab does not show {key} to this token")
        return self.project.attributes[key]


def _all(manager: Any) -> list[dict[str, Any]]:
    """Every entry of a list."""
    entries: Iterable[Any] = manager.list(iterator=True)
    return [entry.attributes for entry in entries]
