"""How a branch relates to what is live, and the worktree in which it is previewed: with real repositories."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from model_serving.pipelines.backend import Update
from model_serving.pipelines.base import Base
from model_serving.pipelines.branch import Branch

STACK = "config:\n  model-serving:models: {iris: {versions: {'1.0': 100}}}\n"


class Repository:
    """A clone with a branch, made of commits that write files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *words: str) -> str:
        person = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
        done = subprocess.run(["git", *person, *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        """Commits files, in whose names two underscores stand for a slash and one for a dot."""
        for name, text in files.items():
            path = self.folder / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a change")
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str, start: str) -> None:
        self.git("switch", "--quiet", "--create", name, start)

    def clone(self, folder: Path, *options: str) -> Repository:
        self.git("clone", "--quiet", *options, f"file://{self.folder}", str(folder))
        made = Repository.__new__(Repository)
        made.folder = folder
        return made


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """With a first commit on main."""
    made = Repository(tmp_path / "repository")
    made.commit(stacks__Pulumi_dev_yaml=STACK, README_md="one\n", requirements_txt="a==1\n", models__iris__1_0__x="")
    monkeypatch.chdir(made.folder)
    return made


def base(repository: Repository, live: str, **options: object) -> Base:
    update = Update(live, datetime(2026, 11, 28, 10, tzinfo=UTC), "succeeded")
    chosen: dict[str, object] = {"target": "main", "is_of_site": True, **options}
    return Branch(folder=repository.folder, **chosen).base("dev", update)  # type: ignore[arg-type]


def test_a_branch_that_has_all_that_is_live_is_compared_with_it(repository: Repository) -> None:
    live = repository.git("rev-parse", "HEAD")
    repository.commit(README_md="two\n")
    repository.branch("try", "main")
    repository.commit(README_md="three\n")
    found = base(repository, live)
    assert (found.commit, found.deployed, found.behind, found.waiting) == (live, "2026-11-28 10:00 UTC", 0, 1)
    assert [*found.sentences(str)][-1] == "1 commit of main is not live yet, and its changes are shown as well."
    assert base(repository, live, target="").waiting == 0


def test_what_a_branch_lacks_is_merged_in_a_worktree_that_is_gone_afterwards(repository: Repository) -> None:
    first = repository.git("rev-parse", "HEAD")
    live = repository.commit(models__iris__1_1__x="", stacks__Pulumi_dev_yaml=STACK.replace("1.0", "1.1"))
    repository.branch("try", first)
    repository.commit(README_md="another word\n")
    (repository.folder / ".state").mkdir()
    found = base(repository, live)
    assert (found.behind, found.why, found.undone) == (1, "", ("iris",))
    with Branch(folder=repository.folder, target="main").merged(found) as merged:
        worktree = Path.cwd()
        assert worktree != repository.folder
        assert merged.is_merged
        assert "1.1" in Path("stacks/Pulumi.dev.yaml").read_text(encoding="utf-8")
        assert Path("README.md").read_text(encoding="utf-8") == "another word\n"
        assert Path(".state").resolve() == repository.folder / ".state"
    assert Path.cwd() == repository.folder
    assert not worktree.exists()
    assert len(repository.git("worktree", "list").splitlines()) == 1
    assert repository.git("status", "--porcelain", "--", "README.md", "stacks") == ""


@pytest.mark.parametrize(
    ("own", "theirs", "why"),
    [
        ("README_md", "README_md", "merging conflicts in README.md"),
        ("README_md", "requirements_txt", "merging changes requirements.txt, which is not installed here"),
    ],
)
def test_what_cannot_be_merged_is_previewed_as_it_is_and_says_why(
    repository: Repository, own: str, theirs: str, why: str
) -> None:
    first = repository.git("rev-parse", "HEAD")
    live = repository.commit(**{theirs: "theirs\n"}, models__rose__1_0__x="")
    repository.branch("try", first)
    repository.commit(**{own: "own\n"})
    with Branch(folder=repository.folder, target="main").merged(base(repository, live)) as merged:
        assert Path.cwd() == repository.folder
    assert (merged.is_merged, merged.behind, merged.why, merged.undone) == (False, 1, why, ("rose",))
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_only_what_the_target_has_is_merged(repository: Repository) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.branch("of-somebody", first)
    live = repository.commit(README_md="not on main\n")
    repository.branch("try", first)
    repository.commit(models__iris__1_1__x="")
    assert base(repository, live).why == "what is live is not on main"
    with Branch(folder=repository.folder).merged(base(repository, live, target="")) as merged:
        assert not merged.is_merged, "a pipeline of main deploys exactly its commit"


def test_a_laptop_is_on_the_way_to_the_default_branch(repository: Repository) -> None:
    first = repository.git("rev-parse", "HEAD")
    live = repository.commit(models__iris__1_1__x="")
    assert Branch.of_laptop().target == ""
    repository.git("switch", "--quiet", "--detach", first)
    assert Branch.of_laptop().target == "", "an older commit of main"
    repository.branch("try", first)
    repository.commit(README_md="own\n")
    assert Branch.of_laptop().target == "main"
    assert base(repository, live, is_of_site=False).why == ""
    (repository.folder / "README.md").write_text("not committed\n")
    assert base(repository, live, is_of_site=False).why == "changes in this checkout are in no commit (README.md)"


def test_a_default_branch_with_a_slash_keeps_its_whole_name(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.git("branch", "--move", "release/main")
    clone = repository.clone(tmp_path / "clone")
    monkeypatch.chdir(clone.folder)
    clone.branch("try", "HEAD")
    clone.commit(README_md="own\n")
    assert Branch.of_laptop().target == "release/main"


def test_a_jobs_shallow_clone_fetches_what_it_needs(repository: Repository, tmp_path: Path) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.branch("try", first)
    for number in range(3):
        repository.commit(README_md=f"{number}\n")
    repository.git("switch", "--quiet", "main")
    live = repository.commit(models__iris__1_1__x="")
    job = repository.clone(tmp_path / "job", "--depth", "1", "--branch", "try")
    found = base(job, live)
    assert (found.behind, found.why, found.undone) == (1, "", ("iris",))
    assert base(job, "0" * 40).behind is None


def test_outside_of_a_repository_there_is_nothing_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Branch().head() == ""
    assert Branch.of_laptop() == Branch()
