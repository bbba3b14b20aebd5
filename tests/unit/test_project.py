"""What a model's repository says of itself, and what is refused there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from model_serving.problems import InvalidInput
from model_serving.releases import project

URL = "https://gitlab.example.com/group/serving.git"


def read(folder: Path, *, serving: dict[str, Any] | None = None, **others: Any) -> project.Project:
    content = {"name": "iris", "serving": {"repository": URL, **(serving or {})}, **others}
    (folder / project.FILE).write_text(yaml.safe_dump(content))
    return project.read(folder)


def test_a_name_and_an_address_are_enough(tmp_path: Path) -> None:
    chosen = read(tmp_path)
    assert chosen.serving.delivery == "merge-request"
    assert chosen.serving.branch == "main"
    assert chosen.build == "build"


@pytest.mark.parametrize(
    ("repository", "site"),
    [
        (URL, "gitlab"),
        ("https://gitlab.com/group/serving.git", "gitlab"),
        ("https://github.com/owner/serving.git", "github"),
        ("https://github.example.com/owner/serving.git", "github"),
    ],
)
def test_the_hosts_name_says_which_site_it_is(tmp_path: Path, repository: str, site: str) -> None:
    assert read(tmp_path, serving={"repository": repository}).serving.known_site == site


def test_what_is_said_counts_more_than_the_hosts_name(tmp_path: Path) -> None:
    assert read(tmp_path, serving={"site": "github"}).serving.known_site == "github"


@pytest.mark.parametrize(
    ("serving", "others", "told"),
    [
        ({"repository": "https://git.example.com/g/s.git"}, {}, "Write `site: gitlab` or `site: github` under serving"),
        ({"repository": "file:///srv/serving.git"}, {}, "Write `site: gitlab` or `site: github` under serving"),
        ({"repository": "https://user:secret@gitlab.com/g/s.git"}, {}, "the token is in the variable"),
        ({"repository": "git@gitlab.com:g/s.git"}, {}, "Write for example https://gitlab.example.com"),
        ({"api": "gitlab.example.com"}, {}, "Write for example https://gitlab.example.com/api/v4"),
        ({"project": "serving"}, {}, "Write for example group/serving"),
        ({"delivry": "push"}, {}, "Did you mean delivery?"),
        ({"folder": "../models"}, {}, "Write a path inside the repository, from its root."),
        ({}, {"build": "."}, "Write the name of a folder that holds what is released and nothing else."),
        ({}, {"build": "a\0b"}, 'build is "a\\u0000b"'),
        ({}, {"data": ["x" * 256]}, "each name in it of up to 255 bytes"),
        ({"branch": "a\0b"}, {}, "Write for example main"),
        ({"branch": "a~1"}, {}, "Write for example main"),
        ({"branch": "-f"}, {}, "serving.branch is -f, which is not the name of a branch"),
        ({"branch": "refs/heads/main"}, {}, "Write the branch without refs/heads/, e.g. main."),
        ({"branch": "a..b"}, {}, "which is not the name of a branch"),
        ({"branch": "main.lock"}, {}, "which is not the name of a branch"),
        ({"branch": "main@{1}"}, {}, "which is not the name of a branch"),
        ({"repository": "https://gitlab.com:99999/g/s.git"}, {}, "Port out of range"),
        ({}, {"lock": "/etc/requirements.lock"}, "Write a path inside the repository, from its root."),
        (
            {},
            {"name": "my model"},
            "Write up to 63 letters, digits, ., _ and -, starting and ending with a letter or digit",
        ),
    ],
)
def test_a_mistake_is_refused_with_its_remedy(
    tmp_path: Path, serving: dict[str, Any], others: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path, serving=serving, **others)
    assert told in str(refused.value)
    assert str(refused.value).startswith("release.yaml: ")


def test_a_push_needs_no_site(tmp_path: Path) -> None:
    assert read(tmp_path, serving={"repository": "file:///srv/s.git", "delivery": "push"}).serving.known_site is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "is missing"),
        ("a: [", "is not YAML"),
        ("a: 2024-13-45", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("- a", "holds no keys"),
        ("", "holds no keys"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / project.FILE).write_text(content)
    with pytest.raises(InvalidInput, match=told):
        project.read(tmp_path)
