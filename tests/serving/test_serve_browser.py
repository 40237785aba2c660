"""The served page in a real browser: Chromium, headless, which reaches this server and nothing else."""

from __future__ import annotations

import base64
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from bagoftricks.serving.classifier import Classifier, load_model
from bagoftricks.serving.server import address, listen
from bagoftricks.serving.uploads import Limits
from bagoftricks.serving.web import make_app
from tests.serving.test_web import make_model, photo

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
EVIL = "<img src=x onerror=alert(1)>"
CLASSES = ("cat", "dog", EVIL, "Ωmega 猫", "a very long name of a class " * 4, "owl")
LARGEST = 400_000
CARRY = """(base64) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const carried = new DataTransfer();
  if (bytes.length) carried.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
  return carried;
}"""

COPY = """async (base64) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
}"""


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


@contextmanager
def served(classifier: Classifier) -> Iterator[str]:
    """Serves in a thread."""
    with listen("127.0.0.1", 0) as listener:
        app = make_app(classifier, limits=Limits(file_bytes=LARGEST))
        config = uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield address(listener, "127.0.0.1")
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = make_model(tmp_path_factory.mktemp("models") / "pets", size=96, classes=CLASSES)
    return load_model(folder, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def url(classifier: Classifier) -> Iterator[str]:
    with served(classifier) as url:
        yield url


@pytest.fixture
def heard() -> Heard:
    return Heard()


def visit(context: BrowserContext, url: str, heard: Heard) -> Page:
    page = context.new_page()
    page.on("console", lambda message: heard.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.on("dialog", lambda dialog: (heard.errors.append(f"dialog: {dialog.message}"), dialog.dismiss())[1])
    page.on("request", lambda request: heard.requests.append(request.url))
    page.on("filechooser", lambda chooser: None)  # asked for only when a key is pressed, it may come too late
    page.goto(url)
    page.locator("#facts dt").first.wait_for(state="attached")
    return page


@pytest.fixture
def page(chromium: Browser, url: str, heard: Heard) -> Iterator[Page]:
    """The page; it may make no error and ask nobody else."""
    context = chromium.new_context()
    yield visit(context, url, heard)
    context.close()
    assert heard.errors == []
    assert [asked for asked in heard.requests if not asked.startswith((url, "data:", f"blob:{url}"))] == []


def choose(page: Page, content: bytes, name: str = "photo.jpg", kind: str = "image/jpeg") -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": kind, "buffer": content})


def percent(prob: float) -> str:
    return "> 99.9 %" if prob > 0.9995 else "< 0.1 %" if 0 < prob < 0.0005 else f"{100 * prob:.1f} %"


def expect_answer(page: Page, classifier: Classifier, content: bytes, tmp_path: Path) -> None:
    """Five bars, with the names, figures and lengths of what the classifier says."""
    (tmp_path / "image").write_bytes(content)
    (said,) = classifier.predict(tmp_path / "image")
    page.locator("body:not([aria-busy])").wait_for()
    page.locator("#result").wait_for()
    assert page.locator(".class bdi").all_text_contents() == list(said.labels)
    assert page.locator(".class .prob").all_text_contents() == [percent(prob) for prob in said.probs]
    widths = page.locator(".bar span").evaluate_all("(bars) => bars.map((bar) => parseFloat(bar.style.width) / 100)")
    assert widths == pytest.approx(said.probs, abs=1e-4)
    assert len(said.labels) == 5
    assert page.locator("#status").text_content() == f"{said.labels[0]}, {percent(said.probs[0])}"
    assert not page.locator("#message").is_visible()


def loaded(page: Page, name: str) -> int:
    """Waits until an image is drawn; returns its width in pixels of its own."""
    return int(page.locator(f"#{name}").evaluate("(image) => image.decode().then(() => image.naturalWidth)"))


def test_an_image_is_chosen(page: Page, classifier: Classifier, tmp_path: Path) -> None:
    assert not page.locator("#result").is_visible()
    for seed in (1, 2):  # and then another
        choose(page, photo(seed, (300, 200)))
        expect_answer(page, classifier, photo(seed, (300, 200)), tmp_path)
    assert page.locator("#map").is_visible()
    assert loaded(page, "map") == loaded(page, "view") == 96
    page.locator("#whole").wait_for()
    assert loaded(page, "photo") == 300
    box = page.locator("#box").bounding_box()
    whole = page.locator("#photo").bounding_box()
    assert box is not None
    assert whole is not None
    assert box["width"] == pytest.approx(box["height"], abs=1)
    assert box["height"] == pytest.approx(0.875 * whole["height"], abs=1)
    assert box["x"] + box["width"] / 2 == pytest.approx(whole["x"] + whole["width"] / 2, abs=1)


def test_the_button_opens_the_choice(page: Page, classifier: Classifier, tmp_path: Path) -> None:
    page.keyboard.press("Tab")  # the skip link
    page.keyboard.press("Tab")
    assert page.locator("#pick:focus").count() == 1
    with page.expect_file_chooser() as waiting:
        page.keyboard.press("Enter")
    waiting.value.set_files({"name": "a.png", "mimeType": "image/png", "buffer": photo(7, kind="PNG")})
    expect_answer(page, classifier, photo(7, kind="PNG"), tmp_path)


def test_another_class_shows_its_map(page: Page, classifier: Classifier) -> None:
    choose(page, photo(1))
    page.locator(".class").first.wait_for()
    seen = {page.locator("#map").get_attribute("src")}
    names = page.locator(".class bdi").all_text_contents()
    assert page.locator("#for").text_content() == names[0]
    for i in range(1, 5):
        if i < 3:
            page.locator(".class").nth(i).click()
        else:
            page.keyboard.press("ArrowDown")
        assert page.locator(".class input").nth(i).is_checked()
        assert page.locator("#for").text_content() == names[i]
        if page.locator("#map").is_visible():
            seen.add(page.locator("#map").get_attribute("src"))
            assert page.locator("#map").get_attribute("alt") == f"Heat map: where it speaks for {names[i]}"
        else:
            assert page.locator("#none").is_visible()
    assert len(seen) >= 3


def test_the_slider_blends(page: Page) -> None:
    choose(page, photo(1))
    page.locator("#map").wait_for()
    slider = page.get_by_label("Heat map", exact=True)
    for value in ("0", "40", "100"):
        slider.fill(value)
        assert float(page.evaluate("getComputedStyle(document.getElementById('map')).opacity")) == int(value) / 100
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "99"


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_an_image_is_pasted_or_dropped(page: Page, classifier: Classifier, tmp_path: Path, way: str) -> None:
    carried = page.evaluate_handle(CARRY, base64.b64encode(photo(5)).decode())
    hand_over(page, carried, way)
    expect_answer(page, classifier, photo(5), tmp_path)
    hand_over(page, page.evaluate_handle(CARRY, ""), way)  # text, say
    assert "no image" in str(page.locator("#message").text_content())
    assert not page.locator("#result").is_visible()
    assert page.locator("body.dragging").count() == 0


def hand_over(page: Page, carried: Any, way: str) -> None:
    if way == "paste":
        page.evaluate("(it) => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: it }))", carried)
        return
    for kind in ("dragenter", "dragover", "drop"):
        page.locator("main").dispatch_event(kind, {"dataTransfer": carried})
        assert page.locator("body.dragging").count() == (kind == "dragover")


def test_ctrl_v_pastes_from_the_clipboard(chromium: Browser, url: str, heard: Heard, classifier: Classifier) -> None:
    context = chromium.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url.rstrip("/"))
    page = visit(context, url, heard)
    page.evaluate(COPY, base64.b64encode(photo(6, kind="PNG")).decode())
    page.keyboard.press("Control+V")
    page.locator(".class").first.wait_for()
    assert page.locator(".class").count() == 5
    context.close()
    assert heard.errors == []


def test_what_is_no_image_is_told(
    chromium: Browser, url: str, heard: Heard, classifier: Classifier, tmp_path: Path
) -> None:
    context = chromium.new_context()
    page = visit(context, url, heard)
    choose(page, photo(1))
    page.locator("#result").wait_for()
    choose(page, b"Dear model, this is no image.", "a.jpg")
    page.locator("#message", has_text="no image of a kind that is read (JPEG,").wait_for()
    assert not page.locator("#result").is_visible()  # of the image before
    sent = len(heard.requests)
    choose(page, bytes(LARGEST + 1))
    page.locator("#message", has_text="at most 0.38 MiB are taken").wait_for()
    assert len(heard.requests) == sent  # nothing was sent
    choose(page, photo(2))
    expect_answer(page, classifier, photo(2), tmp_path)  # and it goes on
    context.close()
    assert len(heard.errors) == 1  # Chromium reports each answer of 4xx
    assert "422" in heard.errors[0]


def test_a_server_that_has_gone_is_told(chromium: Browser, classifier: Classifier, heard: Heard) -> None:
    context = chromium.new_context()
    with served(classifier) as url:
        page = visit(context, url, heard)
    choose(page, photo(1))
    page.locator("#message", has_text="The server does not answer. Is tricks serve still running?").wait_for()
    context.close()


def test_the_latest_image_wins(page: Page, classifier: Classifier, tmp_path: Path) -> None:
    for seed in range(6):
        choose(page, photo(seed))
    expect_answer(page, classifier, photo(5), tmp_path)


def test_names_of_classes_are_text(page: Page) -> None:
    choose(page, photo(1))
    page.locator(".class").first.wait_for()
    assert EVIL in str(page.locator("#facts").text_content())
    assert page.locator("#predictions img, #facts img, #for img").count() == 0


def test_the_policy_forbids_other_scripts(chromium: Browser, url: str, heard: Heard) -> None:
    """Even what slipped through would not run, nor load anything."""
    context = chromium.new_context()
    page = visit(context, url, heard)
    page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        " document.body.append(script); const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; }"
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert any("script-src 'self'" in error for error in heard.errors)
    assert any("img-src" in error for error in heard.errors)
    context.close()


class Elsewhere(BaseHTTPRequestHandler):
    """A page of another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<p>elsewhere</p>")

    def log_message(self, *words: object) -> None:
        pass


def test_other_sites_cannot_use_it(chromium: Browser, url: str, heard: Heard) -> None:
    """A page of another origin posts an image, as a form would, and reads nothing."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        post = (
            "([url, mode]) => { const form = new FormData(); form.append('file', new Blob(['x']), 'a.jpg');"
            " return fetch(url, { method: 'POST', body: form, mode }).then((r) => r.type, () => 'refused'); }"
        )
        # that the server answers 403 to both, tests/serving/test_web.py shows; a page may not even see that
        assert page.evaluate(post, [f"{url}api/predict", "cors"]) == "refused"
        assert page.evaluate(post, [f"{url}api/predict", "no-cors"]) == "refused"
        read = page.evaluate("(url) => fetch(url).then(() => 'read', () => 'refused')", f"{url}api/model")
        assert read == "refused"
        context.close()
        server.shutdown()


