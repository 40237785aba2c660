"""The engine: what dies or hangs costs its run only, memory that runs out is answered, and an interrupt ends it all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from bagoftricks.cli import _terminating_as_interrupt
from bagoftricks.errors import RunError
from bagoftricks.store import Store
from bagoftricks.studies import engine, memory
from bagoftricks.studies.engine import Event, run_all
from bagoftricks.studies.pairing import pairing_warnings, split_blocks, unpaired_blocks
from tests.conftest import ROOT
from tests.studies import stub

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def execute(out: Path, count: int, script: dict[str, list[str]], jobs: int = 1, **options: float) -> list[Event]:
    stub.write_script(out, script)
    events: list[Event] = []
    run_all(stub.make_tasks(out, count), jobs, events.append, trainer=stub.train, **options)  # type: ignore[arg-type]
    return events


def told(events: list[Event], *without: str) -> list[tuple[str, str]]:
    return [(event.kind, event.task.name) for event in events if event.kind not in ("epoch", *without)]


def test_a_run_that_dies_is_tried_again_last(tmp_path: Path) -> None:
    events = execute(tmp_path, 3, {"run 0": [f"signal {signal.SIGSEGV:d}", "exit 7"]})
    assert told(events) == [
        ("started", "run 0"),
        ("retrying", "run 0"),
        ("started", "run 1"),
        ("done", "run 1"),
        ("started", "run 2"),
        ("done", "run 2"),
        ("retrying", "run 0"),
        ("done", "run 0"),
    ]
    texts = [event.text for event in events if event.kind == "retrying"]
    assert texts == [
        "the process was killed by SIGSEGV; it is tried again (1 of 2)",
        "the process ended with status 7; it is tried again (2 of 2)",
    ]
    assert [event.row["epoch"] for event in events if event.task.name == "run 0" and event.row] == [1, 2, 3]
    assert all(Store(tmp_path).get(task.id) for task in stub.make_tasks(tmp_path, 3))


def test_a_run_that_always_dies_fails_with_its_reason(tmp_path: Path) -> None:
    events = execute(tmp_path, 2, {"run 0": [f"signal {signal.SIGKILL:d}"] * 9}, retries=1)
    assert told(events, "started") == [("retrying", "run 0"), ("done", "run 1"), ("failed", "run 0")]
    reason = "the process was killed by SIGKILL, as the system does when memory runs out, at the last of 2 attempts"
    assert events[-1].text == Store(tmp_path).failure(events[-1].task.id) == reason
    assert len(stub.journal(tmp_path, "began")) == 3
    (again,) = told(execute(tmp_path, 2, {}), "started", "found")  # what failed is tried again when asked for again
    assert again == ("done", "run 0")
    assert Store(tmp_path).failure(events[-1].task.id) is None


def test_an_error_is_not_tried_again(tmp_path: Path) -> None:
    events = execute(tmp_path, 3, {"run 0": ["error"], "run 1": ["bug"]})
    assert told(events, "started") == [("failed", "run 0"), ("failed", "run 1"), ("done", "run 2")]
    texts = [event.text for event in events if event.kind == "failed"]
    assert texts[0] == "the loss became nan"
    assert texts[1].startswith("ZeroDivisionError: a bug (stub.py:")
    assert len(stub.journal(tmp_path, "began")) == 3


def test_a_hung_run_is_killed_and_a_slow_one_is_not(tmp_path: Path) -> None:
    execute(tmp_path / "before", 1, {})  # what starts processes is there: its own start is no silence of theirs
    script = {"run 0": ["hang"], "run 1": ["freeze"], "run 2": ["slow 4"]}
    events = execute(tmp_path, 3, script, jobs=3, stall_s=2.4)
    kinds = told(events, "started")
    assert kinds.count(("retrying", "run 0")) == kinds.count(("retrying", "run 1")) == 1
    assert ("retrying", "run 2") not in kinds
    assert {name for kind, name in kinds if kind == "done"} == {"run 0", "run 1", "run 2"}
    assert "it did nothing for 0.04 min; it is tried again (1 of 2)" in {event.text for event in events}


def test_a_run_that_dies_once_it_is_there_is_done(tmp_path: Path) -> None:
    assert told(execute(tmp_path, 1, {"run 0": ["dies after"]})) == [("started", "run 0"), ("done", "run 0")]
    assert len(stub.journal(tmp_path, "began")) == 1


def test_memory_that_runs_out_halves_the_micro_batch(tmp_path: Path) -> None:
    """Run 0 of 6 fits whole; what follows does not, from the second cell of the first block on."""
    fits = dict.fromkeys((f"run {i}" for i in range(1, 6)), ["fits 20"] * 9)
    events = execute(tmp_path, 6, fits)
    assert told(events, "started")[:4] == [
        ("done", "run 0"),
        ("memory", "run 1"),
        ("memory", "run 1"),
        ("done", "run 1"),
    ]
    assert [event.text for event in events if event.kind == "memory"] == [
        "the device has no memory for 64 images at once; from now on runs start with at most 32",
        "the device has no memory for 32 images at once; from now on runs start with at most 16",
    ]
    assert json.loads((tmp_path / "memory.json").read_text()) == {
        "micro_batch": 16,
        "why": "run 1: out of memory on the device",
    }
    tasks = stub.make_tasks(tmp_path, 6)
    used = [Store(tmp_path).get(task.id).result["micro_batch"] for task in tasks]  # type: ignore[union-attr]
    assert used == [64, 16, 16, 16, 16, 16]

    # a later process follows, and a smaller batch stays whole
    run_all(stub.make_tasks(tmp_path, 8)[6:], 1, events.append, trainer=stub.train)
    small = stub.make_tasks(tmp_path, 9, batch_size=8)[8:]
    run_all(small, 1, events.append, trainer=stub.train)
    ids = [task.id for task in stub.make_tasks(tmp_path, 9)[6:]]
    assert [Store(tmp_path).get(i).result["micro_batch"] for i in ids] == [16, 16, 8]  # type: ignore[union-attr]

    cells = [{"name": name, "recipe": {"batch_size": 64}} for name in "AB"]
    done = [(task.cell, task.seed, Store(tmp_path).get(task.id).result) for task in tasks]  # type: ignore[union-attr]
    assert unpaired_blocks({"cells": cells}, done) == [(0, {64: ["A"], 16: ["B"]})]
    (warning,) = pairing_warnings({"cells": cells}, done)
    assert "seed 0 could not stay paired" in warning
    assert "64 images in A; 16 images in B" in warning


def test_blocks_of_earlier_versions_and_other_batch_sizes_are_paired() -> None:
    cells = [{"name": "A"}, {"name": "B", "recipe": {"batch_size": 32}}, {"name": "C", "recipe": {"batch_size": 64}}]
    done = [("A", 0, {}), ("B", 0, {"micro_batch": 32}), ("C", 0, {"micro_batch": 64})]
    assert unpaired_blocks({"cells": cells}, done) == []
    assert pairing_warnings({"cells": cells}, done) == []


def test_blocks_that_were_divided_otherwise_are_named() -> None:
    done = [("A", 0, {"split": "x"}), ("B", 0, {"split": "y"}), ("C", 0, {"split": "x"}), ("A", 1, {"split": "z"})]
    done += [("B", 1, {}), ("C", 1, {"split": "z"})]
    plan = {"cells": [{"name": name} for name in "ABC"]}
    assert split_blocks(done) == [(0, [["A", "C"], ["B"]])]
    (warning,) = pairing_warnings(plan, done)
    assert warning.startswith("seed 0 is not paired")
    assert "other images than those: A, C; B." in warning


def test_memory_has_an_end(tmp_path: Path) -> None:
    events = execute(tmp_path, 2, {"run 0": ["fits 0"] * 9})
    assert told(events, "started").count(("memory", "run 0")) == 5  # 64 to 2
    assert told(events, "started")[-2:] == [("failed", "run 0"), ("done", "run 1")]
    (failed,) = (event.text for event in events if event.kind == "failed")
    assert failed == "out of memory on the device; fewer than 2 images at once are of no use"


def test_runs_in_flight_do_not_halve_twice(tmp_path: Path) -> None:
    assert memory.read_limit(tmp_path) is None
    assert memory.halve(tmp_path, 64, "a") == 32
    assert memory.halve(tmp_path, 64, "b") == 32  # it had started before
    assert memory.halve(tmp_path, 32, "c") == 16
    assert memory.halve(tmp_path, 64, "late") == 16
    assert memory.halve(tmp_path, 3, "d") == 2
    assert memory.halve(tmp_path, 2, "e") is None
    assert memory.read_limit(tmp_path) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"micro_batch": 1}', '{"micro_batch": true}', '{"micro_batch": "9"}'])
def test_a_damaged_limit_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.json").write_text(text)
    with pytest.raises(RunError, match=r"memory\.json: damaged; remove it"):
        memory.read_limit(tmp_path)


# interrupts


def heed_interrupts() -> None:
    """A shell that starts tests in the background has its children ignore SIGINT, from the first to the last."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def running(out: Path, *flags: str, began: int = 1) -> Iterator[subprocess.Popen[str]]:
    """Starts a process on a folder, and waits until so many runs have begun there."""
    command = [sys.executable, "-m", "tests.studies.stub", str(out), *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_interrupts, cwd=ROOT
    )
    try:
        wait_for(lambda: len(stub.journal(out, "began")) >= began)
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize(
    ("name", "whole_group"), [("SIGINT", True), ("SIGINT", False), ("SIGTERM", False), ("SIGHUP", True)]
)
def test_an_interrupt_ends_everything_within_seconds(tmp_path: Path, name: str, whole_group: bool) -> None:
    stub.write_script(tmp_path, {"run 1": ["hang"], "run 2": ["freeze"]})
    with running(tmp_path, "--runs", "3", "--jobs", "2", began=3) as process:
        started = time.monotonic()
        (os.killpg if whole_group else os.kill)(process.pid, getattr(signal, name))
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 130
        assert time.monotonic() - started < 4
        assert not any(alive(pid) for _, pid in stub.journal(tmp_path, "began"))
    assert "done run 0" in out
    assert "failed" not in out
    assert [bool(Store(tmp_path).get(task.id)) for task in stub.make_tasks(tmp_path, 3)] == [True, False, False]
    assert not Store(tmp_path).failures.exists()


