"""The socket under `serving.web`, and the process that answers on it until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from bagoftricks.errors import RunError, UserError, first_line

if TYPE_CHECKING:
    import uvicorn

BACKLOG, CONNECTIONS = 128, 64
"""Connections that wait to be accepted, and that are open, at most."""
HEAD_S, ANSWER_S, SHUTDOWN_S = 10, 60, 3
"""Seconds for a request's head to arrive, for its answer to be taken, and for requests at work when the server ends."""


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens, so that an address that is taken is found before a model is loaded.

    Raises:
        UserError: if there is no such host or port here.
        RunError: if the port is taken, or may not be used.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: must be from 0 (any that is free) to 65535")
    try:
        family, kind, number, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: no such host ({first_line(error)})") from error
    listener = socket.socket(family, kind, number)
    try:
        if os.name == "posix":  # on Windows the same option would share the port with another server
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"--host {host}: not an address of this computer; 127.0.0.1 is one") from error
        what = (
            "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror or first_line(error)})"
        )
        raise RunError(f"port {port} of {host} {what}; choose another one with --port, or any with --port 0") from error
    return listener


def address(listener: socket.socket, host: str) -> str:
    """Returns the URL of the page: under the host asked for, or this computer where that stands for all interfaces."""
    own = ipaddress.ip_address(listener.getsockname()[0])
    name = host.strip("[]") if not own.is_unspecified else "127.0.0.1" if own.version == 4 else "::1"
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}/"


def is_private(listener: socket.socket) -> bool:
    """Whether only this computer reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def in_browser(url: str) -> bool:
    """Opens a page, of a server that listens already, and says whether a browser took it."""
    import webbrowser

    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Answers requests until Ctrl-C, SIGTERM or SIGHUP; those at work get a few seconds to end."""
    import uvicorn

    for name in ("python_multipart", "uvicorn.error"):  # what clients do wrong is told to them
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(no_farewells)
    config = uvicorn.Config(
        app, http=impatient(), ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=SHUTDOWN_S,
    )  # fmt: skip
    server = uvicorn.Server(config)
    with _hanging_up(server), suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def no_farewells(record: logging.LogRecord) -> bool:
    """Leaves out that requests were broken off because the server was told to end."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError) and not record.getMessage().startswith("Cancel ")


def impatient() -> type[asyncio.Protocol]:
    """Returns uvicorn's protocol for connections that have to send a request's head, and to take its answer, in time:
    of those that say nothing, or do not listen, a few would keep everybody else out.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _answer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._forget()
            self.resume_writing()

        def pause_writing(self) -> None:  # the client does not keep up
            super().pause_writing()
            self._answer = self.loop.call_later(ANSWER_S, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._answer is not None:
                self._answer.cancel()
            self._answer = None

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._end_when_closing()

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._end_when_closing()

        def _await_head(self) -> None:
            if self._answering():
                self._forget()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(HEAD_S, self._hang_up)

        def _answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _forget(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = None

        def _hang_up(self) -> None:
            self._deadline = None
            if not self._answering():
                self.transport.close()
                self._end_when_closing()

        def _end_when_closing(self) -> None:
            if self.transport.is_closing():  # which waits for the client to take what was written
                self.loop.call_later(ANSWER_S, self.transport.abort)

    return Impatient


@contextmanager
def _hanging_up(server: uvicorn.Server) -> Iterator[None]:
    """Ends the server in good order at SIGHUP, which uvicorn does not know; ignored (nohup), it stays so.

    Raised in the midst of a request, as Ctrl-C is elsewhere, it would be taken for that request's failure.
    """
    number = getattr(signal, "SIGHUP", None)
    main = threading.current_thread() is threading.main_thread()
    if number is None or not main or signal.getsignal(number) == signal.SIG_IGN:
        yield
        return
    before = signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL if before is None else before)  # None: another library's
