"""Who may ask: requests that name this server, from its own page or no page. And headers that keep the page to itself.

A browser sends what any page tells it to, and to this computer too. A page elsewhere whose name is made to point here
(DNS rebinding) still sends its own name as Host; a page that posts across sites sends its own Origin. Both are refused.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


class Guard:
    """Lets in only requests that name this server and come from its own page or no page; adds security headers."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.names, self.any_address = app, {"localhost", "127.0.0.1", "[::1]"}, False
        bare = host.strip("[]").lower()
        self.names.add(f"[{bare}]" if ":" in bare else bare)
        with suppress(ValueError):
            self.any_address = ipaddress.ip_address(bare).is_unspecified
        if self.any_address:
            self.names |= {socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                added.update(HEADERS)
                if has_body and (scope["method"] != "POST" or message["status"] != 200):
                    added["Connection"] = "close"  # what was not read of the body stays unread
            await send(message)

        app = self._refusal(scope["method"], headers) or self.app
        await app(scope, receive, guarded)

    def _refusal(self, method: str, headers: Headers) -> Response | None:
        if not self._named(headers.get("host", "")):
            return JSONResponse({"error": "the Host header does not name this server"}, 400)
        origin = headers.get("origin")
        if method not in ("GET", "HEAD") and origin is not None and not _same(origin, headers["host"]):
            return JSONResponse({"error": "pages of other sites may not use this server"}, 403)
        return None

    def _named(self, header: str) -> bool:
        match = HOST.fullmatch(header)
        if not match:
            return False
        name = match[1].lower()
        if name in self.names or not self.any_address:
            return name in self.names
        try:
            return bool(ipaddress.ip_address(name.strip("[]")))
        except ValueError:
            return False


def _same(origin: str, host: str) -> bool:
    """Whether a page at `origin` was served under `host`; the scheme may be a proxy's."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
