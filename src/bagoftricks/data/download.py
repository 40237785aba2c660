"""Checked downloads that resume.

A download grows in `<target>.part`; `<target>.part.json` says which version of which address those bytes are from
(RFC 9110: `Range`, `If-Range`, `Content-Range`). The target appears when length and checksum are right, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request

from bagoftricks.data.addresses import check_url, opener, public
from bagoftricks.data.names import shown
from bagoftricks.errors import RunError, UserError, first_line
from bagoftricks.files import locked, replacing, write_json

BLOCK = 1 << 18
"""Bytes read at once."""
BACKOFF_S = 0.5
"""Pause before the second attempt; each later pause is twice as long."""
LONGEST_WAIT_S = 30
"""How much of a server's `Retry-After` is heeded."""
MOST_BYTES = 50_000_000_000
"""Of a download whose length nobody has said beforehand: a server may send without end."""
SLOWEST = 100
"""Bytes per second below which a connection counts as broken."""


def quiet(*_: object) -> None:
    """Reports to nobody."""


def download(
    url: str,
    target: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    max_bytes: int = MOST_BYTES,
    on_bytes: Callable[[int, int | None], None] = quiet,
    attempts: int = 5,
    timeout_s: float = 30,
) -> Path:
    """Downloads `url` to `target`, resuming what an earlier attempt or call has left, and returns `target`.

    A target that is there already is kept if it agrees with the checksums and size given, else replaced. Messages leave
    out an address's query, which may be a signature.

    Args:
        url: https; plain http to this machine only; without a user's name or password. Proxies are taken from the
            environment.
        target: the file to write; its folder is created.
        md5: expected checksum, hexadecimal.
        sha256: expected checksum, hexadecimal.
        size: expected length in bytes.
        max_bytes: most bytes that are taken.
        on_bytes: called with the bytes so far and the length, None where the server does not tell it.
        attempts: connections tried before giving up, at least one.
        timeout_s: seconds that a connection may be silent, or bring less than 100 bytes a second.

    Raises:
        UserError: for another scheme, also where a redirect leads there, or a target that is a folder.
        RunError: if the server cannot be reached or refuses, the disk is too small, or length or checksum are wrong.
    """
    check_url(url, f"address {public(url)!r}")
    expected = _Expected(md5, sha256, size)
    if target.is_dir():
        raise UserError(f"{target}: is a folder; name a file to download to")
    try:
        if target.is_file() and expected.fault(target) is None:
            return target
        with locked(target.with_name(f"{target.name}.lock")) as taken:
            if not taken:
                raise RunError(f"{target}: another process is downloading it; wait for that one")
            transfer = _Transfer(url, target, expected, max_bytes, on_bytes, timeout_s)
            resumed = transfer.run(attempts)
            fault = expected.fault(transfer.part)
            if fault and resumed:  # perhaps it is glued from two versions
                transfer.discard()
                transfer.run(attempts)
                fault = expected.fault(transfer.part)
            if fault:
                transfer.discard()
                raise RunError(
                    f"{target}: {fault}; {public(url)} holds something else now, or the connection alters it"
                )
            with replacing(target) as temporary:
                transfer.part.replace(temporary)
            transfer.side.unlink(missing_ok=True)
    except OSError as error:  # of the disk: those of the network have become RunError
        raise RunError(f"{target}: cannot be written ({first_line(error)}); choose another place") from error
    return target


@dataclass(frozen=True)
class _Expected:
    """What the file must be."""

    md5: str | None
    sha256: str | None
    size: int | None

    def fault(self, path: Path) -> str | None:
        """Returns in what a file differs, or None."""
        length = path.stat().st_size
        if self.size is not None and length != self.size:
            return f"has {length:,} bytes, expected {self.size:,}"
        for name, wanted in (("md5", self.md5), ("sha256", self.sha256)):
            if wanted is None:
                continue
            with path.open("rb") as file:
                found = hashlib.file_digest(file, partial(hashlib.new, name, usedforsecurity=False)).hexdigest()
            if found != wanted.lower():
                return f"{name} is {found}, expected {wanted}"
        return None


@dataclass(frozen=True)
class _Version:
    """Which version of which address a part belongs to."""

    url: str
    etag: str | None
    last_modified: str | None
    total: int | None

    @property
    def validator(self) -> str | None:
        """For `If-Range`, where a weak ETag is not allowed."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def continued_by(self, other: _Version) -> bool:
        """Whether `other` says nothing that contradicts this one."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return all(None in pair or pair[0] == pair[1] for pair in pairs)


