"""The page in a real browser. tests/release/test_page.py has every case without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from server.portal.served import Version
from tests.release import chromium
from tests.release.chromium import Browser
from tests.release.front import Front, opened
from tests.release.test_page import HOSTILE, ORIGIN, released, tensor, version

HOSTILE_MODEL: Final = version(
    "hostile",
    "0",
    0,
    deployed=HOSTILE,
    about={
        "implementation": HOSTILE,
        "origin": {**ORIGIN, "tag": HOSTILE, "pipeline": "javascript:alert(1)"},
        "inputs": [tensor(HOSTILE, "BYTES", [-1])],
        "outputs": [tensor(HOSTILE, "BYTES", [-1])],
    },
)
SET_UP: Final = """
globalThis.article = (model) => [...document.querySelectorAll("article")]
  .find((each) => each.querySelector("h2").textContent === model);
globalThis.press = (model, text) => [...article(model).querySelectorAll("button")]
  .find((each) => each.textContent === text).click();
globalThis.cells = (model) => [...article(model).querySelectorAll("td input")];
"""
SHOWN: Final = """
globalThis.operation = (path) => [...document.querySelectorAll(".opblock")].find((each) =>
  each.querySelector(".opblock-summary-path").textContent.replace(/\u200b/g, "") === path);
