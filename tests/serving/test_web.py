"""The server: what it answers, what it refuses, and what it never does whatever a client sends."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from bagoftricks.data import decoding
from bagoftricks.data.input import InputConfig
from bagoftricks.errors import RunError
from bagoftricks.models.folder import save_model
from bagoftricks.models.resnet import ResNet
from bagoftricks.serving.classifier import Classifier, load_model
from bagoftricks.serving.guard import HEADERS
from bagoftricks.serving.uploads import OVERHEAD, Limits
from bagoftricks.serving.web import FILES, make_app
from tests.fuzz.samples import valid_files

CLASSES = ("cat", "dog", "<img src=x onerror=alert(1)>", "Ωmega 猫", "a\nb", "owl", "lone \udcff")
URL = "http://127.0.0.1:8000"
JPEG = {"content-type": "image/jpeg"}
SMALL = Limits(file_bytes=10_000, files=3, requests=2)


def make_model(folder: Path, size: int = 64, crop: str = "center", classes: tuple[str, ...] = CLASSES[:-1]) -> Path:
    """Saves a small network that was not trained, but tells images apart."""
    network = ResNet("A", 10, num_classes=len(classes), seed=1).train()
    with torch.no_grad():
        network(torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(0)))
        network.fc.weight *= 20
    inputs = InputConfig(size=size, crop=crop)  # type: ignore[arg-type]
    save_model(network.eval(), classes, inputs, folder, temperature=1.5, licence="CC-BY-4.0")
    return folder


def photo(seed: int = 0, size: tuple[int, int] = (120, 90), kind: str = "JPEG") -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = make_model(tmp_path_factory.mktemp("models") / "pets", classes=(*CLASSES[:-1], "no UTF-8"))
    classifier = load_model(folder, device="cpu", precision="fp32")
    classifier.classes = CLASSES  # a folder written elsewhere may hold such names
    return classifier


@pytest.fixture(scope="module")
def client(classifier: Classifier) -> TestClient:
    return TestClient(make_app(classifier), base_url=URL)


@pytest.fixture(scope="module")
def small(classifier: Classifier) -> TestClient:
    """A server with narrow limits."""
    return TestClient(make_app(classifier, limits=SMALL), base_url=URL)


def error_of(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    text = str(answer.json()["error"])
    assert "\n" not in text
    assert 5 < len(text) < 300
    return text


# what it answers


def same(said: dict[str, Any], classifier: Classifier, content: bytes, tmp_path: Path, top_k: int = 5) -> None:
    (tmp_path / "image").write_bytes(content)
    (wanted,) = classifier.predict(tmp_path / "image", top_k=top_k)
    predictions = said["predictions"]
    assert [one["label"] for one in predictions] == list(wanted.labels)
    assert [one["index"] for one in predictions] == list(wanted.indices)
    assert [one["prob"] for one in predictions] == pytest.approx(wanted.probs, abs=1e-6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_says_what_the_classifier_says(client: TestClient, classifier: Classifier, tmp_path: Path, kind: str) -> None:
    content = photo(3, kind=kind)
    for answer in (
        client.post("/api/predict", files={"file": content}),
        client.post("/api/predict", content=content, headers=JPEG),
        client.post("/api/predict", content=content, headers={"content-type": "application/octet-stream"}),
    ):
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert set(said) == {"model", "predictions", "width", "height"}
        assert (said["model"], said["width"], said["height"]) == ("pets", 120, 90)
        assert len(said["predictions"]) == 5
        same(said, classifier, content, tmp_path)


def test_large_and_turned_images_are_decoded_as_for_training(
    client: TestClient, classifier: Classifier, tmp_path: Path
) -> None:
    large, exif = photo(4, (1500, 1000)), Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.open(io.BytesIO(photo(5))).save(out, "JPEG", exif=exif)
    for content, size in ((large, (1500, 1000)), (out.getvalue(), (90, 120))):
        said = client.post("/api/predict", content=content, headers=JPEG).json()
        assert (said["width"], said["height"]) == size
        same(said, classifier, content, tmp_path)


def test_every_kind_of_file_is_answered(client: TestClient) -> None:
    assert len(valid_files()) > 10
    for name, content in valid_files().items():
        answer = client.post("/api/predict", content=content, headers=JPEG)
        assert answer.status_code == (422 if name == "tiff float" else 200), f"{name}: {answer.text}"


def test_an_image_for_which_memory_is_short_may_come_again(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding, "_decoded", decoded)
    assert "memory is short" in error_of(client.post("/api/predict", content=photo(), headers=JPEG), 503)


def test_several_images_in_order(client: TestClient, classifier: Classifier, tmp_path: Path) -> None:
    contents = [photo(seed) for seed in range(4)]
    said = client.post("/api/predict?top_k=2", files=[("file", content) for content in contents]).json()
    assert set(said) == {"model", "images"}
    assert len(said["images"]) == 4
    for one, content in zip(said["images"], contents, strict=True):
        same(one, classifier, content, tmp_path, top_k=2)
    assert len({one["predictions"][0]["prob"] for one in said["images"]}) == 4


def test_heat_maps(client: TestClient) -> None:
    plain = client.post("/api/predict", content=photo(), headers=JPEG).json()
    one = client.post("/api/predict?heatmap=1", content=photo(), headers=JPEG).json()
    every = client.post("/api/predict?heatmap=all", content=photo(), headers=JPEG).json()
    assert set(one) == {*plain, "heatmap", "view"}
    assert one["predictions"] == plain["predictions"]
    assert every["heatmap"] == every["predictions"][0]["heatmap"] == one["heatmap"]
    maps = [prediction["heatmap"] for prediction in every["predictions"] if prediction["heatmap"]]
    assert len(set(maps)) == len(maps) >= 2
    for uri in (every["view"], *maps):
        kind, _, data = uri.partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 64)


def test_nothing_that_speaks_for_a_class_is_no_map(tmp_path: Path) -> None:
    model = load_model(make_model(tmp_path), device="cpu", precision="fp32")
    with torch.no_grad():
        model.network.fc.weight[:] = -1.0  # type: ignore[union-attr,operator,index]
    said = TestClient(make_app(model), base_url=URL).post("/api/predict?heatmap=all", files={"file": photo()}).json()
    assert said["heatmap"] is None
    assert {prediction["heatmap"] for prediction in said["predictions"]} == {None}


def test_top_k_is_at_most_all(client: TestClient) -> None:
    for asked, given in ((1, 1), (7, 7), (999_999_999, 7), ("003", 3)):
        said = client.post(f"/api/predict?top_k={asked}", content=photo(), headers=JPEG).json()
        assert len(said["predictions"]) == given
    assert sum(
        p["prob"] for p in client.post("/api/predict?top_k=7", content=photo(), headers=JPEG).json()["predictions"]
    ) == pytest.approx(1, abs=1e-5)


def test_the_model_is_described(client: TestClient) -> None:
    said = client.get("/api/model").json()
    assert said["model"] == "pets"
    assert said["architecture"] == "ResNet-10-A"
    assert said["classes"] == list(CLASSES)  # the one that is no UTF-8 too
    assert (said["input"]["size"], said["input"]["crop"], said["input"]["crop_pct"]) == (64, "center", 0.875)
    assert (said["temperature"], said["calibrated"], said["licence"]) == (1.5, True, "CC-BY-4.0")
    assert said["limits"] == {"file_bytes": 20 * 2**20, "files": 16}
    assert "/" not in json.dumps(said["model"])  # the folder's name, not where it lies


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.head("/healthz").status_code == 200


# the page and its headers


def test_the_page_is_whole_and_ours(client: TestClient) -> None:
    page = client.get("/").text
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert client.get("/page.css").headers["content-type"].startswith("text/css")
    assert client.get("/page.js").headers["content-type"].startswith("text/javascript")
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
    assert {"page.css", "page.js"} <= set(loaded)
    ours = {path.strip("/") for path in FILES}
    assert all(name in ours or name.startswith(("#", "data:", "https://arxiv.org/abs/")) for name in loaded)
    assert not re.search(r"<style|<script>|\son\w+=|style=", page)
    script, style = client.get("/page.js").text, client.get("/page.css").text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?://", script)
    assert not re.search(r"url\(|@import", style)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in FILES),
        ("GET", "/api/model"),
        ("GET", "/nothing"),
        ("POST", "/"),
        ("POST", "/api/predict"),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "evil.example"])
def test_every_answer_has_the_headers(client: TestClient, method: str, path: str, host: str) -> None:
    headers = client.request(method, path, headers={"host": host}).headers
    assert {name: headers[name] for name in HEADERS} == HEADERS
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "access-control-allow-origin" not in headers


def test_openapi_tells_the_truth(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    for path, methods in described["paths"].items():
        for method in methods:
            assert client.request(method, path).status_code in (200, 415)
    predict = described["paths"]["/api/predict"]["post"]
    assert {one["name"] for one in predict["parameters"]} == {"top_k", "heatmap"}
    assert set(predict["responses"]) == {"200", "400", "403", "408", "413", "415", "422", "503"}
    shown = described["components"]["schemas"]["Shown"]["properties"]
    said = client.post("/api/predict?heatmap=all", files={"file": photo()}).json()
    assert set(said) == {"model", *shown}
    assert set(said["predictions"][0]) == set(shown["predictions"]["items"]["properties"])
    for reference in re.findall(r'"\$ref": "#/components/(\w+)/(\w+)"', client.get("/openapi.json").text):
        assert reference[1] in described["components"][reference[0]]


# what it refuses


def test_unknown_routes_and_methods(client: TestClient) -> None:
    for path in (
        "/nothing",
        "/api",
        "/api/model/",
        "/page.html",
        "/../pyproject.toml",
        "/%2e%2e/config.json",
        "/page/page.css",
    ):
        error_of(client.get(path), 404)
    error_of(client.get("/api/predict"), 405)
    assert client.get("/api/predict").headers["allow"] == "POST"
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        error_of(client.request(method, "/api/model"), 405)


@pytest.mark.parametrize(
    "query",
    [
        "top_k=0",
        "top_k=-1",
        "top_k=",
        "top_k=five",
        "top_k=1.5",
        "top_k=1e3",
        "top_k=%D9%A3",
        "top_k=9999999999",
        "top_k=1_0",
        "top_k=+5%00",
        "heatmap=2",
        "heatmap=yes",
        "heatmap=",
        "heatmap=all&top_k=11",
        "topk=3",
        "%00=1",
        "x" * 5000 + "=1",
        "top_k=" + "0" * 5000 + "5",
    ],
)
def test_wrong_parameters(client: TestClient, query: str) -> None:
    text = error_of(client.post(f"/api/predict?{query}", content=photo(), headers=JPEG), 422)
    assert "top_k" in text or "heatmap" in text  # says what is right


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=b",
        "imagejpeg",
        ";",
        "\xff",
        "multipart",
    ],
)
def test_content_types(client: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind.encode("latin-1")}
    assert "field 'file'" in error_of(client.post("/api/predict", content=photo(), headers=headers), 415)  # type: ignore[arg-type]


def test_compressed_bodies(client: TestClient) -> None:
    answer = client.post(
        "/api/predict", content=zlib.compress(photo()), headers={**JPEG, "content-encoding": "deflate"}
    )
    error_of(answer, 415)


def part(content: bytes = b"", head: bytes = b'Content-Disposition: form-data; name="file"; filename="a.jpg"') -> bytes:
    return b"--B\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def form(client: TestClient, body: bytes, kind: str = "multipart/form-data; boundary=B") -> Any:
    return client.post("/api/predict", content=body, headers={"content-type": kind})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        part(photo()),
        part(photo())[:-7],
        b"--B",
        b"--B\r\n\r\n",
        b"--B\r\nNo colon\r\n\r\nx\r\n--B--\r\n",
        part(photo(), b"Content-Type: image/jpeg") + b"--B--\r\n",
        part(photo(), b"Content-Disposition: form-data") + b"--B--\r\n",
        part(photo(), b'Content-Disposition: attachment; name="file"') + b"--B--\r\n",
        b"--C\r\n" + part(photo())[5:] + b"--C--\r\n",
        part(photo(), b"X: " + b"y" * 70_000) + b"--B--\r\n",
        part(photo()) + b"--B--\r\n" + b"z" * 70_000,
        part(photo(), b"\r\n".join(b"X-%d: 1" % i for i in range(5000))) + b"--B--\r\n",
        b"\r\n" * 40_000,
    ],
)
def test_malformed_multipart(client: TestClient, body: bytes) -> None:
    assert "malformed" in error_of(form(client, body), 400)


@pytest.mark.parametrize(
    "kind", ["", "; boundary=", "; boundary", "; boundary=" + "b" * 5000, "; boundary*=utf-8''B", ";;;=;"]
)
def test_boundaries(client: TestClient, kind: str) -> None:
    error_of(form(client, part(photo()) + b"--B--\r\n", "multipart/form-data" + kind), 400)


def test_fields(client: TestClient) -> None:
    for head in (
        b'form-data; name="image"',
        b'form-data; name=""',
        b'form-data; name="file\0"',
        b"form-data; name=\xff",
    ):
        answer = form(client, part(photo(), b"Content-Disposition: " + head) + b"--B--\r\n")
        assert "'file'" in error_of(answer, 422)
    assert "'file'" in error_of(form(client, b"--B--\r\n"), 422)  # whole, and empty
    assert form(client, part(photo(), b"content-DISPOSITION: form-data; name=file") + b"--B--\r\n").status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "/etc/passwd",
        "a\\..\\b.jpg",
        "<script>alert(1)</script>.jpg",
        "a" * 4000,
        "%00.jpg",
        "a%0d%0aX: y",
        "ünï.jpg",
        ".",
        "",
        "con",
        "a.heic",
        "a.svg",
        "$(touch x).jpg",
        "\u202egpj.exe",
    ],
)
def test_hostile_file_names_are_not_used(client: TestClient, name: str, tmp_path: Path) -> None:
    head = 'Content-Disposition: form-data; name="file"; filename="{}"'.format(name.replace("\\", "\\\\"))
    answer = form(client, part(photo(), head.encode()) + b"--B--\r\n")
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"model", "predictions", "width", "height"}


def png(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, all black: small, whatever its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deflate, row = zlib.compressobj(9), bytes(1 + -(-width // 8))
    data = b"".join(deflate.compress(row * 1000) for _ in range(height // 1000)) + deflate.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (b"Dear server, this is no image.", "no image of a kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "web page or XML"),
        (b"PK\3\4" + bytes(200), "no image of a kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no image of a kind"),
        (b"\xff\xd8\xff" + bytes(500), "truncated"),
        (photo()[:-400], "truncated"),
        (png(40_000, 20_000), "too many pixels"),
        (png(1000, 1000)[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + png(1000, 1000)[24:], ""),
    ],
    ids=["empty", "text", "svg", "zip", "postscript", "zeros", "truncated", "bomb", "huge header"],
)
def test_what_is_no_image(client: TestClient, content: bytes, says: str) -> None:
    assert len(content) < 200_000
    assert says in error_of(client.post("/api/predict", content=content, headers=JPEG), 422)
    second = client.post("/api/predict", files=[("file", photo()), ("file", content), ("file", photo())])
    assert error_of(second, 422).startswith("image 2: ")


# limits


def test_sizes(small: TestClient) -> None:
    most = SMALL.file_bytes
    fitting = photo().ljust(most, b"\0")
    assert small.post("/api/predict", content=fitting, headers=JPEG).status_code == 200
    assert small.post("/api/predict", files=[("file", fitting)] * 3).status_code == 200
    for answer in (
        small.post("/api/predict", content=fitting + b"\0", headers=JPEG),
        small.post("/api/predict", files={"file": fitting + b"\0"}),
        small.post("/api/predict", content=b"", headers={**JPEG, "content-length": "9" * 5000}),
    ):
        assert "at most 0.00953674 MiB" in error_of(answer, 413)
        assert answer.headers["connection"] == "close"
    assert "at most 3 a request" in error_of(small.post("/api/predict", files=[("file", photo())] * 4), 413)


class Exchange:
    """A request to the application itself, whose body comes as the test wants it."""

    def __init__(self, chunks: AsyncIterator[bytes], kind: str = "image/jpeg", path: str = "/api/predict") -> None:
        self.chunks, self.taken, self.status, self.body = chunks, 0, 0, b""
        headers = [(b"host", b"127.0.0.1"), (b"content-type", kind.encode()), (b"transfer-encoding", b"chunked")]
        self.scope = {
            "type": "http",
            "method": "POST" if path == "/api/predict" else "GET",
            "path": path,
            "query_string": b"",
            "headers": headers,
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "http_version": "1.1",
            "asgi": {"version": "3.0"},
        }

    async def receive(self) -> dict[str, Any]:
        try:
            chunk = await anext(self.chunks)
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}
        if chunk == b"gone":
            return {"type": "http.disconnect"}
        self.taken += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")

    async def through(self, app: Any) -> Exchange:
        await app(self.scope, self.receive, self.send)
        return self


async def endless(first: bytes = b"") -> AsyncIterator[bytes]:
    yield first
    while True:
        yield b"x" * 1000


@pytest.mark.parametrize(
    ("first", "kind", "most", "status"),
    [
        (b"", "image/jpeg", SMALL.file_bytes, 413),
        (part()[:-2], "multipart/form-data; boundary=B", SMALL.file_bytes, 413),
        (b"\r\n", "multipart/form-data; boundary=B", OVERHEAD, 400),
        (b"--B\r\nX: ", "multipart/form-data; boundary=B", OVERHEAD, 400),
        (part(photo()) + b"--B--\r\n", "multipart/form-data; boundary=B", OVERHEAD, 400),
        (b"", "text/plain", 0, 415),
    ],
)
def test_an_endless_body_is_read_to_the_limit_and_no_further(
    classifier: Classifier, first: bytes, kind: str, most: int, status: int
) -> None:
    asked = asyncio.run(Exchange(endless(first), kind).through(make_app(classifier, limits=SMALL)))
    assert asked.status == status
    assert asked.taken <= len(first) + most + 1000


async def slow(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    await asyncio.sleep(30)


async def trickle() -> AsyncIterator[bytes]:
    while True:
        yield b"\xff"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("chunks", [slow, lambda: slow(photo()[:100]), trickle])
def test_a_slow_client_is_told_so(classifier: Classifier, chunks: Callable[[], AsyncIterator[bytes]]) -> None:
    begun = time.monotonic()
    asked = asyncio.run(Exchange(chunks()).through(make_app(classifier, limits=replace(SMALL, seconds=0.4))))
    assert asked.status == 408
    assert time.monotonic() - begun < 10


async def whole(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 700):
        yield content[start : start + 700]


def test_a_client_that_goes_leaves_nothing(classifier: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    async def going() -> AsyncIterator[bytes]:
        yield photo()[:100]
        yield b"gone"

    async def run() -> None:
        app = make_app(classifier, limits=SMALL)
        for _ in range(SMALL.requests + 1):  # else a place would stay taken
            await Exchange(going()).through(app)
        assert (await Exchange(whole(photo())).through(app)).status == 200

    asyncio.run(run())
    assert caplog.records == []


def test_more_uploads_than_places_are_told_to_come_again(classifier: Classifier) -> None:
    async def run() -> None:
        app, gates = make_app(classifier, limits=Limits(requests=2)), [asyncio.Event(), asyncio.Event()]

        async def gated(gate: asyncio.Event) -> AsyncIterator[bytes]:
            yield photo()[:500]
            await gate.wait()
            yield photo()[500:]

        waiting = [asyncio.create_task(Exchange(gated(gate)).through(app)) for gate in gates]
        await asyncio.sleep(0.05)
        third = await Exchange(whole(photo())).through(app)
        assert third.status == 503
        assert third.taken == 0
        for gate in gates:
            gate.set()
        assert [(await one).status for one in waiting] == [200, 200]
        assert (await Exchange(whole(photo())).through(app)).status == 200

    asyncio.run(run())


def test_one_image_at_a_time_and_the_rest_goes_on(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, most, go, predict = 0, 0, threading.Event(), Classifier.predict

    def counted(self: Classifier, *arguments: Any, **named: Any) -> Any:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        assert go.wait(30)
        try:
            return predict(self, *arguments, **named)
        finally:
            at_work -= 1

    monkeypatch.setattr(Classifier, "predict", counted)

    async def run() -> None:
        app = make_app(classifier)
        several = [asyncio.create_task(Exchange(whole(photo(seed))).through(app)) for seed in range(5)]
        while not at_work:
            await asyncio.sleep(0.01)
        assert (await Exchange(whole(b""), path="/healthz").through(app)).status == 200  # while the network computes
        go.set()
        answers: list[Awaitable[Exchange]] = list(several)
        assert [(await one).status for one in answers] == [200] * 5

    asyncio.run(run())
    assert most == 1


def test_faults_of_the_server(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(error: Exception) -> None:
        def predict(self: Classifier, *arguments: Any, **named: Any) -> Any:
            raise error

        monkeypatch.setattr(Classifier, "predict", predict)

    client = TestClient(make_app(classifier), base_url=URL, raise_server_exceptions=False)
    failing(RunError("model /home/me: out of memory"))
    answer = client.post("/api/predict", files={"file": photo()})
    assert "/home/me" not in error_of(answer, 503)
    assert [record.getMessage() for record in caplog.records] == ["model /home/me: out of memory"]
    assert answer.headers["retry-after"] == "1"
    failing(KeyError("secret"))
    answer = client.post("/api/predict", files={"file": photo()})
    assert "secret" not in error_of(answer, 500)
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


# who may ask


@pytest.mark.parametrize(
    ("host", "name", "status"),
    [
        *(
            ("127.0.0.1", name, 200)
            for name in ("127.0.0.1", "127.0.0.1:8000", "localhost:1", "LOCALHOST", "[::1]:8000")
        ),
        *(
            ("127.0.0.1", name, 400)
            for name in (
                "evil.example",
                "127.0.0.1.evil.example",
                "192.168.1.7",
                "",
                "a b",
                "[::1",
                "x:y",
                "localhost:99999999",
                "evil.example:8000@127.0.0.1",
                "localhost/..",
            )
        ),
        ("192.168.1.7", "192.168.1.7:80", 200),
        ("192.168.1.7", "192.168.1.8", 400),
        ("box.lan", "Box.lan:80", 200),
        ("box.lan", "other.lan", 400),
        ("::1", "[::1]", 200),
        ("fe80::1", "[fe80::1]:80", 200),
        ("0.0.0.0", "192.168.1.7:8000", 200),
        ("0.0.0.0", "evil.example", 400),
        ("::", "[fe80::1]:8000", 200),
        ("0.0.0.0", socket.gethostname(), 200),
        ("127.0.0.1", "0x7f.1", 400),
        ("0.0.0.0", "1.2.3.4.evil.example", 400),
    ],
)
def test_hosts(classifier: Classifier, host: str, name: str, status: int) -> None:
    """A name that somebody else made to point here is not ours."""
    client = TestClient(make_app(classifier, host), base_url=URL)
    answer = client.get("/healthz", headers={"host": name})
    assert answer.status_code == status, answer.text
    assert status == 200 or "Host" in error_of(answer, 400)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        (URL, 200),
        ("http://localhost:8000", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://127.0.0.1:9000", 403),
        ("http://127.0.0.1", 403),
        ("http://[", 403),
        ("http://127.0.0.1:8000.evil.example", 403),
    ],
)
def test_origins(client: TestClient, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"origin": origin}
    answer = client.post("/api/predict", files={"file": photo()}, headers=headers)
    assert answer.status_code == status, answer.text
    assert client.get("/api/model", headers=headers).status_code == 200  # which a browser keeps from the other page
