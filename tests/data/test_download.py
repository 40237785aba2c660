"""Downloads from a server that misbehaves in every way a test asks for, and archives that mean harm."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace, TracebackType

import numpy as np
import pytest

from bagoftricks.data import download as module
from bagoftricks.data.download import download
from bagoftricks.errors import RunError, UserError
from bagoftricks.files import locked

CONTENT = np.random.default_rng(0).integers(0, 256, 1_000_000, dtype=np.uint8).tobytes()
OTHER = CONTENT[::-1]
MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A web server in a thread: one file at every path, served as its attributes say."""

    content: bytes = CONTENT
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    ranges: bool = True
    heeds_if_range: bool = True
    tells_length: bool = True
    shift: int = 0
    """By how much a range starts too late."""
    breaks: list[int] = field(default_factory=list)
    """After how many bytes each of the next answers ends."""
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """What the next requests are answered with, instead of the file."""
    seen: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0

    def __enter__(self) -> Site:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            do_CONNECT = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/file"
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.seen.append({"": f"{handler.command} {handler.path}", **handler.headers})
        if self.statuses:
            status, headers = self.statuses.pop(0)
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            return
        start = self._start(handler)
        if start is not None and start >= len(self.content):
            handler.send_response(416)
            handler.end_headers()
            return
        body = self.content[start or 0 :]
        handler.send_response(200 if start is None else 206)
        if start is not None:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.tells_length:
            handler.send_header("Content-Length", str(len(body)))
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        body = body[: self.breaks.pop(0)] if self.breaks else body
        self.sent += len(body)  # before whoever reads it can look
        handler.wfile.write(body)

    def _start(self, handler: BaseHTTPRequestHandler) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range")
        changed = condition is not None and condition not in self.headers.values()
        return int(asked[1]) + self.shift if asked and self.ranges and not (self.heeds_if_range and changed) else None

    @property
    def asked(self) -> list[str | None]:
        """The Range of each request."""
        return [headers.get("Range") for headers in self.seen]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(module, "BACKOFF_S", 0.0)
    with Site() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.zip"


def holds(path: Path, content: bytes) -> bool:
    """Compared here, since pytest takes minutes to show how a million bytes differ."""
    return path.read_bytes() == content