"""
CONTRASTS: Final = """
(() => {
  const channel = (value) => (value <= 10.31475 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const light = (color) => {
    const [red, green, blue] = color.match(/[\\d.]+/g).map(Number).map(channel);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05;
  };
  const behind = (node) => {
    const color = node ? getComputedStyle(node).backgroundColor : "rgb(255, 255, 255)";
    return color === "rgba(0, 0, 0, 0)" ? behind(node.parentElement) : color;
  };
  return [...document.querySelectorAll("body *")]
    .filter((node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .filter((node) => !node.disabled && node.checkVisibility())
    .map((node) => [light(getComputedStyle(node).color), light(behind(node)), node.outerHTML])
    .map(([one, other, html]) => [Math.max(one, other) / Math.min(one, other), html])
    .filter(([ratio]) => ratio < 4.5);
})()
"""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with opened([*released(), HOSTILE_MODEL], tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium.started(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(running: Browser, front: Front) -> Iterator[Browser]:
    """With the page opened and nothing wrong on it before and after."""
    front.asked.clear()
    open_page(running, front)
    yield running
    assert running.errors == []


def open_page(browser: Browser, front: Front, **more: Any) -> None:
    browser.open("about:blank")
    browser.open(front.url, **more)
    browser.wait("document.querySelectorAll('article').length === 4 && /ready/i.test(stack.textContent)")
    browser.run(SET_UP)


def send_by_keyboard(browser: Browser, model: str) -> None:
    browser.run(f"article('{model}').querySelector('button.main').focus()")
    browser.press("Enter")


@pytest.mark.parametrize("each", released(), ids=lambda each: each.model)
def test_each_model_is_asked_what_is_typed_and_its_answer_is_shown(
    browser: Browser, front: Front, each: Version
) -> None:
    model, response = each.model, each.about["response"]
    front.replies[model] = (200, json.dumps({"model_name": model, "model_version": each.version, **response}))
    for place, value in enumerate(each.about["request"]["inputs"][0]["data"]):
        browser.run(f"cells('{model}')[{place}].value = ''; cells('{model}')[{place}].focus()")
        browser.type(str(value))
    send_by_keyboard(browser, model)
    told = browser.wait(f"article('{model}').querySelector('p.good')?.textContent")
    assert told.startswith(f"Version {each.version} answered in ")
    assert front.asked == [each.about["request"]]
    (output,) = response["outputs"]
    shown = browser.run(
        f"[...article('{model}').querySelectorAll('[aria-label=Answer] td')].map((td) => td.textContent)"
    )
    kind = str if output["datatype"] == "BYTES" else float
    assert [*map(kind, shown)] == output["data"]


def test_the_keyboard_reaches_every_part_of_a_model(browser: Browser) -> None:
    browser.run("document.querySelector('header a').focus()")
    reached: list[str] = []
    while len(reached) < 20 and reached[-1:] != ["Show as code"]:
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.ariaLabel || document.activeElement.textContent.trim()"))
    assert reached[0] == "Versions of classificador-produtos"
    rows = [f"predict, value, row {row}" for row in (1, 2, 3)]
    assert reached[-7:] == [*rows, "Add row", "Remove row", "Send", "Show as code"]


def test_an_error_of_a_model_and_a_model_that_is_gone_are_told(browser: Browser, front: Front) -> None:
    front.replies["iris-dtc"] = (503, "no healthy upstream")
    front.down = {"iris-dtc"}
    try:
        send_by_keyboard(browser, "iris-dtc")
        told = browser.wait("article('iris-dtc').querySelector('[role=alert]')?.textContent")
        assert told.endswith("no healthy upstream")
        # The portal remembers for a second what was ready.
        browser.wait("new Promise((done) => setTimeout(() => done(true), 1100))")
        open_page(browser, front)
        assert browser.run("stack.textContent") == "Not ready: iris-dtc 1.0"
    finally:
        front.down = set()


def test_a_hostile_description_is_only_text(browser: Browser, front: Front) -> None:
    answer = {"model_version": HOSTILE, "outputs": [tensor(HOSTILE, "BYTES", [1], [HOSTILE])]}
    front.replies["hostile"] = (200, json.dumps(answer))
    browser.run("press('hostile', 'Send'); press('hostile', 'Show as code')")
    browser.wait("!!article('hostile').querySelector('[aria-label=Answer]')")
    assert HOSTILE in browser.run("article('hostile').innerText")
    assert browser.run("document.querySelectorAll('article img, article script').length") == 0
    assert not [each for each in browser.run("[...document.links].map((each) => each.href)") if "javascript" in each]


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", [320, 1600])
def test_every_text_can_be_read(browser: Browser, front: Front, width: int, is_dark: bool) -> None:
    open_page(browser, front, width=width, is_dark=is_dark)
    browser.run("press('iris-dtc', 'Show as code'); press('wine-lgbm', 'Send')")
    browser.wait("!!article('iris-dtc').querySelector('pre')")
    assert browser.run(CONTRASTS) == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    fields = "[...document.querySelectorAll('input, select, textarea')]"
    assert browser.run(f"{fields}.filter((each) => !each.labels.length && !each.ariaLabel).length") == 0


def test_all_that_is_loaded_is_small_and_of_the_same_origin(browser: Browser, front: Front) -> None:
    loaded = "[...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]"
    found = browser.run(f"{loaded}.map((each) => [each.name, each.decodedBodySize])")
    assert all(name.startswith(front.url) for name, _ in found)
    assert 20_000 < sum(size for _, size in found) < 100_000


def test_the_api_description_is_shown_and_asks_a_model(running: Browser, front: Front) -> None:
    (iris,) = (each for each in released() if each.model == "iris-dtc")
    answer = {"model_name": iris.model, "model_version": iris.version, **iris.about["response"]}
    front.replies[iris.model] = (200, json.dumps(answer))
    front.asked.clear()
    running.open("about:blank")
    running.open(f"{front.url}portal/api.html", is_dark=True)
    running.run(SHOWN)
    path = f"/mlapi/v2/models/{iris.model}/versions/{iris.version}/infer"
    running.wait(f"!!operation('{path}')")
    assert running.run("document.documentElement.className") == "dark-mode"
    running.run(f"operation('{path}').querySelector('.opblock-summary-control').click()")
    running.wait(f"!!operation('{path}').querySelector('button.execute')")
    # The example may come after the button, which sends nothing without it.
    running.wait(f"operation('{path}').querySelector('textarea')?.value")
    running.run(f"operation('{path}').querySelector('button.execute').click()")
    shown = running.wait(f"operation('{path}').querySelector('.live-responses-table tbody')?.textContent")
    assert shown.startswith("200")
    assert front.asked == [iris.about["request"]]
    assert running.errors == []
