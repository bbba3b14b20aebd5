"""The picture in the documents is drawn from the program."""

from __future__ import annotations

import json
import re

import pytest

from tests.engine.conftest import Whole
from tests.engine.diagram import flowchart
from tests.engine.harness import ROOT


@pytest.mark.documents
def test_the_diagram_in_the_documents_is_what_the_program_declares(whole: Whole) -> None:
    printed = whole("production").run("preview", "--json").text
    preview = json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]
    drawn = flowchart(preview)
    (shown,) = re.findall(r"^```mermaid\n(.*?)\n```$", (ROOT / "docs" / "gcp.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown == drawn, f"put this into docs/gcp.md:\n{drawn}"
