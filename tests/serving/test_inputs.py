"""Images are found where paths say, and read ahead of who needs them, within bounds."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bagoftricks.data.reading import BadImageError
from bagoftricks.errors import UserError
from bagoftricks.serving.inputs import find_images, listed_images, read_ahead

PIXEL = np.zeros((1, 1, 3), dtype=np.uint8)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files that are images by their names."""
    for name in (
        "b/2.JPG",
        "b/1.png",
        "a.jpg",
        "b/deep/er/3.webp",
        "notes.txt",
        ".hidden.jpg",
        ".git/4.jpg",
        "[x].jpg",
    ):
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*paths: str) -> list[str]:
    return [path.as_posix() for path in find_images(paths)]


def test_folders_are_searched_to_the_bottom(tree: Path) -> None:
    assert found("top") == ["top/[x].jpg", "top/a.jpg", "top/b/1.png", "top/b/2.JPG", "top/b/deep/er/3.webp"]
    assert found(str(tree / "top" / "b")) == [f"{tree}/top/b/{name}" for name in ("1.png", "2.JPG", "deep/er/3.webp")]


def test_what_is_named_is_taken_once_and_in_order(tree: Path) -> None:
    assert found("top/notes.txt", "top/b/2.JPG", "top/b", "top/b/2.JPG") == [
        "top/notes.txt", "top/b/2.JPG", "top/b/1.png", "top/b/deep/er/3.webp",
    ]  # fmt: skip


def test_patterns(tree: Path) -> None:
    assert found("top/*.jpg") == ["top/[x].jpg", "top/a.jpg"]
    assert found("top/?") == ["top/b/1.png", "top/b/2.JPG", "top/b/deep/er/3.webp"]
    assert found("top/**/*.png") == ["top/b/1.png"]
    assert set(found("top/**")) == set(found("top"))
    assert found("top/[x].jpg") == ["top/[x].jpg"]  # a file of that name goes before a pattern
    assert found("top/[ab].jpg") == ["top/a.jpg"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("", "the name of a file or folder is empty"),
        ("empty", r"empty: no images in it \(\.bmp"),
        ("top/*.gif", r"top/\*\.gif: matches nothing"),
        ("top/*.txt", r"top/\*\.txt: matches no images"),
        ("a\nb", r"a\\nb: no such file"),
    ],
)
def test_what_names_no_image_is_refused(tree: Path, path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_images(["top", path])


def test_a_name_may_begin_with_a_tilde(tree: Path) -> None:
    """As an office's lock files do; it is no user's home."""
    (tree / "~$scan.jpg").write_bytes((tree / "top" / "a.jpg").read_bytes())
    assert found("~$scan.jpg") == ["~$scan.jpg"]
    assert found("~*.jpg") == ["~$scan.jpg"]
    with pytest.raises(UserError, match=r"~nobody/here\.jpg: no such file"):
        find_images(["~nobody/here.jpg"])


def test_links_to_folders_are_not_followed_into_a_circle(tree: Path) -> None:
    (tree / "top" / "b" / "up").symlink_to(tree / "top")
    assert len(found("top")) == 5
    (tree / "link").symlink_to(tree / "top" / "b")
    assert found("link") == ["link/1.png", "link/2.JPG", "link/deep/er/3.webp"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions bind no administrator")
def test_a_folder_that_cannot_be_read_is_named(tree: Path) -> None:
    (tree / "top" / "b").chmod(0)
    try:
        with pytest.raises(UserError, match="top/b: cannot be read"):
            find_images(["top"])
    finally:
        (tree / "top" / "b").chmod(0o755)


def test_lists_of_names(tree: Path) -> None:
    text = b"top/a.jpg\r\n\ngone.jpg\ntop/b\ntop/a.jpg"
    names = ["top/a.jpg", "gone.jpg", "top/b/1.png", "top/b/2.JPG", "top/b/deep/er/3.webp"]
    assert [path.as_posix() for path in listed_images(text)] == names
    assert listed_images(b"two\nlines.jpg\0caf\xe9.jpg\0", nul=True) == [
        Path("two\nlines.jpg"), Path(os.fsdecode(b"caf\xe9.jpg")),
    ]  # fmt: skip
    assert listed_images(b"bad\0name") == [Path("bad\0name")]
    assert listed_images(b"") == []


def test_results_come_in_order_with_errors_in_their_place() -> None:
    def read(i: int) -> np.ndarray:
        time.sleep(0.002 * (i % 3))
        if i % 4 == 0:
            raise BadImageError(str(i), "odd")
        return np.full((1, 1, 3), i, dtype=np.uint8)

    out = list(read_ahead(range(40), read, workers=4, most=9))
    assert [str(one).partition(":")[0] if isinstance(one, BadImageError) else int(one[0, 0, 0]) for one in out] == [
        str(i) if i % 4 == 0 else i for i in range(40)
    ]


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (2, 6)])
def test_it_reads_ahead_and_no_further(workers: int, most: int) -> None:
    lock, started, taken = threading.Lock(), 0, 0

    def read(i: int) -> np.ndarray:
        nonlocal started
        with lock:
            started += 1
        return PIXEL

    for _ in read_ahead(range(50), read, workers=workers, most=most):
        taken += 1
        deadline = time.monotonic() + 5
        while started < min(50, taken + most - 1) and time.monotonic() < deadline:  # while the caller is at work
            time.sleep(0.001)
        assert min(50, taken + most - 1) <= started <= taken + most
    assert taken == started == 50


def test_other_errors_are_raised_and_threads_end() -> None:
    def items() -> Iterator[int]:
        yield from range(1000)

    def read(i: int) -> np.ndarray:
        if i == 3:
            raise UserError("no image")
        return PIXEL

    with pytest.raises(UserError, match="no image"):
        list(read_ahead(items(), read, workers=2, most=8))
    left = read_ahead(items(), read, workers=2, most=2)
    next(left)
    left.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_a_link_that_leads_back_is_no_depth(tree: Path) -> None:
    (tree / "top" / "b" / "up").symlink_to("..")
    assert found("top/**/*.jpg") == ["top/[x].jpg", "top/a.jpg"]
    assert found("top/**") == ["top/[x].jpg", "top/a.jpg", "top/b/1.png", "top/b/2.JPG", "top/b/deep/er/3.webp"]
    assert found("top/.git/**/*.jpg") == ["top/.git/4.jpg"]


def test_a_bad_image_keeps_nothing_alive(tmp_path: Path) -> None:
    """Its traceback would hold what was read, and half decoded, of every one of them."""

    def read(item: int) -> np.ndarray:
        held = np.zeros(10)
        raise BadImageError(f"{item}.jpg", f"damaged {len(held)}", True)

    (error,) = read_ahead([1], read, workers=1, most=1)
    assert isinstance(error, BadImageError)
    assert (str(error), error.passing) == ("1.jpg: cannot be decoded (damaged 10)", True)
    assert error.__traceback__ is error.__cause__ is error.__context__ is None
