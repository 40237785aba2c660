"""What a client uploads, read within bounds: its size, its number of files, the time that it takes.

A body is `multipart/form-data` with images in the field `file`, or the bytes of one image. It is counted while it comes
in, whatever its headers say, and nothing is read beyond a limit. One file at a time is held in memory, none is written
to disk, and no file name that a client sends is used for anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

OVERHEAD = 2**16
"""Bytes of a multipart body beside its files: boundaries and headers."""
FIELD = b"file"
MANY_DIGITS = 15
"""Of a length that is too large whatever it is; Python refuses to read thousands of digits."""


@dataclass(frozen=True)
class Limits:
    """What a server takes."""

    file_bytes: int = 20 * 2**20
    """Of one image file."""
    files: int = 16
    """In one request."""
    requests: int = 8
    """With images, at a time; each holds one file in memory. More are told to come again."""
    seconds: float = 30.0
    """To receive a body, the time for predictions not counted."""


class RefusedError(Exception):
    """A request that is refused: an HTTP status, and the reason in one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason


async def uploads(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """Yields the content of each image file of a request, as soon as it is whole; at least one.

    Raises:
        RefusedError: 400 malformed, 408 too slow, 413 too large or too many, 415 of a wrong type, 422 without an image.
        ClientDisconnect: if the client goes before it has sent everything.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "the body is compressed; send it as it is, without Content-Encoding")
    if kind == b"multipart/form-data":
        _check_length(request, limits.files * limits.file_bytes + OVERHEAD, limits)
        form = _Form(options.get(b"boundary", b""), limits)
        async for chunk in _chunks(request, limits):
            form.write(chunk)
            while form.whole:
                yield form.whole.pop(0)
        form.finish()
    elif kind.startswith(b"image/") or kind == b"application/octet-stream":
        _check_length(request, limits.file_bytes, limits)
        body = bytearray()
        async for chunk in _chunks(request, limits):
            body += chunk
            if len(body) > limits.file_bytes:
                raise _too_large(limits)
        yield bytes(body)
    else:
        raise RefusedError(
            415, "send multipart/form-data with the field 'file', or an image's bytes with Content-Type: image/…"
        )


def _check_length(request: Request, most: int, limits: Limits) -> None:
    """Refuses a body by the length that it claims, before any of it is read."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > MANY_DIGITS or int(length) > most):
        raise _too_large(limits)


def _too_large(limits: Limits) -> RefusedError:
    return RefusedError(413, f"too large: at most {limits.file_bytes / 2**20:g} MiB an image")


async def _chunks(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """Yields a body as it comes in; what is done with it in between does not count as the client's time."""
    stream, left = request.stream(), limits.seconds
    while True:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(left):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RefusedError(408, f"the body did not come within {limits.seconds:g} seconds") from None
        left -= time.monotonic() - begun
        yield chunk


class _Form:
    """Takes the files out of a multipart body; RFC 7578."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self.limits = limits
        self.whole: list[bytes] = []
        self.files = self.total = self.content = 0
        self.ended = False
        self._name, self._value, self._disposition, self._file = b"", b"", b"", bytearray()
        if not boundary:
            raise RefusedError(400, "malformed multipart body: its Content-Type names no boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._check_field,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._last,
                },
            )
        except FormParserError as error:
            raise RefusedError(400, "malformed multipart body: its boundary is too long") from error

    def write(self, chunk: bytes) -> None:
        """Parses what came in."""
        self.total += len(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise RefusedError(400, "malformed multipart body") from error
        if self.total - self.content > OVERHEAD:
            raise RefusedError(400, "malformed multipart body: more headers than files")

    def finish(self) -> None:
        """Checks that the body was whole."""
        if not self.ended:
            raise RefusedError(400, "malformed multipart body: it ends early")
        if not self.files:
            raise RefusedError(422, "no image: send it in the field 'file'")

    def _begin(self) -> None:
        self._name, self._value, self._disposition, self._file = b"", b"", b"", bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def _check_field(self) -> None:
        disposition, options = parse_options_header(self._disposition)
        if disposition != b"form-data" or b"name" not in options:
            raise RefusedError(400, "malformed multipart body: a part without the name of its field")
        if options[b"name"] != FIELD:
            raise RefusedError(422, "unknown field: send images in the field 'file', and nothing else")
        self.files += 1
        if self.files > self.limits.files:
            raise RefusedError(413, f"too many images: at most {self.limits.files} a request")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if len(self._file) + end - start > self.limits.file_bytes:
            raise _too_large(self.limits)
        self._file += memoryview(data)[start:end]
        self.content += end - start

    def _end(self) -> None:
        self.whole.append(bytes(self._file))
        self._file = bytearray()

    def _last(self) -> None:
        self.ended = True
