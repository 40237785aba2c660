from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from bagoftricks.errors import StorageError, UserError
from bagoftricks.files import (
    cache_folder,
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


def test_what_is_renamed_is_on_the_disk_before_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave a name without its content, or neither."""
    told: list[str] = []

    def fsync(handle: int) -> None:
        told.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")

    def rename(self: Path, target: Path) -> Path:
        told.append(f"rename to {target.name}")
        os.replace(self, target)  # noqa: PTH105
        return target

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc, by which a descriptor's file is told")
    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    folder = tmp_path / "top"
    write_text(folder / "a.txt", "1")
    first, *rest = told
    assert first.startswith("sync .a.txt.")
    assert rest == ["rename to a.txt", "sync top"]

    told.clear()
    (folder / "x.partial").mkdir()
    (folder / "x.partial" / "f").write_text("1")
    publish_folder(folder / "x.partial", folder / "x")
    assert told == ["sync f", "sync x.partial", "rename to x", "sync top"]


def test_scratch_goes_only_when_the_rest_is_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial, final = tmp_path / "x.partial", tmp_path / "x"
    for name in ("scratch", "sub"):
        (partial / name).mkdir(parents=True)
        (partial / name / "f").write_text("1")
    with monkeypatch.context() as patch:

        def full(path: Path) -> None:
            raise OSError(errno.ENOSPC, "full")

        patch.setattr("bagoftricks.files._sync", full)
        with pytest.raises(OSError, match="full"):
            publish_folder(partial, final, without="scratch")
    assert (partial / "scratch" / "f").exists()
    assert not final.exists()
    with monkeypatch.context() as patch:

        def killed(self: Path, target: Path) -> Path:
            raise KeyboardInterrupt

        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            publish_folder(partial, final, without="scratch")
    assert (partial / "scratch" / "f").exists()
    publish_folder(partial, final, without="scratch")
    assert [path.name for path in final.iterdir()] == ["sub"]


def test_a_drive_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match=f"{tmp_path}: its drive has no file locks"), locked(tmp_path / "a"):
        pass


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"BAGOFTRICKS_CACHE": "/c/own", "XDG_CACHE_HOME": "/c/xdg"}, "/c/own"),
        ({"BAGOFTRICKS_CACHE": "~/own"}, "/home/me/own"),
        ({"XDG_CACHE_HOME": "/c/xdg"}, "/c/xdg/bagoftricks"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/bagoftricks"),
        ({}, "/home/me/.cache/bagoftricks"),
    ],
)
def test_the_users_cache_is_where_the_system_has_it(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("BAGOFTRICKS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


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
