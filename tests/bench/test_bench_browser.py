"""The report in a real browser: drawn, sorted, switched to dark, and offline."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bench_whole_run import prediction, whole_run

from hvdtools.bench.analysis.summary import analyze
from hvdtools.bench.report.page import write_page

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

webdriver = pytest.importorskip("selenium.webdriver", reason="needs `pip install selenium`")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="needs chromium and chromium-driver, Debian's packages"
    ),
]

WIDTHS = {"desk": 1280, "phone": 390}
SCHEMES = ("light", "dark")
# Each text, by its color and the nearest background that is not transparent.
TEXTS = """
const clear = "rgba(0, 0, 0, 0)";
const ground = element => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (color !== clear) return color;
  }
  return "rgb(255, 255, 255)";
};
const found = {};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const text = walker.currentNode.data.trim();
  if (!text || element.matches("script, style, option")) continue;
  const style = getComputedStyle(element);
  const color = element.closest("svg") ? style.fill : style.color;
  found[`${color} on ${ground(element)}`] = text;
}
return found;
"""
# Of a heading: the rows' values and whether they failed, and what a screen reader hears.
ORDER = """
const [table, column] = arguments;
const heading = table.tHead.rows[0].cells[column];
heading.querySelector("button").scrollIntoView({block: "center"});
heading.querySelector("button").focus();
const rows = [...table.tBodies[0].rows].map(row =>
  [row.cells[column].dataset.value, "failed" in row.dataset]);
return [rows, heading.getAttribute("aria-sort")];
"""
BOXES = """
return [...document.querySelectorAll("figure > svg")].filter(svg => !svg.closest("[hidden]"))
  .map(svg => svg.getBoundingClientRect().toJSON());
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = whole_run()
    return write_page(tmp_path_factory.mktemp("page"), analyze(run), prediction(run))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    profile = tmp_path_factory.mktemp("profile")
    for word in ("--headless=new", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(word)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium has no sandbox as root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options, service)
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def shown(browser: Chrome, page: Path, scheme: str = "light", width: int = 1280) -> None:
    """Open the page as on a first visit."""
    emulate(browser, scheme)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())


def emulate(browser: Chrome, scheme: str, media: str = "") -> None:
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted, "media": media})


