"""Servers that mean harm, beside those of tests/data/test_download.py."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest

from bagoftricks.data import addresses, fetch
from bagoftricks.data import download as module
from bagoftricks.data.download import download
from bagoftricks.errors import RunError, UserError
from tests.data.test_download import CONTENT, SHA256, Site, files_of, site, target  # noqa: F401

SECRETS = ("pass-word", "sig-nature")


@contextmanager
def server(answer: Callable[[socket.socket], None], connections: int = 1) -> Iterator[str]:
    """Answers raw connections in a thread; yields the address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            for _ in range(connections):
                with listening.accept()[0] as connection:
                    connection.recv(65536)
                    try:
                        answer(connection)
                    except OSError:  # the client has had enough
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.0)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\n\r\n")
    while True:
        connection.sendall(bytes(65536))


def test_endless_data(target: Path) -> None:  # noqa: F811
    """A server that tells no length fills no disk."""
    told: list[int] = []
    with server(endless) as url, pytest.raises(RunError, match="sends more than 3,000,000 bytes"):
        download(url, target, max_bytes=3_000_000, on_bytes=lambda done, _: told.append(done))
    assert told[-1] <= 3_000_000 + module.BLOCK
    assert files_of(target) == []


def test_more_than_is_taken_is_not_begun(site: Site, target: Path) -> None:  # noqa: F811
    with pytest.raises(RunError, match="offers 1,000,000 bytes, more than 999,999"):
        download(site.url, target, max_bytes=999_999)
    assert files_of(target) == []
    download(site.url, target, max_bytes=1_000_000)


def test_what_is_fetched_is_bounded(
    target: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch, "MOST_BYTES", 1_000_000)
    with server(endless) as url, pytest.raises(RunError, match="sends more than 1,000,000 bytes"):
        fetch.fetch_caltech101(target.parent, url=url)


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def test_a_server_that_never_quite_stalls(target: Path) -> None:  # noqa: F811
    """A byte now and then keeps a time limit for silence from being reached."""
    started = time.monotonic()
    with server(drip) as url, pytest.raises(RunError, match="less than 100 bytes a second"):
        download(url, target, attempts=1, timeout_s=0.3)
    assert time.monotonic() - started < 10


def test_a_fast_server_may_take_long(target: Path) -> None:  # noqa: F811
    def steady(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(10):
            connection.sendall(bytes(10_000))
            time.sleep(0.1)

    with server(steady) as url:
        assert download(url, target, attempts=1, timeout_s=0.6).stat().st_size == 100_000


@pytest.mark.parametrize("stated", [10, 10**15])
def test_a_length_that_lies(target: Path, stated: int) -> None:  # noqa: F811
    def answer(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {stated}\r\n\r\n".encode() + CONTENT)

    message = "sha256 is" if stated == 10 else "more than 50,000,000,000"
    with server(answer) as url, pytest.raises(RunError, match=message):
        download(url, target, sha256=SHA256, attempts=1)
    assert files_of(target) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 \x1b[2J\x1b]0;pwned\x07Gone\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 299 \x1b[2J\r\nContent-Length: 0\r\n\r\n",
        b"\x1b[2J\x1b[31mnothing like HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\x1b[2J\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["reason", "odd reason", "no http", "chunk", "many headers", "long header"],
)
def test_answers_are_shown_and_not_obeyed(target: Path, answer: bytes) -> None:  # noqa: F811
    with server(lambda connection: connection.sendall(answer)) as url, pytest.raises(RunError) as caught:
        download(url, target, attempts=1)
    assert str(caught.value).isprintable()
    assert not target.exists()


def test_redirects_in_a_circle(site: Site, target: Path) -> None:  # noqa: F811
    site.statuses = [(302, {"Location": "/file"})] * 50
    with pytest.raises(RunError, match="302") as caught:
        download(site.url, target)
    assert "\n" not in str(caught.value)
    assert len(site.seen) < 50


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
@pytest.mark.parametrize("to", ["http://127.0.0.1:1/admin", "http://localhost/", "http://[::1]/", "http://a.example/"])
def test_redirects_from_https_to_http(status: str, to: str) -> None:
    """To this machine neither: a server elsewhere could ask the services here in our name."""
    headers = Message()
    headers["Location"] = to
    follow: Any = getattr(addresses._Redirects(), f"http_error_{status}")
    with pytest.raises(UserError, match="only https"):
        follow(Request("https://a.example/x"), io.BytesIO(), int(status), "", headers)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pass-word@a.example/x", "https://:pass-word@a.example/x", "https://pass-word@a.example/x",
        "http://user:pass-word@a.example/x", "ftp://user:pass-word@a.example/x?sig-nature",
        "https://user:pass-word@a.example:x/", "https://user:pass-word@[/", "https://user:pass/pass-word@a.example/",
        "https://a.example:x/?token=sig-nature",
    ],
)  # fmt: skip
def test_credentials_are_refused_and_not_shown(target: Path, url: str) -> None:  # noqa: F811
    with pytest.raises(UserError) as caught:
        download(url, target)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert not target.parent.exists()


def test_a_signature_is_not_shown(site: Site, target: Path) -> None:  # noqa: F811
    """Whatever goes wrong: statuses, redirects, checksums, lengths."""
    url, wrong = f"{site.url}?token=sig-nature#sig-nature", "0" * 64
    messages = []
    for statuses, expected in (
        ([(404, {})], {}),
        ([(500, {})], {}),
        ([(302, {"Location": "http://user:pass-word@a.example/?sig-nature"})], {}),
        ([(302, {"Location": f"{site.url}?sig-nature"}), (404, {})], {}),
        ([], {"sha256": wrong}),
        ([], {"size": 7}),
    ):
        site.statuses = list(statuses)
        with pytest.raises((RunError, UserError)) as caught:
            download(url, target, attempts=1, **expected)
        messages.append(str(caught.value))
    assert not [text for text in messages if any(secret in text for secret in SECRETS)]
    assert all(site.url in text for text in messages)


def test_the_official_sources_state_a_checksum_and_are_https() -> None:
    assert fetch.OFFICIAL.startswith("https://")
    assert len(bytes.fromhex(fetch.OFFICIAL_MD5)) == 16
