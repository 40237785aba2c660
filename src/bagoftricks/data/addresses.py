"""Addresses that may be downloaded from, where they may redirect to, and how they are shown."""

from __future__ import annotations

import ipaddress
import re
import string
from typing import Any
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from bagoftricks.errors import UserError


def public(url: str) -> str:
    """Returns an address without what may be secret: user, password, query and fragment."""
    return re.split(r"[?#]", re.sub(r"//.*@", "//", url, flags=re.DOTALL))[0]


def check_url(url: str, what: str) -> None:
    """Refuses an address that nothing is downloaded from; `what` names it in the message.

    Raises:
        UserError: if it is none, neither https nor http to this machine, or holds a user's name or password.
    """
    try:
        parts = urlsplit(url)
        valid = parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"{what}: is no valid address")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and _is_local(parts.hostname))):
        raise UserError(f"{what}: only https:// is downloaded from")
    if parts.username is not None or parts.password is not None:
        raise UserError(f"{what}: holds a user's name or password; leave them out")


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to where a download may start, and nowhere else."""

    def http_error_302(self, req: Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        if location := headers.get("location") or headers.get("uri"):
            url = quote(urljoin(req.full_url, location), safe=string.punctuation)
            what = f"{public(req.full_url)}: redirects to {public(url)!r}"
            try:
                check_url(url, what)
                if urlsplit(req.full_url).scheme == "https" != urlsplit(url).scheme:  # not to this machine either
                    raise UserError(f"{what}: only https:// is downloaded from")
            except UserError:
                fp.close()
                raise
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Proxies(ProxyHandler):
    """The environment's proxies, but for this machine: a proxy's loopback is another one."""

    def proxy_open(self, req: Request, proxy: str, type: str) -> Any:  # noqa: A002
        return None if _is_local(urlsplit(req.full_url).hostname or "") else super().proxy_open(req, proxy, type)


def opener() -> OpenerDirector:
    """Returns what opens http and https; nothing here could read a local file or FTP."""
    opener = OpenerDirector()
    opener.addheaders = [("User-Agent", "bagoftricks")]
    for handler in (
        _Proxies, UnknownHandler, HTTPHandler, HTTPSHandler, _Redirects, HTTPDefaultErrorHandler, HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener
