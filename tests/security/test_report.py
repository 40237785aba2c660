"""A report of somebody else's study folder, in a real browser: every name in it is text, and nothing is asked for."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bagoftricks.files import write_json
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.structure import describe
from bagoftricks.reports.report import collect, render
from bagoftricks.reports.results import read_results
from tests.reports.made_up import FACTORS, make_many
from tests.reports.test_browser import Heard, chromium, cut_off, open_all, visit  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAYLOADS = (
    "<script>window.pwned = 1; alert(1)</script>",
    '"><img src=x onerror="window.pwned = 1">',
    "'><svg onload=window.pwned=1>",
    "</style><script>window.pwned = 1</script>",
    "</title></textarea></pre></table><iframe src=javascript:window.pwned=1></iframe>",
    "javascript:window.pwned=1",
    "]]><a href='javascript:window.pwned=1' onmouseover=window.pwned=1>x</a>",
    "{{ 7 * 7 }}{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "datum.x; window.pwned = 1 //",
    "url(#a);background:url(http://127.0.0.1:1/css)",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:1/'><base href=http://127.0.0.1:1/>",
)


def evil(value: Any, count: list[int]) -> Any:
    """Returns a value of JSON with a payload after each of its texts."""
    if isinstance(value, str):
        count[0] += 1
        return f"{value} {PAYLOADS[count[0] % len(PAYLOADS)]}"
    if isinstance(value, dict):
        return {key: evil(inner, count) for key, inner in value.items()}
    return [evil(inner, count) for inner in value] if isinstance(value, list) else value


def poison(root: Path) -> int:
    """Writes payloads wherever a text may stand that decides nothing; returns how many."""
    count = [0]
    plan = json.loads((root / "plan.json").read_text())
    names = {cell["name"]: evil(cell["name"], count) for cell in plan["cells"]}
    for cell in plan["cells"]:
        cell["name"] = names[cell["name"]]
    for run in plan["runs"]:
        run["cell"] = names[run["cell"]]
    study = plan["study"]
    for key in ("name", "title", "about"):
        study[key] = evil(study.get(key) or key, count)
    study["assumptions"] = evil([{"what": "w", "assumed": "a", "why": "y"}] * 4, count)
    study["tables"] = [
        {**evil({"title": "t", "source": "s"}, count), "rows": [{"cell": n, "top1": 0.5} for n in names.values()]}
    ]
    study["changes"] = evil({"init": "x", "optimizer.name": "y"}, count)
    plan["data"] |= evil({"name": "d", "class_names": plan["data"]["class_names"], "fingerprint": "f"}, count)
    plan["hardware"] |= evil({"device": "cpu", "precision": "fp32"}, count)
    for field in ("optimizer.name", "init"):
        study["recipe"][field] = evil(study["recipe"][field], count)
    write_json(root / "plan.json", plan)
    for i, path in enumerate(sorted((root / "runs").glob("*/result.json"))):
        result = json.loads(path.read_text())
        weights = {"warning": f"w{i % 3}", "source": "s", "sha256": "h"}
        write_json(path, {**result, "weights": evil(weights, count)})
        write_json(path.with_name("environment.json"), evil({"python": "3", "cpu": "c", PAYLOADS[i % 9]: "x"}, count))
    write_json(root / "data" / "check.json", evil({"name": "n", "findings": ["f"] * 12}, count) | {
        "counts": {f"{i} {text}": 5 for i, text in enumerate(PAYLOADS)}})  # fmt: skip
    one = {"name": "n", "true": "t", "guessed": "g"}
    pictures = [
        {**evil(one, count), "jpeg": text, "probability": 0.9, "wrong": 1, "of": 1} for text in (*PAYLOADS, "/9j/")
    ]
    write_json(
        root / "data" / "mistakes.json",
        {"cell": evil("c", count), "runs": 1, "images": 9, "wrong": 9, "mistakes": pictures},
    )
    (root / "data" / "samples.jpg").write_text("<svg onload=window.pwned=1><script>window.pwned=1</script></svg>")
    layers: Any = describe(ModelConfig("D", 18), 3, 32)
    layers |= evil({"name": "n", "tweaks": "t"}, count)
    for layer in layers["stem"]["layers"]:
        layer["name"] = evil(layer["name"], count)
    write_json(root / "models" / "a.json", layers)
    write_json(
        root / "test.json",
        {"looks": [evil({"run": "r", "cell": "c", "when": "w"}, count) | {"images": 1, "top1": 0.5}]},
    )
    return count[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    factors = {"schedule.decay": FACTORS["schedule.decay"]}
    root = make_many(tmp_path_factory.mktemp("study"), factors, seeds=3, epochs=2, lost="schedule.decay=cosine")
    # a run of the second cell counts, the others failed with a payload in their error
    shutil.copytree(root / "runs" / "0000-0", root / "runs" / "0001-0")
    assert poison(root) > 100
    for path in (root / "failures").iterdir():
        write_json(path, {"run": "r", "error": " ".join(PAYLOADS)})
    results = read_results(root)
    page = root / "report.html"
    page.write_text(render(results, collect(results)), encoding="utf-8")
    return page


def test_every_name_is_text(chromium: Browser, page: Path) -> None:  # noqa: F811
    """Nothing runs, nothing is said in a dialog, nothing is asked for, and the policy had nothing to stop."""
    heard, context = Heard(), chromium.new_context()
    shown = visit(context, page, heard)
    open_all(shown)
    shown.mouse.move(300, 300)
    shown.wait_for_timeout(300)
    assert shown.evaluate("window.pwned") is None
    assert heard.errors == []
    assert [url for url in heard.requests if not url.startswith(("file:", "data:image/jpeg"))] == []
    assert shown.url == page.as_uri()
    assert shown.locator("script").count() == 1
    assert (
        shown.locator(
            "iframe, object, embed, form, base, link, a[href^='javascript'], meta[http-equiv=refresh]"
        ).count()
        == 0
    )
    handlers = (
        "[...document.querySelectorAll('*')].filter((e) => [...e.attributes].some((a) => a.name.startsWith('on')))"
    )
    assert shown.evaluate(f"{handlers}.length") == 0
    text = str(shown.locator("body").text_content())
    assert all(payload in text for payload in PAYLOADS[:8])
    assert "49" not in {word.strip("{}") for word in text.split()}
    context.close()


def test_pictures_are_pictures(chromium: Browser, page: Path) -> None:  # noqa: F811
    """`samples.jpg` that is none is left out, and so are pictures of mistakes that are no base64."""
    context = cut_off(chromium)
    shown = visit(context, page)
    addresses = shown.evaluate("[...document.images].map((image) => image.getAttribute('src'))")
    assert addresses == ["data:image/jpeg;base64,/9j/"]
    context.close()


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server that notes who asks."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


INJECTED = """
<script src="URL/script"></script><script>window.pwned = 1; fetch('URL/fetch')</script>
<img src="URL/img" onerror="window.pwned = 1"><iframe src="URL/frame"></iframe><object data="URL/object"></object>
<embed src="URL/embed"><link rel="stylesheet" href="URL/css"><link rel="prefetch" href="URL/prefetch">
<style>@import "URL/import"; body { background: url(URL/background) }
@font-face { font-family: f; src: url(URL/font) } main { font-family: f }</style>
<video src="URL/video" autoplay></video><audio src="URL/audio" autoplay></audio>
<svg><image href="URL/svg" width="1" height="1"/><use href="URL/use#a"/></svg>
<form action="URL/form" id="sent"><input name="a"></form><base href="URL/base/"><img src="relative.png">
<a href="javascript:window.pwned = 1" id="clicked">x</a><iframe srcdoc="<script>parent.pwned = 1</script>"></iframe>
<meta http-equiv="Content-Security-Policy" content="default-src * 'unsafe-inline'">
"""


@pytest.mark.parametrize("policy", [True, False])
def test_the_policy_forbids_the_network(
    chromium: Browser,  # noqa: F811
    page: Path,
    tmp_path: Path,
    listener: tuple[str, list[str]],
    policy: bool,
) -> None:
    """What slipped through the escaping would neither run nor reach a server; without the policy it would do both."""
    url, asked = listener
    text = page.read_text(encoding="utf-8")
    if not policy:
        text = text.replace('http-equiv="Content-Security-Policy"', 'name="none"')
    injected = INJECTED if policy else INJECTED.replace("<meta http-equiv", "<meta name")
    (tmp_path / "bad.html").write_text(
        text.replace("</main>", injected.replace("URL", url) + "</main>"), encoding="utf-8"
    )
    context = chromium.new_context()
    shown = visit(context, tmp_path / "bad.html")
    shown.evaluate("document.getElementById('clicked').click()")
    shown.wait_for_timeout(200)
    if policy:
        shown.evaluate("document.getElementById('sent').submit()")
        shown.wait_for_timeout(200)
        assert shown.evaluate("window.pwned") is None
        assert asked == []
    else:
        assert shown.evaluate("window.pwned") == 1
        assert {"/script", "/fetch", "/img", "/import"} <= set(asked)
    context.close()