def requests(browser: Chrome) -> list[str]:
    """The address of every request since the log was last read."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [each for each in messages if each["method"] == "Network.requestWillBeSent"]
    return [each["params"]["request"]["url"] for each in sent]


def background(browser: Chrome) -> str:
    return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))


def all_of(browser: Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements("css selector", selector)


def contrast(colors: str) -> float:
    """As WCAG 2.2 defines it, of "rgb(1, 2, 3) on rgb(4, 5, 6)"."""
    lights = []
    for rgb in re.findall(r"rgba?\((\d+), (\d+), (\d+)\)", colors):
        values = np.array([int(each) for each in rgb]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    low, high = sorted(lights)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_without_an_error_and_asks_for_nothing(
    browser: Chrome, page: Path, width: str, scheme: str
) -> None:
    shown(browser, page, scheme, WIDTHS[width])
    assert browser.get_log("browser") == []
    assert requests(browser) == [page.as_uri()]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_plot_has_a_size_and_lies_inside_the_window(
    browser: Chrome, page: Path, width: str
) -> None:
    shown(browser, page, width=WIDTHS[width])
    selects = all_of(browser, ".chooser select")
    assert len(selects) == 1
    choices = selects[0].find_elements("css selector", "option")
    boxes = browser.execute_script(BOXES)
    assert len(boxes) == 13 + 2 + 2  # trainings, one choice of all-reduces, predictions
    for choice in choices:
        choice.click()
        boxes += browser.execute_script(BOXES)
    for box in boxes:
        assert box["width"] > 100 and box["height"] > 100
        assert box["left"] >= 0 and box["right"] <= WIDTHS[width]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= WIDTHS[width]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_text_has_a_contrast_of_4_5(browser: Chrome, page: Path, scheme: str) -> None:
    shown(browser, page, scheme)
    pairs: dict[str, str] = browser.execute_script(TEXTS)
    assert len(pairs) >= 6
    low = {colors: text for colors, text in pairs.items() if contrast(colors) < 4.5}
    assert low == {}


def expected_order(rows: list[list[Any]], number: bool, descending: bool) -> list[str]:
    """What a reader expects: by value, then what has none, then what failed."""

    def key(value: str) -> Any:
        parts = re.split(r"(\d+)", value.casefold())
        return float(value) if number else [int(p) if p.isdigit() else p for p in parts]

    whole = [value for value, failed in rows if not failed]
    known = sorted((value for value in whole if value), key=key, reverse=descending)
    return known + [""] * whole.count("") + [""] * sum(failed for _, failed in rows)


@pytest.mark.parametrize("by", ["click", "keyboard"])
def test_every_column_sorts_both_ways(browser: Chrome, page: Path, by: str) -> None:
    from selenium.webdriver.common.keys import Keys

    shown(browser, page)
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = 1")
    tables = all_of(browser, "table.sorts")
    assert len(tables) == 4 + 2 + 1 + 2 * 3  # trainings, all-reduces, the loader, two predictions
    if by == "keyboard":
        tables = tables[:1]  # a button is a button; the orders are the same in all
    moved = 0
    for table in tables:
        for column, heading in enumerate(table.find_elements("css selector", "th")):
            number = heading.get_attribute("data-kind") == "number"
            button = heading.find_element("css selector", "button")
            for key, direction in ((Keys.ENTER, "ascending"), (Keys.SPACE, "descending")):
                before, _ = browser.execute_script(ORDER, table, column)
                if by == "keyboard":
                    button.send_keys(key)
                else:
                    button.click()
                after, heard = browser.execute_script(ORDER, table, column)
                assert heard == direction
                values = ["" if failed else value for value, failed in after]
                assert values == expected_order(before, number, direction == "descending")
                failed = [failed for _, failed in after]
                assert failed == sorted(failed)
                moved += after != before
            assert len(table.find_elements("css selector", "[aria-sort]")) == 1
    assert moved > 10 * len(tables)  # both ways; a column of equal values does not move


def test_rows_move_as_a_whole(browser: Chrome, page: Path) -> None:
    shown(browser, page)
    rows = "return [...document.querySelector('table').tBodies[0].rows].map(r => r.innerText)"
    before = browser.execute_script(rows)
    for button in all_of(browser, "table:first-of-type th button")[:4]:
        button.click()
        after = browser.execute_script(rows)
        assert after != before and sorted(after) == sorted(before)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_toggle_works_and_its_choice_stays(browser: Chrome, page: Path, scheme: str) -> None:
    shown(browser, page, scheme)
    (toggle,) = all_of(browser, ".toggle")
    first, other = background(browser), {"light": "Dark", "dark": "Light"}[scheme]
    assert toggle.text == f"{other} colors"
    toggle.click()
    second = background(browser)
    assert second != first and toggle.text == f"{scheme.capitalize()} colors"
    browser.refresh()
    assert background(browser) == second
    emulate(browser, "dark" if scheme == "light" else "light")
    assert background(browser) == second  # the choice overrides the system
    all_of(browser, ".toggle")[0].click()
    assert background(browser) == first
    shown(browser, page, "dark" if scheme == "light" else "light")
    assert background(browser) == second  # nothing chosen: as the system says


def test_scripts_that_are_not_the_pages_own_do_not_run(browser: Chrome, page: Path) -> None:
    shown(browser, page)
    asked = """
        const done = arguments[0], blocked = [];
        document.addEventListener("securitypolicyviolation", event => {
          blocked.push(event.effectiveDirective);
          if (blocked.length === 3) done(blocked.sort());
        });
        const script = document.createElement("script");
        script.textContent = "window.foreign = true";
        const image = new Image();
        image.src = "http://127.0.0.1:9/x.png";
        document.body.append(script, image);
        fetch("http://127.0.0.1:9/").catch(() => {});
    """
    browser.set_script_timeout(20)
    blocked = browser.execute_async_script(asked)
    assert blocked == ["connect-src", "img-src", "script-src-elem"]
    assert browser.execute_script("return window.foreign") is None


def test_without_javascript_it_is_a_plain_page(browser: Chrome, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        assert all_of(browser, "th button") == []
        assert not any(each.is_displayed() for each in all_of(browser, ".toggle, .chooser"))
        panels = all_of(browser, ".panel")
        assert len(panels) == 4 + 6 and all(panel.is_displayed() for panel in panels)
        assert "failed" in all_of(browser, "table")[0].text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_paper_is_light_and_shows_all_panels(browser: Chrome, page: Path) -> None:
    shown(browser, page, "dark")
    emulate(browser, "dark", media="print")
    assert contrast(f"{background(browser)} on rgb(0, 0, 0)") > 15
    assert not any(each.is_displayed() for each in all_of(browser, ".toggle, .chooser"))
    assert all(panel.is_displayed() for panel in all_of(browser, ".panel"))
    emulate(browser, "light")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_screenshot_shows_the_plots_colors(
    browser: Chrome, page: Path, width: str, scheme: str
) -> None:
    from PIL import Image

    shown(browser, page, scheme, WIDTHS[width])
    browser.execute_script("document.querySelector('figure').scrollIntoView()")
    image = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    pixels = np.asarray(image).reshape(-1, 3).astype(int)
    assert (pixels.mean() > 128) == (scheme == "light")
    colorful = pixels[(pixels.max(axis=1) - pixels.min(axis=1)) > 60]
    assert len(colorful) > 300 and len(np.unique(colorful // 16, axis=0)) > 20