def test_the_accessibility_tree_tells_the_answer(page: Page, classifier: Classifier) -> None:
    choose(page, photo(1))
    page.locator(".class").first.wait_for()
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    seen = [(n["role"]["value"], n["name"]["value"]) for n in nodes if not n["ignored"] and "name" in n]
    radios = [" ".join(name.split()) for role, name in seen if role == "radio"]
    labels, probs = (page.locator(where).all_text_contents() for where in (".class bdi", ".class .prob"))
    assert radios == [" ".join(f"{label} {prob}".split()) for label, prob in zip(labels, probs, strict=True)]
    assert ("slider", "Heat map") in seen
    assert ("button", "Choose an image") in seen
    assert all(name for role, name in seen if role in ("image", "button", "slider", "radio"))


def test_no_two_things_have_one_id(page: Page) -> None:
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids)) > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_and_both_themes(chromium: Browser, url: str, heard: Heard, scheme: str) -> None:
    context = chromium.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)  # type: ignore[arg-type]
    page = visit(context, url, heard)
    choose(page, photo(1))
    page.locator(".class").first.wait_for()
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = int(colour.partition("(")[2].partition(",")[0])
    assert light > 200 if scheme == "light" else light < 60
    context.close()
    assert heard.errors == []


@pytest.mark.parametrize("crop", ["pad", "squash"])
def test_no_frame_where_all_is_seen(chromium: Browser, heard: Heard, tmp_path: Path, crop: str) -> None:
    model = load_model(make_model(tmp_path, crop=crop, classes=("yes", "no")), device="cpu", precision="fp32")
    context = chromium.new_context()
    with served(model) as url:
        page = visit(context, url, heard)
        choose(page, photo(1, kind="TIFF"), "a.tif", "image/tiff")
        page.locator(".class").first.wait_for()
        assert page.locator(".class").count() == 2
        assert loaded(page, "view") == 64
        page.wait_for_timeout(200)
        assert not page.locator("#whole").is_visible()  # Chromium shows no TIFF
        choose(page, photo(1))
        page.locator("#whole").wait_for()
        assert not page.locator("#box").is_visible()
        assert "whole image" in str(page.locator("#cut").text_content())
        context.close()
    assert heard.errors == []
