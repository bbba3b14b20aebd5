"""The documents as a site: `make docs` in a checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, PROJECT

pytestmark = pytest.mark.documents
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"?((?:https?:)?//[^\" >]+)")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with documents of its own; the rest is this one's."""
    for path in PROJECT.iterdir():
        if path.name not in {".state", "docs"}:
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(PROJECT / "docs", tmp_path / "docs")
    return tmp_path


def make_docs(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "docs"],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )


def test_each_document_is_a_page_that_loads_nothing_from_elsewhere(checkout: Path) -> None:
    done = make_docs(checkout)
    assert done.returncode == 0, done.stdout
    site = checkout / ".state" / "site"
    for document in DOCUMENTS:
        page = site / document.relative_to(PROJECT).with_suffix(".html")
        text = (page.with_name("index.html") if page.stem == "README" else page).read_text(encoding="utf-8")
        assert LOADED.findall(text) == []


def test_a_link_that_leads_nowhere_fails(checkout: Path) -> None:
    bad = ["nowhere.md", "ci.md#nowhere", "../templates/nowhere", "/docs/ci.md"]
    with (checkout / "docs" / "models.md").open("a", encoding="utf-8") as page:
        page.write(" ".join(f"[there]({link})" for link in bad))
    (checkout / "docs" / "forgotten.md").write_text("# In no menu\n", encoding="utf-8")
    done = make_docs(checkout)
    assert done.returncode != 0
    for each in ["'nowhere.md'", "'#nowhere'", "'../templates/nowhere'", "'/docs/ci.md'", "docs/forgotten.md"]:
        assert each in done.stdout
