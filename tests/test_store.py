from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bagoftricks.errors import RunError, StorageError, UserError
from bagoftricks.files import write_json
from bagoftricks.store import Store, pack_names, unpack_names
from bagoftricks.study_folder import read_mistakes, read_plan


def fill(store: Store, run_id: str) -> None:
    with store.writing(run_id) as writer:
        writer.recipe("epochs = 1\n")
        writer.environment({"threads": 1})
        writer.epoch({"epoch": 1, "eval_top1": 0.5})
        writer.predictions(logits=np.eye(3, dtype=np.float32), labels=np.arange(3), members=np.array([4, 5, 9]))
        writer.result({"top1": 0.5})


def test_a_run_appears_complete(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get("a") is None
    fill(store, "a")
    run = store.get("a")
    assert run is not None
    assert run.result == {"top1": 0.5}
    assert run.history == [{"epoch": 1, "eval_top1": 0.5}]
    assert run.environment == {"threads": 1}
    assert run.predictions()["members"].tolist() == [4, 5, 9]
    assert [p.name for p in store.runs.iterdir()] == ["a"]


def test_a_full_disk_at_the_end_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(StorageError, match="no room is left"), store.writing("a") as writer:
        writer.checkpoint.mkdir()
        (writer.checkpoint / "state").write_text("epoch 9")
        writer.result({"top1": 0.5})
        monkeypatch.setattr("bagoftricks.files._sync", full)
    monkeypatch.undo()
    assert store.get("a") is None
    with store.writing("a") as writer:
        assert (writer.checkpoint / "state").read_text() == "epoch 9"
        writer.result({"top1": 0.5})
    assert [path.name for path in (store.runs / "a").iterdir()] == ["result.json"]


def test_a_claim_has_a_network_drive_look_again(tmp_path: Path) -> None:
    """Its client believes that a name is not there until the folder changes; nothing of that stays."""
    store = Store(tmp_path)
    store.runs.mkdir()
    os.utime(store.runs, ns=(0, 0))
    with store.claim("a"):
        assert store.runs.stat().st_mtime_ns > 0
        assert list(store.runs.iterdir()) == []


NAMES = ["cat/1 a.jpg", "dog/\u00e4\U0001f600.jpg", "owl/\udcff\udc80.jpg"]
"""The last one has bytes that are no UTF-8."""


def test_names_of_images_survive(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert unpack_names(pack_names(NAMES)) == NAMES
    assert pack_names(NAMES).dtype == np.uint8
    members = np.array([4, 5, 9])
    with store.writing("new") as writer:
        writer.predictions(logits=np.eye(3), labels=np.arange(3), members=members, names=pack_names(NAMES))
        writer.result({})
    fill(store, "old")
    new, old = store.get("new"), store.get("old")
    assert new is not None
    assert old is not None
    assert new.names() == NAMES
    assert old.names() is None
    assert set(new.predictions()) == set(old.predictions()) == {"logits", "labels", "members"}


@pytest.mark.parametrize("damage", [b"", b"PK rubbish", None])
def test_damaged_predictions_are_named(tmp_path: Path, damage: bytes | None) -> None:
    store = Store(tmp_path)
    fill(store, "a")
    path = store.runs / "a" / "predictions.npz"
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    run = store.get("a")
    assert run is not None
    for read in (run.predictions, run.names):
        with pytest.raises(RunError, match=r"predictions\.npz: cannot be read"):
            read()
    path.unlink()
    with pytest.raises(RunError, match=r"predictions\.npz: cannot be read"):
        run.predictions()


def test_mistakes_are_read_where_they_were_kept(tmp_path: Path) -> None:
    assert read_mistakes(tmp_path) is None
    write_json(Store(tmp_path).mistakes, {"cell": "A", "mistakes": []})
    assert read_mistakes(tmp_path) == {"cell": "A", "mistakes": []}


def test_a_run_that_dies_does_not_appear_and_can_be_done_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ZeroDivisionError), store.writing("a") as writer:
        writer.epoch({"epoch": 1})
        raise ZeroDivisionError
    assert store.get("a") is None
    assert store.progress("a") is None
    fill(store, "a")
    run = store.get("a")
    assert run is not None
    assert len(run.history) == 1


def test_two_processes_cannot_share_a_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claim("a"), store.writing("a") as writer:
        writer.epoch({"epoch": 1})
        assert store.progress("a") == [{"epoch": 1}]
        code = f"import pathlib, bagoftricks.store as s\nwith s.Store(pathlib.Path({str(tmp_path)!r})).claim('a'): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "BusyError: run a: another process is training it" in other.stderr
        writer.result({})
    assert store.progress("a") is None
    assert list(store.locks.iterdir()) == []
    with store.claim("a"):
        pass


def test_a_claim_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        f"import os, pathlib, bagoftricks.store as s\nclaim = s.Store(pathlib.Path({str(tmp_path)!r})).claim('a')\n"
        "claim.__enter__()\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -9
    store = Store(tmp_path)
    assert (store.locks / "a").exists()
    assert store.progress("a") is None
    with store.claim("a"):
        pass


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_damage_is_named(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    fill(store, "a")
    (store.runs / "a" / "result.json").write_text(text, encoding="latin-1")
    run = store.get("a")
    assert run is not None
    with pytest.raises(RunError, match=r"result\.json: damaged"):
        run.result  # noqa: B018


def test_success_clears_a_failure(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.record_failure("a", "cell seed 0", "it broke")
    assert store.failure("a") == "it broke"
    fill(store, "a")
    assert store.failure("a") is None


def test_a_line_being_written_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, "a")
    path = store.runs / "a" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 2, "ev')
    run = store.get("a")
    assert run is not None
    assert len(run.history) == 1


def test_plan_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is it the folder given as --out"):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(UserError, match=r"plan\.json: damaged, lacks cells"):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(UserError, match="later version"):
        read_plan(tmp_path)
