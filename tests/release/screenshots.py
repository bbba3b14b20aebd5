"""Takes the picture of the page that README shows: ``make screenshots``."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.release import chromium
from tests.release.front import opened
from tests.release.repositories import PROJECT
from tests.release.test_page import ORIGIN, released

PICTURE: Final = PROJECT / "docs" / "page.png"
MODEL: Final = "iris-dtc"
WIDTH: Final = 960
HEIGHT: Final = 1120


def main() -> None:
    (model,) = [each for each in released() if each.model == MODEL]
    shown = replace(model, deployed="2026-11-02T09:30:00Z", about={**model.about, "origin": ORIGIN})
    shadow = replace(
        shown, version="1.1", weight=0, shadow=True, about={**shown.about, "origin": {**ORIGIN, "tag": "v1.1"}}
    )
    with tempfile.TemporaryDirectory() as folder, opened([shown, shadow], Path(folder)) as front:
        answer = {"model_name": MODEL, "model_version": shown.version, **shown.about["response"]}
        front.replies[MODEL] = (200, json.dumps(answer))
        with chromium.started(Path(folder) / "profile") as browser:
            browser.open(front.url, width=WIDTH, height=HEIGHT)
            browser.wait("/ready/.test(stack.textContent)")
            browser.run("document.querySelector('button.main').click()")
            browser.wait("!!document.querySelector('p.good')")
            browser.screenshot(PICTURE)
    print(f"{PICTURE.relative_to(PROJECT)} is written")


if __name__ == "__main__":
    main()
