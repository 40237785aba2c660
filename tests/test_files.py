from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bagoftricks.errors import UserError
from bagoftricks.files import (
    check_output,
    file_digest,
    is_locked,
    locked,
    publish_folder,
    read_text,
    replacing,
    write_json,
    write_text,
)


def test_write_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "one")
    write_text(path, "zwei ü")
    assert path.read_text(encoding="utf-8") == "zwei ü"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_publish_folder(tmp_path: Path) -> None:
    (tmp_path / "x.partial" / "sub").mkdir(parents=True)
    (tmp_path / "x.partial" / "sub" / "f").write_text("1")
    publish_folder(tmp_path / "x.partial", tmp_path / "x")
    assert (tmp_path / "x" / "sub" / "f").read_text() == "1"
    assert not (tmp_path / "x.partial").exists()


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


def test_lock(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a"
    assert not is_locked(path)
    with locked(path) as first:
        assert first
        assert is_locked(path)
        with locked(path) as second:  # of another descriptor, as in another process
            assert not second
        assert path.exists()
    assert not path.exists()
    assert not is_locked(path)


def test_read_text_names_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="recipe .*none.toml: no such file"):
        read_text(tmp_path / "none.toml", "recipe")
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is no UTF-8 text"):
        read_text(tmp_path / "a.toml", "recipe")


def test_check_output(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "deep", [tmp_path / "data"])
    assert list(tmp_path.iterdir()) == []
    for out in (tmp_path / "data", tmp_path / "data" / "x" / "y", tmp_path / "z" / ".." / "data" / "x"):
        with pytest.raises(UserError, match="lies inside the data folder"):
            check_output(out, [tmp_path / "data"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file"):
        check_output(tmp_path / "file" / "x")
