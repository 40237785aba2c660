"""What the store, the files and the console do with what somebody else has planted or written."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bagoftricks.cli import main
from bagoftricks.commands.compare import _to_csv
from bagoftricks.console import note, print_table, say
from bagoftricks.errors import RunError, UserError
from bagoftricks.files import is_locked, locked, replacing
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store, read_rows
from bagoftricks.study_folder import read_plan
from bagoftricks.training.checkpoint import NAME, Checkpoints
from tests.security.test_study_folder import ESCAPE, Look

# ------------------------------------------------------------------------------------------------- nothing leads out


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder of the user's, elsewhere."""
    made = tmp_path / "precious"
    (made / "checkpoint").mkdir(parents=True)
    for name in ("mine.txt", "result.json", "checkpoint/mine.txt"):
        (made / name).write_text("kept")
    return made


def whole(folder: Path) -> bool:
    return [path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()] == ["kept"] * 3


@pytest.mark.parametrize("name", ["one.partial", "one", "one.partial/checkpoint", "one.partial/left"])
def test_nothing_is_removed_where_a_link_leads(tmp_path: Path, precious: Path, name: str) -> None:
    """Neither in place of an unfinished run, nor of a finished one, nor of a checkpoint."""
    store = Store(tmp_path / "study")
    (store.runs / name).parent.mkdir(parents=True)
    (store.runs / name).symlink_to(precious)
    with store.claim("one"), store.writing("one") as writer:
        writer.result({"top1": 0.5})
    assert whole(precious)
    assert not (store.runs / "one").is_symlink()
    assert [path.name for path in (store.runs / "one").iterdir()] == ["result.json"]


def test_a_folder_in_an_unfinished_run_is_no_obstacle(tmp_path: Path) -> None:
    store = Store(tmp_path / "study")
    (store.runs / "one.partial" / "left").mkdir(parents=True)
    with store.writing("one") as writer:
        writer.result({"top1": 0.5})
    assert store.get("one")


def test_a_lock_is_not_created_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "one").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="one"), locked(tmp_path / "locks" / "one"):
        pass
    assert not is_locked(tmp_path / "locks" / "one")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_is_a_pipe_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    assert not is_locked(tmp_path / "lock")


def test_nothing_is_written_through_a_planted_name(tmp_path: Path) -> None:
    """Nobody can tell the name beforehand."""
    names = []
    for _ in range(2):
        with replacing(tmp_path / "a.txt") as temporary:
            names.append(temporary.name)
            temporary.write_text("new")
    assert len(set(names)) == 2
    assert all(name.startswith(".a.txt.") and len(name) == len(".a.txt..tmp") + 12 for name in names)
    assert not (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("run_id", ["../../own/kept", "..", "/etc", "a/b", ""])
def test_ids_lead_nowhere(folder: Path, own: Look, run_id: str) -> None:
    """Neither through the plan, nor asked for by themselves."""
    before, store = own(), Store(folder)
    with pytest.raises(ValueError, match="identity"):
        store.get(run_id)
    with pytest.raises(ValueError, match="identity"), store.writing(run_id):
        pass
    plan = json.loads((folder / "plan.json").read_text())
    plan["runs"][0]["id"] = run_id
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(RunError, match="identity"):
        read_plan(folder)
    assert own() == before


# ------------------------------------------------------------------------------------------------------ wrong values


@pytest.mark.parametrize(
    "text",
    ['{"epoch": NaN}', '{"epoch": 1e999}', '{"epoch": "1"}', '{"epoch": [1]}', "[1]", "1", "{", "[" * 100_000,
     '{"epoch": ' + "9" * 5_000 + "}", "\udcff"],
)  # fmt: skip
def test_rows(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f'{{"epoch": 1}}\n{text}\n'.encode(errors="surrogateescape"))
    with pytest.raises(RunError, match="damaged"):
        read_rows(path)
    path.write_bytes(b'{"epoch": 1}\n{"epo')  # it is being written
    assert read_rows(path) == [{"epoch": 1}]


def test_rows_of_a_gigabyte(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    os.truncate(tmp_path / "metrics.jsonl", 2**30)
    with pytest.raises(RunError, match="1,073,741,824 bytes, more than"):
        read_rows(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"top1": NaN}', '{"top1": 1e999}', "\udcff"])
def test_objects(folder: Path, text: str) -> None:
    path = folder / "runs" / "0000-0" / "result.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    run = Store(folder).get("0000-0")
    assert run
    with pytest.raises(RunError, match="damaged"):
        assert run.result


def test_predictions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run = Store(folder).get("0000-0")
    assert run
    assert set(run.predictions()) == {"logits", "labels", "members"}
    path = run.folder / "predictions.npz"
    huge = np.lib.format.header_data_from_array_1_0(np.zeros(1)) | {"shape": (10**9, 10**9)}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, huge)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logits.npy", header.getvalue() + bytes(8))
    with pytest.raises(RunError, match="cannot be read .*not as many bytes"):
        run.predictions()


def test_a_checkpoint_is_no_bomb(tmp_path: Path) -> None:
    """One that is compressed is none of ours: the run starts anew."""
    torch.save({"conditions": {}, "state": torch.zeros(1000)}, tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as plain, zipfile.ZipFile(tmp_path / NAME, "w", 8) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    read: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *a, **k: read.append(a) or {})
        assert Checkpoints(tmp_path, {}).load() is None
    assert read == []


def test_recipes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    for text, message in (
        ("a = " + "[" * 3_000, "nested too deep"),
        ("a" + ".a" * 100_000 + " = 1", "more than 4,000 characters"),
        ("epochs = " + "9" * 3_900, "no valid TOML"),
        ("epochs = 0x" + "f" * 3_900, "whole number"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            Recipe.load(path)
    os.truncate(path, 2**30)
    with pytest.raises(UserError, match=r"larger than 0\.25 MiB"):
        Recipe.load(path)


# ------------------------------------------------------------------------------------------------------ terminals


def test_errors_are_shown_and_not_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.toml"
    path.write_text('design = "\\u001b]0;pwned\\u0007\\u001b[2J"\n')
    assert main(["study", str(path), "--data", "digits", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert r"\x1b]0;pwned\x07\x1b[2J" in error
    assert error.strip().isprintable()


def test_what_is_printed_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a {ESCAPE}")
    note(f"b {ESCAPE}")
    print_table(f"c {ESCAPE}", ("d",), [[f"e {ESCAPE}"]])
    said = capsys.readouterr()
    assert [line for line in (said.out + said.err).splitlines() if not line.isprintable()] == []
    assert (said.out + said.err).count(r"\x1b[2J") == 4


def test_compared_images_are_no_formulas() -> None:
    chances = dict.fromkeys(("first_p", "second_p", "first_p_true", "second_p_true"), 0.5)
    row = {"image": "=HYPERLINK(1)", "member": 1, "true": "+c", "first_guess": "@a", "second_guess": ESCAPE, **chances}
    (_, cells) = list(csv.reader(io.StringIO(_to_csv([row]))))
    assert cells[:4] == ["'=HYPERLINK(1)", "1", "'+c", "'@a"]
    assert all(cell.isprintable() for cell in cells)
