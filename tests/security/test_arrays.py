"""Predictions that mean harm: pickles, shapes that lie, bombs."""

from __future__ import annotations

import io
import os
import resource
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagoftricks.data.arrays import read_arrays
from bagoftricks.data.untrusted import RefusedError


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Who asks for 2 GiB more than is taken now gets an error, and not the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc").is_dir() else 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + 2**31, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("pwned"),)


def npy(shape: str, content: bytes, kind: str = "<f4", version: bytes = b"\x01\x00") -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(head)) + head + content


def pack(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_what_a_run_keeps(tmp_path: Path, write: Any) -> None:
    made = {
        "logits": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32),
        "labels": np.arange(5),
        "members": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "names": np.frombuffer(b"a\0b", np.uint8),
        "none": np.zeros((0, 3), np.float16),
        "flag": np.array(True),
    }
    write(tmp_path / "p.npz", **made)
    found = read_arrays(tmp_path / "p.npz")
    assert list(found) == list(made)
    for name, array in made.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, strict=True)
        assert found[name].flags.writeable


def test_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "p.npz", logits=np.array([Evil()], dtype=object))
    with pytest.raises(RefusedError, match="array 'logits' holds no numbers"):
        read_arrays(tmp_path / "p.npz")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ("(10**6,)", "<f4", "."),
        ("(1000000, 1000000, 1000000)", "<f4", "not as many bytes"),
        ("(4611686018427387904, 4)", "<f4", "not as many bytes"),
        ("(-4, -1)", "<f4", "not as many bytes"),
        ("(3,)", "<f4", "not as many bytes"),
        ("(0, 9223372036854775807)", "<f4", "not as many bytes"),
        ("(4,)", "<U1", "no numbers"),
        ("(4,)", "|V4", "no numbers"),
        ("(4,)", "<c8", "no numbers"),
        ("(4,)", "|O", "no numbers"),
        ("(4,)", "evil", "."),
        ("__import__('os').system('touch pwned')", "<f4", "."),
        ("(" * 200 + ")" * 200, "<f4", "."),
    ],
)
def test_headers_that_lie(tmp_path: Path, shape: str, kind: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = pack(tmp_path / "p.npz", {"logits.npy": npy(shape, bytes(16), kind)})
    with pytest.raises((ValueError, SyntaxError, MemoryError), match=message):
        read_arrays(path)
    assert not (tmp_path / "pwned").exists()


def test_headers_of_any_length(tmp_path: Path) -> None:
    long = b"\x93NUMPY\x02\x00" + struct.pack("<L", 2**24) + b" " * 2**24
    path = pack(tmp_path / "p.npz", {"logits.npy": long})
    with pytest.raises(ValueError, match="is large|too many for what it is"):
        read_arrays(path)


def test_versions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="version"):
        read_arrays(pack(tmp_path / "p.npz", {"a.npy": npy("(4,)", bytes(16), version=b"\x03\x00")}))


def test_bombs(tmp_path: Path) -> None:
    """Eighty kilobytes that unpack to eighty million."""
    path = pack(tmp_path / "p.npz", {"a.npy": npy("(20000000,)", bytes(80_000_000))})
    assert path.stat().st_size < 100_000
    with pytest.raises(RefusedError, match="unpacks to 80,000,"):
        read_arrays(path)


def test_a_size_that_lies(tmp_path: Path) -> None:
    """The directory says 144 bytes, the content goes on for 20 million."""
    content = npy("(4,)", bytes(16))
    path = pack(tmp_path / "p.npz", {"a.npy": content + bytes(20_000_000)})
    lying = path.read_bytes().replace(
        (len(content) + 20_000_000).to_bytes(4, "little"), len(content).to_bytes(4, "little")
    )
    path.write_bytes(lying)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read_arrays(path)


def test_what_ends_early(tmp_path: Path) -> None:
    content = npy("(400,)", bytes(1600))
    path = pack(tmp_path / "p.npz", {"a.npy": content[:-100]}, zipfile.ZIP_STORED)
    path.write_bytes(
        path.read_bytes().replace((len(content) - 100).to_bytes(4, "little"), len(content).to_bytes(4, "little"))
    )
    with pytest.raises((ValueError, EOFError, zipfile.BadZipFile)):
        read_arrays(path)


def test_many_members(tmp_path: Path) -> None:
    path = pack(tmp_path / "p.npz", {f"{i}.npy": b"" for i in range(1_000)})
    with pytest.raises(RefusedError, match="directory"):
        read_arrays(path)


def test_a_name_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("a.npy", npy("(4,)", bytes(16)))
        archive.writestr("a", npy("(4,)", bytes(16)))
    with pytest.raises(RefusedError, match="twice"):
        read_arrays(tmp_path / "p.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings(tmp_path: Path, method: int) -> None:
    path = pack(tmp_path / "p.npz", {"a.npy": npy("(4,)", bytes(16))}, method)
    with pytest.raises(RefusedError, match="unusual"):
        read_arrays(path)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\5\6", b"PK\3\4" + bytes(100)])
def test_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(zipfile.BadZipFile):
        read_arrays(tmp_path / "p.npz")


def test_links_and_pipes(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    (tmp_path / "real.npz").write_bytes(buffer.getvalue())
    (tmp_path / "p.npz").symlink_to(tmp_path / "real.npz")
    with pytest.raises(RefusedError, match="is a link"):
        read_arrays(tmp_path / "p.npz")
    (tmp_path / "p.npz").unlink()
    os.mkfifo(tmp_path / "p.npz")
    with pytest.raises(RefusedError, match="no plain file"):
        read_arrays(tmp_path / "p.npz")
