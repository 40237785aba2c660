"""`tricks serve`: where it listens, how it ends, and what a real connection can do to it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from bagoftricks.cli import main
from bagoftricks.errors import UserError
from bagoftricks.serving import server as server_module
from bagoftricks.serving.classifier import load_model
from bagoftricks.serving.server import address, impatient, is_private, listen, no_farewells
from bagoftricks.serving.web import make_app
from tests.serving.test_web import SMALL, make_model, photo

# a real server


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    classifier = load_model(make_model(tmp_path_factory.mktemp("models") / "pets"), device="cpu", precision="fp32")
    with listen("127.0.0.1", 0) as listener:
        number = int(listener.getsockname()[1])
        config = uvicorn.Config(
            make_app(classifier, limits=SMALL), http=impatient(), ws="none", lifespan="off", log_config=None,
            access_log=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield number
        server.should_exit = True
        thread.join(20)


def talk(port: int, head: str, chunk: bytes = b"", most: int = 0) -> bytes:
    """Sends a request's head, then chunks for as long as they are taken; returns what came back, once it is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        sent = 0
        try:
            while sent < most:
                connection.sendall(chunk)
                sent += len(chunk)
            assert not most, "took it all"
        except (BrokenPipeError, ConnectionResetError):
            pass
        said = b""
        try:
            while received := connection.recv(65536):
                said += received
        except ConnectionResetError:
            pass
    return said


def test_a_real_connection_is_closed_on_an_endless_body(port: int) -> None:
    head = "POST /api/predict HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\nTransfer-Encoding: chunked\n\n"
    said = talk(port, head, b"3e8\r\n" + b"x" * 1000 + b"\r\n", most=200_000_000)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in said.lower()


def test_a_real_connection_is_closed_on_an_announced_body(port: int) -> None:
    head = "POST /api/predict HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\nContent-Length: 99999999\n\n"
    assert talk(port, head).startswith(b"HTTP/1.1 413 ")
    head = "GET /healthz HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n"
    said = talk(port, head, b"3e8\r\n" + b"x" * 1000 + b"\r\n", most=200_000_000)
    assert said == b"" or said.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "head",
    [
        "POST /api/predict HTTP/1.1\n\n",
        "POST /api/predict HTTP/1.1\nHost: localhost\nContent-Length: -1\n\n",
        "\0\0\0\n\n",
        "GET /" + "a" * 100_000 + " HTTP/1.1\nHost: localhost\n\n",
        "POST /api/predict HTTP/1.1\nHost: localhost\nContent-Length: 5\nTransfer-Encoding: chunked\n\nzz\n",
    ],
)
def test_a_real_connection_that_speaks_no_http(port: int, head: str) -> None:
    said = talk(port, head)
    assert said == b"" or re.match(rb"HTTP/1\.1 4\d\d ", said)
    assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_a_real_connection_predicts(port: int) -> None:
    answer = httpx.post(f"http://127.0.0.1:{port}/api/predict", files={"file": ("a.jpg", photo())}, timeout=30)
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == 5


# the command


def test_addresses() -> None:
    for host, url, private in (
        ("127.0.0.1", "http://127.0.0.1:{}/", True),
        ("localhost", "http://localhost:{}/", True),
        ("0.0.0.0", "http://127.0.0.1:{}/", False),
    ):
        with listen(host, 0) as listener:
            number = listener.getsockname()[1]
            assert number > 0
            assert address(listener, host) == url.format(number)
            assert is_private(listener) is private


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address(host: str) -> None:
    try:
        listener = listen(host, 0)
    except UserError:
        pytest.skip("no IPv6 loopback")
    with listener:
        assert address(listener, host) == f"http://[::1]:{listener.getsockname()[1]}/"
        assert is_private(listener)


