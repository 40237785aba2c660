"""A disk that fails stops a study with one line, costs no finished run, and the same command continues."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bagoftricks.cli import main
from bagoftricks.errors import StorageError
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store
from bagoftricks.studies.design import Study
from bagoftricks.studies.engine import Event, run_all
from bagoftricks.studies.plan import plan_study
from bagoftricks.studies.run import execute_plan
from tests.studies import stub
from tests.studies.test_engine import alive, told

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tmpfs")


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if not shutil.which("mount") or not mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)):
        pytest.skip("mounting is not permitted")
    yield place
    for _ in range(50):
        if subprocess.run(["umount", str(place)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def execute(out: Path, count: int, jobs: int = 1) -> tuple[list[tuple[str, str]], str]:
    """Returns the events, and what stopped it."""
    events: list[Event] = []
    try:
        run_all(stub.make_tasks(out, count), jobs, events.append, trainer=stub.train)
    except StorageError as error:
        return told(events, "started"), str(error)
    return told(events, "started"), ""


def finished(out: Path, count: int) -> dict[str, int]:
    """Returns the finished runs, and what would change if one were done again."""
    runs = {task.name: Store(out).get(task.id) for task in stub.make_tasks(out, count)}
    return {name: (run.folder / "result.json").stat().st_ino for name, run in runs.items() if run}


def test_a_full_disk(disk: Path) -> None:
    out = disk / "study"
    stub.write_script(out, {"*": ["writes 300000"] * 9})
    events, error = execute(out, 6, jobs=2)
    assert error.startswith(f"{out}: no room is left on the disk; make some")
    before = finished(out, 6)
    assert len(before) == 3
    assert {kind for kind, _ in events} == {"done"}
    assert not Store(out).failures.exists()
    assert not any(alive(pid) for _, pid in stub.journal(out, "began"))
    assert execute(out, 6)[1].startswith(f"{out}: no room is left")  # as long as its cause is there
    assert finished(out, 6) == before
    assert mount("-o", "remount,size=10m", str(disk))
    events, error = execute(out, 6)
    assert error == ""
    assert [kind for kind, _ in events].count("done") == 3
    after = finished(out, 6)
    assert len(after) == 6
    assert before.items() <= after.items()


def test_a_folder_that_becomes_read_only(disk: Path) -> None:
    out, told_of = disk / "study", []
    stub.write_script(out, {})

    def remount(event: Event) -> None:
        told_of.append(event.kind)
        if event.kind == "done" and event.task.name == "run 1":  # nothing is open for writing now
            assert mount("-o", "remount,ro", str(disk))

    with pytest.raises(StorageError, match="can no longer be written to; mount it writable"):
        run_all(stub.make_tasks(out, 4), 1, remount, trainer=stub.train)
    assert mount("-o", "remount,rw", str(disk))
    assert "failed" not in told_of
    assert "retrying" not in told_of
    assert list(finished(out, 4)) == ["run 0", "run 1"]
    assert not Store(out).failures.exists()
    assert execute(out, 4) == ([("found", "run 0"), ("found", "run 1"), ("done", "run 2"), ("done", "run 3")], "")


@pytest.mark.parametrize("planned", [False, True])
def test_a_folder_that_is_removed(tmp_path: Path, planned: bool) -> None:
    """While two runs are at work: the study ends within seconds, and reports none of them as failed."""
    out, events = tmp_path / "study", []
    stub.write_script(out, {"run 1": ["slow 60"], "run 2": ["slow 60"]})
    if planned:
        (out / "plan.json").touch()
    pids: list[str] = []

    def remove(event: Event) -> None:
        events.append(event.kind)
        if [event.kind, event.task.name] == ["epoch", "run 2"] and event.row["epoch"] == 1:
            pids.extend(pid for _, pid in stub.journal(out, "began"))
            shutil.rmtree(out, ignore_errors=True)
            if planned:  # as a process at work may do
                (out / "runs").mkdir(parents=True)

    started = time.monotonic()
    with pytest.raises(StorageError, match="the folder has gone; put it back"):
        run_all(stub.make_tasks(out, 3), 2, remove, trainer=stub.train)
    assert time.monotonic() - started < 30
    assert "failed" not in events
    assert pids
    assert not any(alive(pid) for pid in pids)
    stub.write_script(out, {})
    assert [kind for kind, _ in execute(out, 3)[0]] == ["done"] * 3


def test_what_is_finished_is_said(recipe: Recipe, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder cannot even take the plan, or is full at the end."""
    from bagoftricks.studies import run

    study = Study("tiny", recipe, {"mixup.alpha": [0.0, 0.2]})
    plan = plan_study(study, "digits", out=disk / "out")
    blocks = disk / "ballast"
    with pytest.raises(OSError), blocks.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(StorageError, match="no room is left on the disk; .* same command again.*; 0 of 2 runs are"):
        execute_plan(plan, disk / "out")
    blocks.unlink()
    monkeypatch.setattr(run, "portray", lambda *_, **__: (disk / "none").stat())
    with pytest.raises(FileNotFoundError):  # what is missing elsewhere is not taken for the folder
        execute_plan(plan, disk / "out")


@pytest.mark.torture
def test_a_real_study_on_a_full_disk_continues(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trains for real, on a disk with room for some of four models and the checkpoint of one."""
    out = disk / "out"
    assert mount("-o", "remount,size=240m", str(disk))
    small = ["--model.depth", "10", "--model.tweaks", "A", "--input.size", "32", "--epochs", "2"]
    command = [
        "study",
        "quickstart",
        "--out",
        str(out),
        "--split.val-fraction",
        "0.8",
        "--keep",
        "all",
        "--seeds",
        "1",
        *small,
    ]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "no room is left on the disk" in error
    before = {path: path.stat().st_ino for path in Store(out).runs.glob("*/result.json") if ".partial" not in str(path)}
    assert 1 <= len(before) < 4
    assert f"; {len(before)} of 4 runs are finished" in error
    assert mount("-o", "remount,size=2g", str(disk))
    assert main(command) == 0
    assert len(list(Store(out).runs.glob("*/result.json"))) == 4
    assert {path: path.stat().st_ino for path in before} == before
    assert not list(Store(out).failures.glob("*"))
