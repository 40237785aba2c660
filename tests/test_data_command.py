from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bagoftricks import cli


@pytest.fixture(autouse=True)
def only_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "COMMANDS", ("data",))


def test_a_check_on_the_terminal(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    (photos / "cat" / "00.jpg").write_bytes(b"")
    before = sorted(photos.parent.rglob("*"))
    assert cli.main(["data", "check", str(photos)]) == 0
    out, error = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "photos: 30 images in 3 classes"
    assert lines[1].startswith("1. 1 image cannot be decoded and is left out: cat/00.jpg (")
    assert "Classes (3)" in out
    assert "Written" not in out
    assert error == ""
    assert sorted(photos.parent.rglob("*")) == before


def test_a_check_as_json_with_files(capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli.main(["data", "check", str(photos), "--json", "--out", str(out), "--grid", "cat", "owl"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["classes"], found["undecodable"]) == (30, 3, 0)
    assert {Path(path).name for path in found["written"]} == {
        "check.json", "balance.svg", "samples.jpg", "samples-cat.jpg", "samples-owl.jpg",
    }  # fmt: skip
    assert all(Path(path).stat().st_size > 500 for path in found["written"])
    assert cli.main(["data", "check", "digits"]) == 0
    assert "digits: 1,797 images in 10 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "COMMAND"),
        (("chek",), "invalid choice: 'chek'"),
        (("check",), "DIR"),
        (("check", "nowhere"), "data folder nowhere: no such folder"),
        (("check", "empty"), "has no class folders"),
        (("check", "photos", "--grid", "cat"), "pass --out"),
        (("check", "photos", "--out", "o", "--grid", "cta"), "unknown class 'cta': did you mean 'cat'?"),
        (("check", "photos", "--out", "photos/check"), "lies inside the data folder"),
        (("check", "photos", "--jsn"), "unknown flag '--jsn': did you mean '--json'?"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    photos: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
    before = sorted(photos.parent.rglob("*"))
    assert cli.main(["data", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert message in error
    assert error.count("\n") == 1
    assert sorted(photos.parent.rglob("*")) == before


@pytest.mark.parametrize("keep", [False, True])
def test_what_is_fetched_is_told(
    keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Path, bool]] = []

    def fetch(folder: Path, **options: Any) -> Path:
        options["on_bytes"](5, 10)
        options["on_file"](1, 2)
        asked.append((folder, options["keep_archive"]))
        return folder / "101_ObjectCategories"

    monkeypatch.setattr("bagoftricks.data.fetch.fetch_caltech101", fetch)
    command = ["data", "fetch", "caltech-101", str(tmp_path), *(["--keep-archive"] if keep else [])]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == f"Caltech-101 is in {tmp_path / '101_ObjectCategories'}\n"
    assert cli.main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"name": "caltech-101", "folder": str(tmp_path / "101_ObjectCategories")}
    assert asked == [(tmp_path, keep)] * 2


def test_a_sound_folder_is_said_to_be_sound(
    capsys: pytest.CaptureFixture[str], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bagoftricks.data.check.sentences", lambda facts: ())
    assert cli.main(["data", "check", str(photos)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "Nothing is wrong with it that this check knows."
