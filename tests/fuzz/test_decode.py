"""Damaged image files: `decode` returns pixels or refuses, in bounded time and memory, and never raises anything else.

Some 200 in the ordinary tests; `make fuzz` runs those marked `fuzz`. BAGOFTRICKS_FUZZ_INPUTS says how many, and
BAGOFTRICKS_FUZZ_SEED which.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from bagoftricks.data.decoding import decode_bytes
from bagoftricks.data.reading import BadImageError
from tests.fuzz.samples import exif_block, valid_files

INPUTS = int(os.environ.get("BAGOFTRICKS_FUZZ_INPUTS", "12000"))
SEED = int(os.environ.get("BAGOFTRICKS_FUZZ_SEED", "0"))
MOST_SECONDS, MOST_BYTES = 5.0, 2**30
LINUX = sys.platform == "linux"
HEADER = 300
"""Bytes from the start in which most changes are made."""
LENGTHS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 4096, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 2**24, 2**31 - 1, 2**32 - 1)
NAMES = tuple(valid_files())

place = st.floats(0, 1, allow_nan=False, exclude_max=True)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.booleans(), place, st.integers(0, 7)),
        st.tuples(st.just("byte"), st.booleans(), place, st.integers(0, 255)),
        st.tuples(st.just("number"), st.booleans(), place, st.sampled_from(LENGTHS), st.sampled_from("HI"),
                  st.sampled_from("<>")),
        st.tuples(st.just("cut"), st.booleans(), place),
        st.tuples(st.just("remove"), st.booleans(), place, st.integers(1, 40)),
        st.tuples(st.just("repeat"), st.booleans(), place, st.integers(1, 200), st.integers(1, 50)),
        st.tuples(st.just("splice"), st.booleans(), place, st.sampled_from(NAMES), place),
        st.tuples(st.just("insert"), st.booleans(), place, st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("exif"), st.integers(0, 2**16), st.lists(st.tuples(place, st.integers(0, 255)), max_size=6)),
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


def damaged(data: bytes, ops: list[tuple]) -> bytes:  # type: ignore[type-arg]
    """Returns a file after some changes."""
    for op in ops:
        if op[0] == "exif":
            block = bytearray(exif_block(op[1] % 256))
            for where, value in op[2]:
                block[int(where * len(block))] = value
            segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
            data = data[:2] + segment + data[2:]
            continue
        kind, in_header, where, *rest = op
        at = int(where * (min(HEADER, len(data)) if in_header else len(data)))
        if kind == "flip" and data:
            data = data[:at] + bytes((data[at] ^ (1 << rest[0]),)) + data[at + 1 :]
        elif kind == "byte":
            data = data[:at] + bytes((rest[0],)) + data[at + 1 :]
        elif kind == "number":
            number = rest[0] & (0xFFFF if rest[1] == "H" else 0xFFFFFFFF)
            field = struct.pack(rest[2] + rest[1], number)
            data = data[:at] + field + data[at + len(field) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "remove":
            data = data[:at] + data[at + rest[0] :]
        elif kind == "repeat":
            data = data[: at + rest[0]] + data[at : at + rest[0]] * rest[1] + data[at + rest[0] :]
        elif kind == "splice":
            other = valid_files()[rest[0]]
            data = data[:at] + other[int(rest[1] * len(other)) :]
        elif kind == "insert":
            data = data[:at] + rest[0] + data[at:]
    return data


class Memory:
    """The most memory that the process had since this was made, in bytes above what it had then; 0 but for Linux."""

    def __init__(self) -> None:
        if LINUX:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
            self.before = self._read("VmRSS")

    def peak(self) -> int:
        return self._read("VmHWM") - self.before if LINUX else 0

    @staticmethod
    def _read(field: str) -> int:
        text = Path("/proc/self/status").read_text()
        return int(text[text.index(f"{field}:") + len(field) + 1 :].split(maxsplit=1)[0]) * 1024


def check(data: bytes, short_side: int | None) -> tuple[bool, float, int]:
    """Decodes; returns whether there are pixels, the seconds it took, and the bytes."""
    memory, started, picture, refused = Memory(), time.thread_time(), None, ""
    try:
        picture = decode_bytes(data, "some.jpg", short_side)
    except BadImageError as error:
        refused = str(error)
    took, peak = time.thread_time() - started, memory.peak()
    assert took < MOST_SECONDS
    assert peak < MOST_BYTES
    if picture is None:
        assert refused.isprintable()
        assert "decoded ()" not in refused  # a reason is given
        assert len(refused) < 300
        return False, took, peak
    pixels = picture.pixels
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert min(pixels.shape) >= 1
    if short_side is not None:
        assert min(pixels.shape[:2]) <= short_side or min(picture.width, picture.height) <= short_side
        assert max(pixels.shape[:2]) <= max(8 * short_side, 8)
    return True, took, peak


@dataclass
class Seen:
    """What came of damaged files."""

    tried: int = 0
    decoded: int = 0
    """Gave pixels all the same."""
    slowest: float = 0.0
    """Seconds of one core."""
    largest: int = 0
    """Bytes of memory."""


def fuzz(inputs: int, seed: int) -> Seen:
    """Decodes so many damaged files."""
    seen = Seen()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.sampled_from(NAMES), changes, st.sampled_from((None, 8, 64)))
    def run(name: str, ops: list[tuple], short_side: int | None) -> None:  # type: ignore[type-arg]
        decoded, took, peak = check(damaged(valid_files()[name], ops), short_side)
        seen.tried += 1
        seen.decoded += decoded
        seen.slowest, seen.largest = max(seen.slowest, took), max(seen.largest, peak)

    run()
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_whole_before_they_are_damaged(name: str) -> None:
    for short_side in (16, None):
        assert check(valid_files()[name], short_side)[0] == (name != "tiff float")


def test_damaged_files_decode_or_are_refused() -> None:
    seen = fuzz(200, SEED)
    assert seen.tried >= 200
    assert 0 < seen.decoded < seen.tried


@pytest.mark.fuzz
def test_many_damaged_files_decode_or_are_refused() -> None:
    started = time.process_time()
    seen = fuzz(INPUTS, SEED)
    print(f"\n{seen.tried:,} files, {seen.decoded:,} decoded, {time.process_time() - started:.0f} s of one core; one "
          f"took {seen.slowest:.2f} s and {seen.largest / 2**20:.0f} MiB at most; seed {SEED}")  # fmt: skip
    assert seen.tried >= INPUTS