def files_of(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


# ------------------------------------------------------------------------------------------------------ download


def test_whole(site: Site, target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    found = download(
        site.url, target, md5=MD5.upper(), sha256=SHA256, size=len(CONTENT), on_bytes=lambda *now: told.append(now)
    )
    assert found == target
    assert holds(target, CONTENT)
    assert files_of(target) == ["file.zip"]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert site.asked == [None]


def test_a_target_with_the_right_sum_is_kept(site: Site, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    download(site.url, target, md5=MD5)
    download(site.url, target, sha256=SHA256)
    download(site.url, target)  # it appeared whole, and nothing else is known
    assert site.seen == []


@pytest.mark.parametrize("expected", [{"md5": MD5}, {"sha256": SHA256}, {"size": len(CONTENT)}])
def test_a_target_with_another_sum_is_replaced(site: Site, target: Path, expected: dict[str, str]) -> None:
    target.parent.mkdir()
    target.write_bytes(OTHER[:-1])
    download(site.url, target, **expected)
    assert holds(target, CONTENT)


def test_resumes_within_a_call(site: Site, target: Path) -> None:
    site.breaks = [500_000, 200_000]
    download(site.url, target, md5=MD5)
    assert holds(target, CONTENT)
    assert site.asked == [None, "bytes=500000-", "bytes=700000-"]
    assert [headers.get("If-Range") for headers in site.seen] == [None, '"one"', '"one"']
    assert site.sent == len(CONTENT)
    assert files_of(target) == ["file.zip"]


def test_a_later_call_resumes(site: Site, target: Path) -> None:
    site.breaks = [500_000]
    with pytest.raises(RunError, match=r"ended after 500,000 of 1,000,000 bytes.*go on after the 500,000 bytes in"):
        download(site.url, target, md5=MD5, attempts=1)
    assert files_of(target) == ["file.zip.part", "file.zip.part.json"]
    told = []
    download(site.url, target, md5=MD5, on_bytes=lambda done, _: told.append(done))
    assert holds(target, CONTENT)
    assert site.asked == [None, "bytes=500000-"]
    assert site.sent == len(CONTENT)
    assert told[0] > 500_000


def test_an_interrupted_call_leaves_what_it_has(site: Site, target: Path) -> None:
    def interrupt(done: int, _: int | None) -> None:
        if done >= 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(site.url, target, on_bytes=interrupt)
    kept = target.with_name("file.zip.part").stat().st_size
    assert 300_000 <= kept < len(CONTENT)
    download(site.url, target)
    assert holds(target, CONTENT)
    assert site.asked == [None, f"bytes={kept}-"]


def test_a_complete_part_needs_no_network(site: Site, target: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(site.url, target, md5=MD5, on_bytes=interrupt)
    download(site.url, target, md5=MD5)
    assert holds(target, CONTENT)
    assert len(site.seen) == 1


def test_a_server_without_ranges_starts_anew(site: Site, target: Path) -> None:
    site.ranges = False
    site.breaks = [500_000]
    download(site.url, target)
    assert holds(target, CONTENT)
    assert site.asked == [None, "bytes=500000-"]
    assert site.sent == 1_500_000


def test_another_range_than_asked_for_starts_anew(site: Site, target: Path) -> None:
    site.breaks, site.shift = [500_000], 1
    download(site.url, target)
    assert holds(target, CONTENT)
    assert site.asked == [None, "bytes=500000-", None]


def test_a_refused_range_starts_anew(site: Site, target: Path) -> None:
    site.breaks = [500_000]
    with pytest.raises(RunError):
        download(site.url, target, attempts=1)
    site.content = CONTENT[:1000]  # shorter than the part, and called the same
    download(site.url, target, attempts=1)
    assert holds(target, CONTENT[:1000])
    assert site.asked == [None, "bytes=500000-", None]


@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
def test_a_changed_file_is_not_glued_to_an_old_part(site: Site, target: Path, name: str, heeds: bool) -> None:
    site.headers = {name: "Mon, 05 Jan 2026 10:00:00 GMT"}
    site.breaks = [500_000]
    with pytest.raises(RunError):
        download(site.url, target, attempts=1)
    site.content, site.headers, site.heeds_if_range = OTHER, {name: "Tue, 06 Jan 2026 10:00:00 GMT"}, heeds
    download(site.url, target)
    assert holds(target, OTHER)
    assert site.seen[1]["If-Range"] == "Mon, 05 Jan 2026 10:00:00 GMT"


def test_a_part_of_unknown_version_is_resumed_only_under_a_checksum(site: Site, target: Path) -> None:
    site.headers = {"ETag": 'W/"weak"'}
    for expected, asked in (({}, None), ({"md5": MD5}, "bytes=500000-")):
        site.breaks = [500_000]
        download(site.url, target, **expected)
        assert site.asked[-1] == asked
        assert "If-Range" not in site.seen[-1]
        target.unlink()


def test_a_part_of_another_address_is_not_used(site: Site, target: Path) -> None:
    site.breaks = [500_000]
    with pytest.raises(RunError):
        download(site.url, target, attempts=1)
    download(f"{site.url}2", target)
    assert site.asked == [None, None]


@pytest.mark.parametrize("text", ["", "[]", '{"url": 1}', "null"])
def test_a_damaged_side_file_starts_anew(site: Site, target: Path, text: str) -> None:
    target.parent.mkdir()
    target.with_name("file.zip.part").write_bytes(b"x" * 1000)
    target.with_name("file.zip.part.json").write_text(text)
    download(site.url, target)
    assert holds(target, CONTENT)
    assert site.asked == [None]


def test_corrupt_content(site: Site, target: Path) -> None:
    site.content = OTHER
    found = hashlib.md5(OTHER).hexdigest()
    with pytest.raises(RunError, match=f"file.zip: md5 is {found}, expected {MD5}; ") as caught:
        download(site.url, target, md5=MD5)
    assert "\n" not in str(caught.value)
    assert len(site.seen) == 1
    assert files_of(target) == []


def test_a_corrupt_part_is_fetched_anew_once(site: Site, target: Path) -> None:
    site.breaks = [500_000]
    with pytest.raises(RunError):
        download(site.url, target, md5=MD5, attempts=1)
    part = target.with_name("file.zip.part")
    part.write_bytes(b"x" + part.read_bytes()[1:])
    download(site.url, target, md5=MD5)
    assert holds(target, CONTENT)
    assert site.asked == [None, "bytes=500000-", None]


def test_still_corrupt_after_fetching_anew(site: Site, target: Path) -> None:
    site.content, site.breaks = OTHER, [500_000]
    with pytest.raises(RunError, match="md5 is"):
        download(site.url, target, md5=MD5)
    assert site.asked == [None, "bytes=500000-", None]
    assert files_of(target) == []


def test_wrong_size_is_noticed_before_downloading(site: Site, target: Path) -> None:
    with pytest.raises(RunError, match="offers 1,000,000 bytes instead of 137"):
        download(site.url, target, size=137)
    assert not target.exists()


def test_without_a_length(site: Site, target: Path) -> None:
    site.tells_length = False
    told = []
    download(site.url, target, sha256=SHA256, on_bytes=lambda *now: told.append(now))
    assert told[-1] == (len(CONTENT), None)
    target.unlink()
    site.breaks = [500_000]
    download(site.url, target, size=len(CONTENT))  # the size given tells that it broke off
    assert holds(target, CONTENT)
    target.unlink()
    with pytest.raises(RunError, match="bytes, expected 400,000"):
        download(site.url, target, size=400_000)


def test_not_found(site: Site, target: Path) -> None:
    site.statuses = [(404, {})]
    with pytest.raises(RunError, match="404 Not Found.*download it by hand and put it at .*file.zip$"):
        download(site.url, target)
    assert len(site.seen) == 1


def test_a_busy_server_is_asked_again(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module, "BACKOFF_S", 0.5)
    monkeypatch.setattr(module.time, "sleep", waits.append)
    site.statuses = [(500, {}), (503, {"Retry-After": "7"}), (429, {"Retry-After": "soon"})]
    download(site.url, target)
    assert holds(target, CONTENT)
    assert waits == [0.5, 7, 2.0]


def test_gives_up_after_the_attempts(site: Site, target: Path) -> None:
    site.statuses = [(500, {})] * 9
    with pytest.raises(RunError, match="500 Internal Server Error"):
        download(site.url, target, attempts=3)
    assert len(site.seen) == 3


@pytest.mark.parametrize("to", ["ftp://a.example/x", "file:///etc/passwd", "http://a.example/x", "https:///x"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_where_nothing_is_downloaded_from(site: Site, target: Path, to: str, status: int) -> None:
    site.statuses = [(status, {"Location": to})]
    with pytest.raises(UserError, match=f"redirects to '{to}': only https"):
        download(site.url, target)
    assert len(site.seen) == 1


def test_redirect_keeps_the_range(site: Site, target: Path) -> None:
    site.breaks = [500_000]
    with pytest.raises(RunError):
        download(site.url, target, attempts=1)
    site.statuses = [(302, {"Location": "/else where"})]
    download(site.url, target)
    assert site.seen[-1][""] == "GET /else%20where"
    assert site.asked[-1] == "bytes=500000-"
    assert holds(target, CONTENT)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/x", "ftp://a.example/x", "file:///etc/passwd", "data:,x", "x.zip", "https:///x", "",
        "http://127.0.0.1@a.example/x", "http://localhost.a.example/x",
    ],
)  # fmt: skip
def test_other_schemes(target: Path, url: str) -> None:
    with pytest.raises(UserError, match="only https"):
        download(url, target)
    assert not target.parent.exists()


@pytest.mark.parametrize("url", ["https://a.example:x/", "https://[a/", "https://a.example/\nb", "https://ä.example/"])
def test_no_address(target: Path, url: str) -> None:
    with pytest.raises(UserError, match="no valid address") as caught:
        download(url, target)
    assert "\n" not in str(caught.value)


def test_offline(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(RunError, match="name resolution.*check the connection.*by hand and put it at") as caught:
        download("https://a.example/x", target)
    assert "\n" not in str(caught.value)


def test_nobody_answers(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(RunError, match="refused"):
            download(f"http://127.0.0.1:{unused.getsockname()[1]}/x", target)


def test_a_silent_server(target: Path) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(RunError, match="timed out"):
            download(f"http://127.0.0.1:{mute.getsockname()[1]}/x", target, attempts=1, timeout_s=0.1)


def test_a_connection_that_stays_open(target: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        opened = []

        def answer() -> None:
            connection = listening.accept()[0]
            opened.append(connection)
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        download(url, target, attempts=1, timeout_s=2)
        opened[0].close()
    assert holds(target, b"one")


def test_proxies_of_the_environment(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("https_proxy", "http_proxy"):
        monkeypatch.setenv(name, site.url.removesuffix("/file"))
    site.statuses = [(403, {})]
    with pytest.raises(RunError, match="403"):
        download("https://a.example/x", target, attempts=1)
    assert site.seen[0][""] == "CONNECT a.example:443"
    download(site.url, target)
    assert site.seen[1][""] == "GET /file"  # this machine is asked itself


def test_full_disk(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=999_999))
    with pytest.raises(RunError, match=r"1.0 MB are still to come, 1.0 MB are free; make room"):
        download(site.url, target)
    assert files_of(target) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    download(site.url, target)


def test_only_what_is_missing_must_fit(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.breaks = [500_000]
    with pytest.raises(RunError):
        download(site.url, target, attempts=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=500_000))
    download(site.url, target)
    assert holds(target, CONTENT)


def test_a_second_process_waits_outside(site: Site, target: Path) -> None:
    with locked(target.with_name("file.zip.lock")) as taken:
        assert taken
        with pytest.raises(RunError, match="another process"):
            download(site.url, target)
    assert site.seen == []


def test_targets_that_cannot_be(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        download(site.url, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        download(site.url, tmp_path / "file" / "x")


def test_side_file_says_what_the_part_is_of(site: Site, target: Path) -> None:
    site.breaks = [10]
    with pytest.raises(RunError):
        download(site.url, target, attempts=1)
    assert json.loads(target.with_name("file.zip.part.json").read_text()) == {
        "url": site.url, "etag": '"one"', "last_modified": None, "total": 1_000_000,
    }  # fmt: skip
