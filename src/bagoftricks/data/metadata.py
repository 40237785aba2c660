"""What stands around the pixels of an image file, read from its bytes without trusting them.

Pillow parses EXIF, colour profiles and the directories of multi-picture files while it opens a JPEG, and follows
whatever they say. So a JPEG reaches it without them, a TIFF only after its directory was checked, and the orientation
is read here.

Sources: JPEG, ITU-T T.81, annex B; TIFF 6.0 and BigTIFF; Exif 2.32, tag 0x0112.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

ORIENTATION = 0x0112
MOST_SEGMENTS, MOST_SCANS = 10_000, 100
"""Of a JPEG: before the first scan, and scans (progressive ones have about 10), each over all its pixels."""
MOST_EXIF = 2**20
"""Bytes of EXIF that are looked at."""
MOST_TILES, MOST_TILE_PIXELS = 2**19, 2**24
"""Of a TIFF: strips or tiles, and pixels of one."""

SOI, EOI, SOS, DRI = b"\xff\xd8", 0xD9, 0xDA, 0xDD
FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
"""Markers that start a frame: SOF0 to SOF15."""
TABLES = frozenset((0xC4, 0xCC, 0xDB, 0xDC, DRI, *range(0xE0, 0xF0), 0xFE))
"""Markers of segments that may stand between scans: DHT, DAC, DQT, DNL, DRI, APPn, COM."""
KEPT = frozenset((0xE0, 0xEE))
"""Application segments that say how pixels are to be read: JFIF, and Adobe's colour transform."""
MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
XMP = b"http://ns.adobe.com/xap/1.0/\0"
XMP_ORIENTATION = re.compile(r'tiff:Orientation(?:="|>)([1-8])')
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each TIFF type."""


class DamagedError(ValueError):
    """The file contradicts itself, ends too soon, or asks for more than any picture needs."""


class Jpeg(NamedTuple):
    """A JPEG without what is not needed for its pixels."""

    data: bytes
    end: int
    """Where the end marker stands in `data`."""
    scans: int
    exif: bytes
    xmp: bytes


def plain_jpeg(data: bytes) -> Jpeg:
    """Returns a JPEG without metadata, thumbnails and further pictures, and what says how it is turned.

    Raises:
        DamagedError: if it has no end, no picture, a marker where there can be none, or too many segments or scans.
    """
    kept, exif, xmp = [SOI], b"", b""
    frame, interval, place = b"", 0, 2
    for _ in range(MOST_SEGMENTS):
        found = MARKER.search(data, place)  # what stands between segments is passed over, as libjpeg does
        if found is None:
            raise DamagedError("truncated")
        code = found[1][0]
        if code in (SOS, EOI):
            break
        if code in (0x01, 0xD8):
            place = found.end()
            continue
        body = _segment(data, found.end())
        place = found.end() + 2 + len(body)
        if code in FRAMES:
            frame = body
        elif code == DRI:
            interval = int.from_bytes(body[:2], "big")
        if code == 0xE1 and body.startswith(b"Exif\0\0") and len(exif) < MOST_EXIF:
            exif += body[6:]
        elif code == 0xE1 and body.startswith(XMP):
            xmp = body[len(XMP) :]
        if code in KEPT or code not in (*range(0xE0, 0xF0), 0xFE):
            kept.append(data[found.start() : place])
    else:
        raise DamagedError("damaged (a JPEG of too many segments)")
    if code == EOI or not frame:
        raise DamagedError("damaged (a JPEG without a picture)")
    end, scans = _end(data, found.start(), frame, interval)
    header = b"".join(kept)
    return Jpeg(header + data[found.start() : end + 2], len(header) + end - found.start(), scans, exif, xmp)


def _segment(data: bytes, place: int) -> bytes:
    """Returns what a segment holds, whose length stands at `place`."""
    length = int.from_bytes(data[place : place + 2], "big")
    if length < 2 or place + length > len(data):
        raise DamagedError(
            "truncated" if place + max(length, 2) > len(data) else "damaged (a JPEG segment without length)"
        )
    return data[place + 2 : place + length]


def _end(data: bytes, place: int, frame: bytes, interval: int) -> tuple[int, int]:
    """Returns where the end marker stands, and the number of scans; restart markers must be as many as were said.

    A decoder fills what they should have held with grey, and says nothing.
    """
    for number in range(1, MOST_SCANS + 1):
        scan = _segment(data, place + 2)
        place += 4 + len(scan)
        found = MARKER.search(data, place)
        while found and found[1][0] in TABLES:
            if found[1][0] == DRI:
                interval = int.from_bytes(_segment(data, found.end())[:2], "big")
            found = MARKER.search(data, found.end() + 2 + len(_segment(data, found.end())))
        if found is None:
            raise DamagedError("truncated")
        if number == 1:
            _check_restarts(len(RESTART.findall(data, place, found.start())), frame, scan, interval)
        if found[1][0] == EOI:
            return found.start(), number
        if found[1][0] != SOS:
            raise DamagedError("damaged (a JPEG marker within the pixels)")
        place = found.start()
    raise DamagedError(f"damaged (a JPEG of more than {MOST_SCANS} scans)")


def _check_restarts(restarts: int, frame: bytes, scan: bytes, interval: int) -> None:
    """Compares the restart markers of a first scan that holds all components with the number that its size asks for."""
    if len(frame) < 6 or not scan or len(frame) < 6 + 3 * frame[5]:
        raise DamagedError("damaged (a JPEG header cut short)")
    if not interval:
        if restarts:
            raise DamagedError("damaged (a JPEG marker within the pixels)")
        return
    if scan[0] != frame[5]:
        return
    height, width = struct.unpack(">HH", frame[1:5])
    factors = [frame[7 + 3 * k] for k in range(frame[5])]
    across, down = (max(f >> 4 for f in factors), max(f & 15 for f in factors)) if len(factors) > 1 else (1, 1)
    if across and down and restarts < -(-(-(-width // (8 * across)) * -(-height // (8 * down))) // interval) - 1:
        raise DamagedError("truncated")


def orientation(exif: bytes, xmp: bytes | str = b"") -> int:
    """Returns how an image must be turned to stand upright, 1 (not at all) to 8; 1 where nothing sensible is said.

    Args:
        exif: an EXIF block, with or without its leading "Exif"; only its first directory is read.
        xmp: an XMP document, which counts where EXIF says nothing.
    """
    block = exif[6:MOST_EXIF] if exif.startswith(b"Exif\0\0") else exif[:MOST_EXIF]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order:
        try:
            (start,) = struct.unpack_from(f"{order}L", block, 4)
            (count,) = struct.unpack_from(f"{order}H", block, start)
            entries = block[start + 2 : start + 2 + 12 * count]
            for tag, kind, number, value in struct.iter_unpack(f"{order}HHL4s", entries[: len(entries) // 12 * 12]):
                if tag == ORIENTATION and number == 1 and kind in (3, 4):
                    (turned,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'L'}", value)
                    return turned if 1 <= turned <= 8 else 1
        except struct.error:
            return 1
    said = XMP_ORIENTATION.search(xmp if isinstance(xmp, str) else xmp.decode("utf-8", "replace"))
    return int(said[1]) if said else 1


def check_tiff(data: bytes) -> None:
    """Refuses a TIFF whose first directory would make a reader allocate or repeat far more than the file holds.

    Raises:
        DamagedError: if it is cut short, its values overlap many times over, or its tiles are absurdly many or large.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    try:
        (start,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", data, 8 if big else 4)
        (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
        first, form = (start + 8, f"{order}HHQ8s") if big else (start + 2, f"{order}HHL4s")
        if count > 4096:
            raise DamagedError("damaged (a TIFF directory of too many entries)")
        entries = [struct.unpack_from(form, data, first + k * struct.calcsize(form)) for k in range(count)]
    except struct.error:
        raise DamagedError("truncated") from None
    if sum(number * SIZES.get(kind, 1) for _, kind, number, _ in entries) > 4 * len(data) + 2**16:
        raise DamagedError("truncated")
    shape: dict[int, int] = {}
    for tag, kind, number, value in entries:
        if tag in (273, 324) and number > MOST_TILES:  # strips, tiles
            raise DamagedError("damaged (a TIFF of too many tiles)")
        if tag in (322, 323) and kind in (3, 4):  # width and height of a tile
            shape[tag] = struct.unpack_from(f"{order}{'H' if kind == 3 else 'L'}", value)[0]
    if shape.get(322, 1) * shape.get(323, 1) > MOST_TILE_PIXELS:
        raise DamagedError("damaged (a TIFF of too large tiles)")