def test_what_does_not_end_is_killed_after_five_seconds_or_at_once(tmp_path: Path) -> None:
    patient, impatient = tmp_path / "patient", tmp_path / "impatient"
    for out in (patient, impatient):
        stub.write_script(out, {"run 0": ["stubborn"]})
    with running(patient, "--runs", "1") as one, running(impatient, "--runs", "1") as other:
        for out in (patient, impatient):
            wait_for(lambda out=out: stub.journal(out, "deaf"))
        started = time.monotonic()
        one.send_signal(signal.SIGINT)
        other.send_signal(signal.SIGINT)
        time.sleep(2)
        assert other.poll() is None
        other.send_signal(signal.SIGINT)
        assert other.wait(30) == 130
        assert time.monotonic() - started < 4.5
        assert one.wait(30) == 130
        assert 4.5 < time.monotonic() - started < 12
        assert not any(alive(pid) for out in (patient, impatient) for _, pid in stub.journal(out, "began"))


def test_standing_still_is_not_hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Z stops the engine with its runs, for as long as one likes: each look at the clock is an hour later."""
    hours = count()
    stopping = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * next(hours))
    monkeypatch.setattr(engine, "time", stopping)
    events = execute(tmp_path, 1, {"run 0": ["slow 3"]}, stall_s=60.0)
    assert next(hours) > 4  # it looked as often
    assert told(events, "started") == [("done", "run 0")]


def test_signals_that_are_ignored_or_handled_stay_so() -> None:
    for handler in (signal.SIG_IGN, lambda number, frame: None):
        before = signal.signal(signal.SIGHUP, handler)
        try:
            with _terminating_as_interrupt():
                assert signal.getsignal(signal.SIGHUP) is handler
                assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        finally:
            signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
