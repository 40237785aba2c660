"""A study folder that somebody else may have written, and a look at what happens around it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bagoftricks.files import write_json
from tests.reports.made_up import FACTORS, make_many

SECRET = "the user's own secret"
HANG_S = 150
"""Seconds after which a test counts as hanging; each takes a few at most, on a machine with nothing else to do."""


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """Ends what blocks on a pipe or reads without end, instead of the whole suite."""

    def stop(*_: object) -> None:
        raise TimeoutError("hangs")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cells over two seeds, all done; beside it lies what is the user's own."""
    own = tmp_path / "own"
    (own / "kept").mkdir(parents=True)
    (own / "secret.json").write_text(f'{{"error": "{SECRET}", "name": "{SECRET}", "top1": 0.5}}')
    (own / "kept" / "result.json").write_text(f'{{"top1": 0.5, "note": "{SECRET}"}}')
    root = make_many(tmp_path / "study", {"schedule.decay": FACTORS["schedule.decay"]}, seeds=2, epochs=2)
    write_json(root / "data" / "check.json", {"name": "n", "findings": ["f"], "counts": {"a": 3, "b": 2}})
    write_json(root / "failures" / "none.json", {"run": "x", "error": "y"})
    for name in ("models", "locks", "report"):
        (root / name).mkdir()
    return root


@pytest.fixture
def own(folder: Path) -> Callable[[], dict[str, bytes]]:
    """Returns what lies outside the study folder, whenever asked."""
    outside = folder.parent

    def look() -> dict[str, bytes]:
        inside = str(folder) + "/"
        return {
            str(path): path.read_bytes() if path.is_file() else b""
            for path in sorted(outside.rglob("*"))
            if not str(path).startswith(inside)
        }

    return look