@pytest.mark.parametrize(
    ("host", "number"),
    [("127.0.0.1", -1), ("127.0.0.1", 65536), ("no.such.host.invalid", 0), ("a" * 300, 0), ("203.0.113.1", 0)],
)
def test_hosts_and_ports_that_are_not_there(host: str, number: int) -> None:
    with pytest.raises(UserError, match=r"^--(host|port) "):
        listen(host, number)


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told before the model is looked at."""
    with listen("127.0.0.1", 0) as listener:
        number = listener.getsockname()[1]
        assert main(["serve", str(tmp_path), "--port", str(number)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"tricks: port {number} of 127.0.0.1 is taken; choose another one with --port, or any with --port 0\n"
    )


def test_a_folder_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"tricks: model folder {tmp_path}: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("value", ["0", "-1", "257", "nan", "inf"])
def test_upload_limits_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    assert main(["serve", str(tmp_path), "--max-upload", value]) == 2
    assert "--max-upload" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "python_multipart", "captum"])
def test_an_extra_that_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("[serve]'\n")
    assert "pip install" in said
    assert said.count("\n") == 1
    assert name in said


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bagoftricks", "serve", "--port", "0", *arguments]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=plain)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serves_until_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    process = start(str(make_model(tmp_path / "pets")), "--device", "cpu")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"ResNet-10-A with 6 classes at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)
        assert match, line
        assert httpx.get(match[1] + "healthz", timeout=30).json() == {"status": "ok"}
        with httpx.Client(timeout=60) as client:  # a connection that stays open does not hold it up
            assert client.post(match[1] + "api/predict", files={"file": photo()}).status_code == 200
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()
        process.communicate()


def test_says_where_as_json_and_warns(tmp_path: Path) -> None:
    process = start(
        str(make_model(tmp_path / "pets")), "--host", "0.0.0.0", "--json", "--device", "cpu", "--max-upload", "1"
    )
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert (said["architecture"], said["classes"]) == ("ResNet-10-A", 6)
        limits = httpx.get(said["url"] + "api/model", timeout=30).json()["limits"]
        assert limits["file_bytes"] == 2**20
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        assert err == "Warning: no password is asked for; whoever reaches this address can use the model.\n"
    finally:
        process.kill()
        process.communicate()


def test_opens_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)))
    monkeypatch.setattr("bagoftricks.serving.server.serve", lambda app, listener: None)
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.run)  # nobody waits for it
    assert main(["serve", str(make_model(tmp_path / "pets")), "--port", "0", "--open", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert opened == [re.findall(r"http\S+", said.out)[0]]
    assert said.err == f"No browser could be started; open {opened[0]}\n"
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    assert main(["serve", str(tmp_path / "pets"), "--port", "0", "--open", "--device", "cpu"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("head", [b"", b"GET /healthz HTTP/1.1\r\nHost: loc"])
def test_a_connection_that_asks_nothing_is_closed(port: int, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(server_module, "HEAD_S", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head)
        assert client.recv(1) == b""
    monkeypatch.undo()
    url = f"http://127.0.0.1:{port}/healthz"
    with httpx.Client(timeout=30) as patient:  # one that asks, and asks again, is answered
        assert [patient.get(url).status_code for _ in range(3)] == [200] * 3


def test_a_client_that_takes_no_answers_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else sixty-four of them would keep everybody out: a close waits for the client to take what was written."""
    monkeypatch.setattr(server_module, "ANSWER_S", 0.3)
    asked, said = 5_000, b""
    request = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        with suppress(OSError):  # the server reads no further, or has gone
            client.sendall(request * asked)
        time.sleep(1)
        with suppress(ConnectionResetError):
            while received := client.recv(2**20):
                said += received
    assert 0 < said.count(b"HTTP/1.1 200") < asked // 2
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=30).status_code == 200


def test_requests_broken_off_at_the_end_are_no_news() -> None:
    def record(text: str, error: Any = None) -> logging.LogRecord:
        return logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, text, (), error)

    try:
        raise asyncio.CancelledError
    except asyncio.CancelledError:
        broken = record("Exception in ASGI application", sys.exc_info())
    told, other = record("Cancel 1 running task(s), timeout"), record("Exception in ASGI application")
    assert [no_farewells(one) for one in (broken, told, other)] == [False, False, True]
