"""The report in a real browser: Chromium, headless, opened from disk with the network cut."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bagoftricks.cli import main
from bagoftricks.reports.report import write_report
from bagoftricks.reports.results import read_results
from bagoftricks.reports.tables import cells_table
from tests.reports.made_up import EVIL, FACTORS, make_many

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Heard:
    """What a page says and asks for."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; without one the tests are skipped, but not in CI."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = f"no browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A factorial of four cells over five seeds, of which the last cell failed."""
    factors = {name: FACTORS[name] for name in ("schedule.decay", "label_smoothing.amount")}
    lost = "schedule.decay=cosine+label_smoothing.amount=0.1"
    root = make_many(tmp_path_factory.mktemp("study"), factors, seeds=5, epochs=3, lost=lost)
    write_report(root)
    return root


def cut_off(browser: Browser, **settings: Any) -> BrowserContext:
    return browser.new_context(offline=True, **settings)


def visit(context: BrowserContext, path: Path, heard: Heard | None = None) -> Page:
    page, heard = context.new_page(), heard or Heard()
    page.on("console", lambda message: heard.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.on("dialog", lambda dialog: (heard.errors.append(f"dialog: {dialog.message}"), dialog.dismiss())[1])
    page.on("request", lambda request: heard.requests.append(request.url))
    page.goto(path.as_uri())
    return page


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def page(chromium: Browser, study: Path, heard: Heard) -> Iterator[Page]:
    """The report, alone in a folder of its own; nothing that it does may be an error."""
    context = cut_off(chromium)
    yield visit(context, study / "report" / "report.html", heard)
    context.close()
    assert heard.errors == []


def open_all(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")


def test_opens_from_disk_without_a_network(page: Page, heard: Heard, tmp_path: Path) -> None:
    open_all(page)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert [url for url in heard.requests if not url.startswith(("file:", "data:"))] == []
    assert page.locator("h2").first.text_content() == "What helped"
    assert page.locator(".findings.first .finding").count() == 2
    assert page.locator("#interactions").count() == 0  # it lacks a cell
    assert "Not estimable" in str(page.locator("#answer").text_content())


def test_a_policy_forbids_other_scripts(chromium: Browser, study: Path, tmp_path: Path) -> None:
    """Even what slipped through the escaping would not run."""
    text = (study / "report" / "report.html").read_text(encoding="utf-8")
    (tmp_path / "bad.html").write_text(text.replace("</main>", "<script>window.ran = 1</script></main>"))
    heard, context = Heard(), cut_off(chromium)
    page = visit(context, tmp_path / "bad.html", heard)
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in error for error in heard.errors)
    context.close()


def test_names_of_others_are_text(page: Page) -> None:
    open_all(page)
    classes = page.locator("#per-class")
    assert EVIL in str(classes.text_content())
    assert page.get_by_role("rowheader", name=EVIL).count() >= 1
    assert f"broke: {EVIL}" in str(page.locator(".failures").text_content())
    assert page.locator("script").count() == 1
    assert page.locator("img[src='x']").count() == 0


def column(page: Page, table: str, number: int) -> list[str]:
    cells = page.locator(f"#{table} tbody tr > :nth-child({number})")
    return [text.strip() for text in cells.all_text_contents()]


def test_tables_sort_by_click_and_by_keyboard(page: Page) -> None:
    head = page.locator("#cells thead th").nth(1)
    before = column(page, "cells", 2)
    assert before[-1] == "–"
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    numbers = sorted(before[:-1], key=float_of, reverse=True)
    assert column(page, "cells", 2) == [*numbers, "–"]
    page.keyboard.press("Enter")  # the button has the focus
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "cells", 2) == [*numbers[::-1], "–"]  # what is missing stays last
    page.keyboard.press("Space")
    assert column(page, "cells", 2) == before
    page.locator("#cells thead th").first.get_by_role("button").click()
    names = column(page, "cells", 1)
    assert names == sorted(names)
    assert page.locator("#cells th[aria-sort=ascending]").count() == 1


def float_of(text: str) -> float:
    return float(text.partition(" ")[0])


@pytest.mark.parametrize("clipboard", ["the browser's", "none"])
def test_tables_are_copied(chromium: Browser, study: Path, clipboard: str) -> None:
    """A browser may give a page from disk no clipboard."""
    heard, context = Heard(), cut_off(chromium)
    if clipboard == "none":
        context.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page = visit(context, study / "report" / "report.html", heard)
    table = cells_table(read_results(study))
    for kind, text in (("CSV", table.to_csv()), ("Markdown", table.to_markdown()), ("LaTeX", table.to_latex())):
        page.locator("#cells").get_by_role("button", name=f"as {kind}").click()
        page.locator("#status", has_text=f"Copied as {kind}").wait_for(state="attached")
        assert pasted(page) == text
    context.close()
    assert heard.errors == []