class _InterruptedError(Exception):
    """An attempt failed in a way that a later one may not."""

    def __init__(self, reason: str, wait_s: float = 0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class _Transfer:
    """Fills the part, attempt by attempt."""

    url: str
    target: Path
    expected: _Expected
    max_bytes: int
    on_bytes: Callable[[int, int | None], None]
    timeout_s: float

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def side(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part.json")

    def discard(self) -> None:
        self.side.unlink(missing_ok=True)  # first: a part alone is never resumed
        self.part.unlink(missing_ok=True)

    def run(self, attempts: int) -> bool:
        """Completes the part; returns whether it comes from more than one answer."""
        for attempt in range(max(1, attempts)):
            try:
                return self._attempt() > 0
            except _InterruptedError as error:
                reason = str(error)
                if attempt + 1 < attempts:
                    time.sleep(max(error.wait_s, BACKOFF_S * 2**attempt))
        kept = self._so_far()[1]
        resume = f" to go on after the {kept:,} bytes in {self.part.name}" if kept else ""
        raise self._failure(reason, f"check the connection and run again{resume}, or ")

    def _attempt(self) -> int:
        """Completes the part in one connection; returns how many of its bytes were there before."""
        version, kept = self._so_far()
        if version and kept and kept == (version.total or self.expected.size):
            return kept
        response = self._open(version, kept)
        if response is None:  # there is nothing at that offset
            self.discard()
            return self._attempt()
        with response:
            start, offered = _read_headers(self.url, response)
            if response.status == 206 and version and start == kept and version.continued_by(offered):
                offered = replace(version, total=version.total or offered.total)
            elif response.status == 206 and kept:
                self.discard()
                return self._attempt()
            elif response.status == 200:
                kept = 0
            else:
                raise self._failure(_answer(response.status, response.reason))
            self._check_room(offered.total, kept)
            if not kept:
                self.discard()
                self.part.touch()
                write_json(self.side, asdict(offered))
            self._receive(response, kept, offered.total)
        return kept

    def _so_far(self) -> tuple[_Version | None, int]:
        """Returns what the part is a part of and its length; None and 0 where there is nothing to go on with."""
        try:
            version = _Version(**json.loads(self.side.read_text(encoding="utf-8")))
            kept = self.part.stat().st_size
        except (OSError, ValueError, TypeError):
            return None, 0
        checked = self.expected.md5 or self.expected.sha256  # would find a part glued to another version
        if version.url != self.url or not (version.validator or checked):
            return None, 0
        return version, kept

    def _open(self, version: _Version | None, kept: int) -> Any:
        """Returns the server's answer; None if it has no bytes from `kept` on."""
        headers = {}
        if version and kept:
            headers["Range"] = f"bytes={kept}-"
            if version.validator:
                headers["If-Range"] = version.validator
        try:
            return opener().open(Request(self.url, headers=headers), timeout=self.timeout_s)  # noqa: S310
        except HTTPError as error:
            error.close()
            if error.code == 416 and kept:
                return None
            reason = _answer(error.code, str(error.reason))
            if error.code in (408, 425, 429) or error.code >= 500:
                wait = str(error.headers.get("Retry-After", ""))
                seconds = int(wait) if wait.isascii() and wait.isdigit() else 0
                raise _InterruptedError(reason, min(seconds, LONGEST_WAIT_S)) from error
            raise self._failure(reason) from error
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a host or proxy that cannot be encoded
            cause = error.reason if isinstance(error, URLError) else error
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise self._failure(first_line(cause)) from error
            raise _InterruptedError(shown(cause if isinstance(cause, str) else first_line(cause))) from error

    def _check_room(self, total: int | None, kept: int) -> None:
        if total is None:
            return
        if self.expected.size not in (None, total):
            raise self._failure(f"the server offers {total:,} bytes instead of {self.expected.size:,}")
        if total > self.max_bytes:
            raise self._failure(f"the server offers {total:,} bytes, more than {self.max_bytes:,}")
        free = shutil.disk_usage(self.target.parent).free
        if total - kept > free:
            raise RunError(
                f"{self.target}: {(total - kept) / 1e6:,.1f} MB are still to come, {free / 1e6:,.1f} MB are free; "
                "make room or choose another place"
            )

    def _receive(self, response: Any, kept: int, total: int | None) -> None:
        """Appends what the server sends. Stops at `total`: a kept-alive connection does not end there by itself."""
        done = kept
        needed = total or self.expected.size
        since, before = time.monotonic(), done
        with self.part.open("ab") as file:
            while total is None or done < total:
                try:
                    block = response.read1(BLOCK)
                except (OSError, HTTPException) as error:
                    raise _InterruptedError(f"{shown(first_line(error))} after {done:,} bytes") from error
                if not block or (needed is not None and done > needed):
                    break
                file.write(block)
                done += len(block)
                self.on_bytes(done, total)
                if done > self.max_bytes:
                    self.discard()
                    raise self._failure(f"the server sends more than {self.max_bytes:,} bytes")
                if (seconds := time.monotonic() - since) > self.timeout_s:
                    if done - before < SLOWEST * seconds:
                        raise _InterruptedError(f"less than {SLOWEST} bytes a second after {done:,} bytes")
                    since, before = time.monotonic(), done
        if needed is not None and done < needed:
            raise _InterruptedError(f"the connection ended after {done:,} of {needed:,} bytes")

    def _failure(self, reason: str, advice: str = "") -> RunError:
        return RunError(
            f"{public(self.url)}: cannot be downloaded ({reason}); "
            f"{advice}download it by hand and put it at {self.target}"
        )


def _answer(status: int, reason: str) -> str:
    """Says what a server answers; its own words are shown, not obeyed."""
    return shown(f"the server answers {status} {next(iter(reason.splitlines()), '')}".strip()[:200])


def _read_headers(url: str, response: Any) -> tuple[int, _Version]:
    """Returns at which byte an answer starts, and of which version it is; -1 if its range cannot be understood."""
    headers = response.headers
    start, total = 0, headers.get("Content-Length", "")
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        start, total = (int(match[1]), match[2]) if match else (-1, "")
    length = int(total) if total.isascii() and total.isdigit() else None
    return start, _Version(url, headers.get("ETag"), headers.get("Last-Modified"), length)
