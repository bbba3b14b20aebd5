"""What of docs/ci.md's setup is done on GitHub, and whether an environment asks for approval. It only reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from model_serving.hosts import github, setup
from model_serving.hosts.access import Access, Missing
from model_serving.hosts.setup import BRANCH, PASSPHRASE, Check, Environment, Step, Verdict

if TYPE_CHECKING:
    from github.Repository import Repository

WORKFLOW: Final = "mlops.yml"
NEEDS: Final = "Use a token that may read it: GITHUB_TOKEN=$(gh auth token), of an administrator of the repository."
READER: Final = "Use a token with `actions: read` on the repository: GITHUB_TOKEN=$(gh auth token)."
Approval = Literal["required", "not required", "missing"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A repository as the token sees it: its number and that of its owner, its name, and its setup."""

    id: int
    owner: int
    name: str
    steps: Sequence[Step]


def read(access: Access, name: str, environments: Sequence[Environment]) -> Found:
    """Reads a repository; raises `SiteError` if the token does not see it at all."""
    with github.connected(access, name) as repository:
        about = get(repository)
        checks = _Reader(repository=repository, is_private=about["private"], environments=environments).checks()
        steps = setup.examined(checks, lambda: github.answered(access))
        return Found(id=about["id"], owner=about["owner"]["id"], name=about["full_name"], steps=steps)


def get(repository: "Repository", path: str = "") -> Any:
    """The answer to a question about a repository; of a list the first hundred entries."""
    return repository.requester.requestJsonAndCheck("GET", f"{repository.url}{path}")[1]


def reviewers(environment: dict[str, Any]) -> list[str]:
    """Who has to approve what is deployed to an environment."""
    rules = [rule for rule in environment.get("protection_rules") or [] if rule["type"] == "required_reviewers"]
    people = [each["reviewer"] for rule in rules for each in rule.get("reviewers") or []]
    return [str(each.get("login") or each.get("slug")) for each in people]


def environment_path(name: str) -> str:
    return f"/environments/{quote(name, safe='')}"


@dataclass(frozen=True, kw_only=True)
class _Reader:
    repository: "Repository"
    is_private: bool
    environments: Sequence[Environment]

    def checks(self) -> list[Check]:
        return [
            Check(
                name="protected branch",
                remedy=f"Add a rule set for {BRANCH}: Settings > Rules > Rulesets.",
                access=NEEDS,
                examine=self._branch,
            ),
            *(self._environment(each) for each in self.environments),
            *([self._passphrase()] if any(each.passphrase for each in self.environments) else []),
            Check(
                name="schedule",
                remedy=f"gh workflow enable {WORKFLOW}. GitHub disables a schedule after 60 days without a commit.",
                access=READER,
                examine=self._schedule,
            ),
            Check(
                name="fork pipelines",
                remedy="Switch off *Send write tokens* and *Send secrets* to workflows from pull requests of forks: "
                "Settings > Actions > General.",
                access=NEEDS,
                examine=self._forks,
            ),
        ]

    def _branch(self) -> Verdict:
        # True for a classic protection and for an active rule set; Google sees the same as `ref_protected`.
        is_protected = get(self.repository, f"/branches/{BRANCH}")["protected"]
        return Verdict(found=f"{BRANCH} is protected", wrong=[] if is_protected else [f"{BRANCH} is not protected"])

    def _environment(self, environment: Environment) -> Check:
        def examine() -> Verdict:
            try:
                found = get(self.repository, environment_path(environment.name))
            except Missing:
                return Verdict(found="", wrong=["it does not exist; the first deployment would create it open"])
            people = reviewers(found)
            wrong = self._branches(environment.name, found.get("deployment_branch_policy"))
            if environment.approval and not people:
                wrong.append("it has no required reviewers, and model-serving:ci.approval is true")
            told = f"only {BRANCH}" + (f"; approved by {', '.join(people)}" if people else "")
            return Verdict(found=told, wrong=wrong)

        needs_plan = (
            " On a private repository required reviewers need GitHub Enterprise; docs/ci.md says how to go on without."
            if environment.approval and self.is_private
            else ""
        )
        return Check(
            name=f"environment {environment.name}",
            remedy=f"Settings > Environments > {environment.name}: deployment branches only {BRANCH}"
            f"{', and required reviewers' if environment.approval else ''}.{needs_plan}",
            access=READER,
            examine=examine,
        )

    def _branches(self, name: str, policy: dict[str, bool] | None) -> list[str]:
        if policy is None:
            return ["any branch can deploy"]
        if not policy["custom_branch_policies"]:
            return ["every protected branch can deploy"]
        listed = get(self.repository, f"{environment_path(name)}/deployment-branch-policies")["branch_policies"]
        names = [each["name"] for each in listed]
        return [] if names == [BRANCH] else [f"{', '.join(names) or 'no branch'} can deploy"]

    def _passphrase(self) -> Check:
        def examine() -> Verdict:
            names = [each["name"] for each in get(self.repository, "/actions/secrets?per_page=100")["secrets"]]
            wrong = [] if PASSPHRASE in names else ["the secret does not exist"]
            return Verdict(found="a secret of the repository", wrong=wrong)

        return Check(
            name=PASSPHRASE,
            remedy=f"gh secret set {PASSPHRASE}, and pass it to the jobs that preview and deploy.",
            access=NEEDS,
            examine=examine,
        )

    def _schedule(self) -> Verdict:
        try:
            state = get(self.repository, f"/actions/workflows/{WORKFLOW}")["state"]
        except Missing:
            return Verdict(found="", wrong=[f"{BRANCH} has no workflow {WORKFLOW}"])
        return Verdict(found=f"{WORKFLOW} is active", wrong=[] if state == "active" else [f"{WORKFLOW} is {state}"])

    def _forks(self) -> Verdict:
        if not self.is_private:
            return Verdict(found="on a public repository, a fork's token can only read")
        settings = get(self.repository, "/actions/permissions/fork-pr-workflows-private-repos")
        risks = {
            "send_write_tokens_to_workflows": "a fork's workflow gets a token that can write, and this identity",
            "send_secrets_and_variables": "a fork's workflow gets the secrets",
        }
        return Verdict(
            found="a fork's token can only read", wrong=[risk for key, risk in risks.items() if settings[key]]
        )