def pasted(page: Page) -> str:
    page.evaluate("document.body.append(Object.assign(document.createElement('textarea'), { id: 'paste' }))")
    page.locator("#paste").focus()
    page.keyboard.press("Control+V")
    text = page.locator("#paste").input_value()
    page.evaluate("document.getElementById('paste').remove()")
    return text


def test_a_charts_data_are_saved(page: Page, study: Path) -> None:
    page.locator("#runs-top1 summary").click()
    with page.expect_download() as waiting:
        page.locator("#runs-top1").get_by_role("button", name="Save runs-top1.csv").click()
    beside = study / "report" / "charts" / "runs-top1.csv"
    assert Path(waiting.value.path()).read_text() == beside.read_text()
    assert page.locator("#runs-top1 .data tbody tr").count() == 15


def paper(page: Page) -> int:
    """How light the page's background is, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return int(colour.partition("(")[2].partition(",")[0])


def test_the_theme_follows_the_system_and_the_button(chromium: Browser, study: Path) -> None:
    heard, context = Heard(), cut_off(chromium, color_scheme="dark")
    page = visit(context, study / "report" / "report.html", heard)
    button = page.locator("#theme")
    assert paper(page) < 60
    button.click()
    assert button.text_content() == "Theme: light"
    assert paper(page) > 200
    page.reload()
    assert paper(page) > 200  # remembered
    button.click()
    assert button.text_content() == "Theme: dark"
    page.emulate_media(color_scheme="light")
    assert paper(page) < 60
    button.click()
    assert paper(page) > 200  # the system's again
    context.close()
    assert heard.errors == []


def test_a_theme_that_cannot_be_remembered(chromium: Browser, study: Path) -> None:
    heard, context = Heard(), cut_off(chromium)
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } })")
    page = visit(context, study / "report" / "report.html", heard)
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert paper(page) < 60
    context.close()
    assert heard.errors == []


def test_the_accessibility_tree_names_every_chart(page: Page) -> None:
    open_all(page)
    titles = [text.rstrip(".") for text in page.locator("figure.chart > figcaption > strong").all_text_contents()]
    assert len(titles) >= 9
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    seen = [node for node in nodes if not node["ignored"]]
    images = [node["name"]["value"] for node in seen if node["role"]["value"] in ("image", "img")]
    for title in titles:
        (name,) = [name for name in images if name.startswith(f"{title}.")]
        assert len(name) > len(title) + 20  # it tells what is shown, too
    assert not [node for node in seen if node["role"]["value"].lower().startswith(("graphics", "svg"))]
    assert all(name.strip() for name in images)
    inside = {child for node in seen if node["role"]["value"] == "image" for child in node.get("childIds", ())}
    assert not inside & {node["nodeId"] for node in seen}  # one name, and not every number of an axis


def test_no_two_things_of_a_page_have_one_id(page: Page) -> None:
    """Links and gradients would lead to the first."""
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids)) > 20


def test_a_phone_needs_no_sideways_scrolling(chromium: Browser, study: Path, tmp_path: Path) -> None:
    context = cut_off(chromium, viewport={"width": 360, "height": 740})
    page = visit(context, study / "report" / "report.html")
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    context.close()


def test_print_opens_what_is_to_be_read(page: Page) -> None:
    assert page.locator("details.printed:not([open])").count() > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.printed:not([open])").count() == 0
    assert page.locator("details.data[open]").count() == 0
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("nav").is_visible()
    assert not page.locator(".buttons").first.is_visible()
    assert paper(page) > 200
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_thousand_runs_stay_usable(chromium: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_many(tmp_path / "study", FACTORS, seeds=10, epochs=10)
    started = time.process_time()  # of this process alone, whatever else the machine does
    assert main(["report", str(root), "--json"]) == 0
    assert time.process_time() - started < 15
    path = Path(json.loads(capsys.readouterr().out)["report"])
    assert path.stat().st_size < 15e6
    heard, context = Heard(), cut_off(chromium)
    page = visit(context, path, heard)
    assert page.locator("#runs-top1 summary").first.text_content() == "The data: 1,000 rows"
    assert "the first and the best cells" in str(page.locator("#charts > details > summary").first.text_content())
    page.locator("#reproduction summary", has_text="Every run").click()
    took = page.evaluate(
        "() => { const head = document.querySelector('#runs thead th:nth-child(4) button');"
        " const from = performance.now(); head.click(); document.body.offsetHeight; return performance.now() - from; }"
    )
    assert took < 1500  # milliseconds, layout included
    values = column(page, "runs", 4)
    assert values == sorted(values, key=float, reverse=True)
    assert len(values) == 1000
    context.close()
    assert heard.errors == []
