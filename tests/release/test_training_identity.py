"""A job of a model's repository reads and writes the DVC bucket as the account training: real make, DVC and gcsfs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import google_identity
from tests.google_identity import TOKEN, Google
from tests.release.templates import Done, Example, rendered, serving_tools

POOL = "projects/4711/locations/global/workloadIdentityPools/serving"
ACCOUNT = "serving-training@acme-dev.iam.gserviceaccount.com"
UPLOAD = (
    "from pathlib import Path; from model_serving.images.remotes import md5_of, open_remote; "
    "path = Path('build/wine-cultivars.txt'); open_remote('gs://models/releases').put(path, md5_of(path))"
)
"""What `publish` does with a large file."""
STAGE = """\
stages:
  train:
    cmd: mkdir -p build && cp data/wine.csv build/wine-cultivars.txt
    deps: [data/wine.csv]
    outs: [build/wine-cultivars.txt]
"""
"""In the place of a training, which has tests of its own."""


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Google]:
    provider = f"//iam.googleapis.com/{POOL}/providers/gitlab"
    with google_identity.google(tmp_path, provider=provider, account=ACCOUNT, project="8") as known:
        yield known


@pytest.fixture
def example(tmp_path: Path) -> Example:
    answers = {"site": "gitlab", "dvc_remote": "gs://models/cache", "google_pool": POOL, "google_account": ACCOUNT}
    folder = rendered(tmp_path / "model", "wine-cultivars", **answers)
    example = Example(name="wine-cultivars", folder=folder, tools=serving_tools(tmp_path / "tools"))
    (folder / "dvc.yaml").write_text(STAGE)
    release = (folder / "release.yaml").read_text()
    (folder / "release.yaml").write_text(release.partition("report:")[0] + "report: {params: [], metrics: []}\n")
    example.git("init", "--quiet", "--initial-branch", "main")
    example.provide_environment()
    return example


def test_training_pulls_and_pushes_as_its_account_and_so_do_report_and_release(known: Google, example: Example) -> None:
    def job(*words: str, **variables: str) -> Done:
        token = {"CI": "true", "GITLAB_CI": "true", "GOOGLE_ID_TOKEN": known.signed()}
        done = example.make(*words, **(known.environ() | token | variables))
        assert done.code == 0, done.said
        assert not known.refused
        return done

    said = job("train").said
    assert "Running stage 'train'" in said
    results = example.results()
    assert any(name.startswith("cache/files/md5/") for name in known.storage.objects)
    assert known.storage.accounts == {f"Bearer {TOKEN}"}, "and nothing without it"
    example.commit()

    example.forget()
    said = job("train").said
    assert "Running stage" not in said, "what is in the bucket is not trained again"
    assert example.results() == results

    example.forget()
    example.git("checkout", "--quiet", ".")
    job("report", "BASE=HEAD")
    assert (example.folder / "build" / "wine-cultivars.txt").exists(), "dvc pull has brought it"

    words = ["-f", "Makefile", "--eval", f'upload: ; @$(AS_TRAINING) python -c "{UPLOAD}"', "upload"]
    job(*words)
    assert any(name.startswith("releases/files/md5/") for name in known.storage.objects)


def test_a_fork_trains_without_the_bucket(known: Google, example: Example) -> None:
    fork = {
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_API_V4_URL": "https://gitlab.example/api/v4",
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "9",
        "CI_MERGE_REQUEST_PROJECT_ID": "8",
        # No account of this machine's, and no metadata server to ask for one.
        "HOME": str(example.folder.parent),
        "NO_GCE_CHECK": "true",
    }
    done = example.make("train", **(known.environ() | fork))
    assert done.code == 0, done.said
    assert "Running stage 'train'" in done.said
    assert "The results were not stored in DVC's remote" in done.said
    assert not known.storage.objects
