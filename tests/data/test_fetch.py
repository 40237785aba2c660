"""Caltech-101 in small, from a server in a thread; its layout is the official archive's."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bagoftricks.data import download as download_module
from bagoftricks.data import fetch
from bagoftricks.data.caltech101 import CATEGORIES_FOLDER
from bagoftricks.data.fetch import count_images, fetch_caltech101
from bagoftricks.errors import RunError, UserError
from bagoftricks.files import locked
from tests.data.test_download import Site

COUNTS = {"categories": 3, "images": 6}
CLASSES = ("BACKGROUND_Google", "ant", "wild_cat")


def make_archive(images: int = 2, inner: str = fetch.INNER, top: str = CATEGORIES_FOLDER, extra: str = "") -> bytes:
    """The zip of CaltechDATA: a tar.gz of the images, annotations, and what a Mac adds."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        names = [f"{top}/{name}/image_{i:04d}.jpg" for name in CLASSES for i in range(images)]
        for name in [
            *names,
            f"{top}/BACKGROUND_Google/tmp",
            f"{top}/ant/._image_0001.jpg",
            *([extra] if extra else []),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("caltech-101/", b"")
        archive.writestr(inner, packed.getvalue())
        archive.writestr("caltech-101/Annotations.tar", b"not needed")
        archive.writestr("caltech-101/show_annotation.m", b"not needed")
        archive.writestr("__MACOSX/caltech-101/._show_annotation.m", b"not needed")
    return whole.getvalue()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download_module, "BACKOFF_S", 0.0)
    with Site(content=make_archive()) as running:
        yield running


def get(site: Site, folder: Path, **options: Any) -> Path:
    md5 = hashlib.md5(site.content).hexdigest()
    return fetch_caltech101(folder, **{"url": site.url, "md5": md5, **COUNTS, **options})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetch(site: Site, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    named: list[str] = []
    folder = tmp_path / "deep" / "data"
    found = get(
        site, folder, on_bytes=lambda *now: told.append(now), on_file=lambda _, name: named.append(name)
    )  # fmt: skip
    assert found == folder / CATEGORIES_FOLDER
    assert names_in(found) == sorted(CLASSES)
    assert (found / "ant" / "image_0001.jpg").read_text() == f"{CATEGORIES_FOLDER}/ant/image_0001.jpg"
    assert count_images(found) == (3, 6)
    assert told[-1] == (len(site.content), len(site.content))
    assert len(named) == 8
    assert names_in(folder) == [CATEGORIES_FOLDER]


def test_a_second_call_needs_no_network(site: Site, tmp_path: Path) -> None:
    found = get(site, tmp_path)
    for folder in (tmp_path, found):  # the folder that holds it, and the folder itself
        assert get(site, folder) == found
    assert len(site.seen) == 1


def test_the_archive_may_be_kept(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path, keep_archive=True)
    assert names_in(tmp_path) == [CATEGORIES_FOLDER, fetch.ARCHIVE]
    assert (tmp_path / fetch.ARCHIVE).read_bytes() == site.content


def test_an_archive_put_there_by_hand_is_used(site: Site, tmp_path: Path) -> None:
    (tmp_path / fetch.ARCHIVE).write_bytes(site.content)
    get(site, tmp_path)
    assert site.seen == []
    assert (tmp_path / fetch.ARCHIVE).exists()  # and is not ours to remove


def test_a_broken_transfer_goes_on(site: Site, tmp_path: Path) -> None:
    half = len(site.content) // 2
    site.breaks = [half]
    get(site, tmp_path)
    assert site.asked == [None, f"bytes={half}-"]
    assert site.sent == len(site.content)


def test_incomplete_is_reported_and_kept(site: Site, tmp_path: Path) -> None:
    mine = tmp_path / CATEGORIES_FOLDER / "ant" / "image_0001.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match="holds 1 categories and 1 images instead of 3 and 6; move it away") as caught:
        get(site, tmp_path)
    assert str(tmp_path / CATEGORIES_FOLDER) in str(caught.value)
    assert site.seen == []
    assert mine.read_text() == "mine"


def test_an_emptied_image_is_noticed(site: Site, tmp_path: Path) -> None:
    found = get(site, tmp_path)
    (found / "ant" / "image_0001.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="3 categories and 5 images"):
        get(site, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (make_archive(images=1), "3 categories and 3 images instead of 3 and 6; it is not the official"),
        (make_archive(inner="images.tar.gz"), "no caltech-101/101_ObjectCategories.tar.gz in it"),
        (make_archive(top="images"), "no folder 101_ObjectCategories"),
        (make_archive(extra="../../evil"), "leaves the folder"),
        (b"<html>", "cannot be unpacked"),
    ],
)
def test_an_archive_that_is_something_else(site: Site, tmp_path: Path, content: bytes, message: str) -> None:
    site.content = content
    with pytest.raises(RunError, match=message):
        get(site, tmp_path / "data")
    assert names_in(tmp_path / "data") == [fetch.ARCHIVE]
    assert names_in(tmp_path) == ["data"]


def test_corrupt_archive(site: Site, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="md5 is .*, expected 0123"):
        get(site, tmp_path, md5="0123")
    assert names_in(tmp_path) == []


def test_interrupted_while_unpacking(site: Site, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(site, tmp_path, on_file=interrupt)
    assert names_in(tmp_path) == [fetch.ARCHIVE]
    get(site, tmp_path)
    assert len(site.seen) == 1


def test_what_a_killed_process_left_is_cleared(site: Site, tmp_path: Path) -> None:
    left = tmp_path / f".{CATEGORIES_FOLDER}.partial" / "inner" / "junk"
    left.mkdir(parents=True)
    found = get(site, tmp_path)
    assert names_in(tmp_path) == [CATEGORIES_FOLDER]
    assert count_images(found) == (3, 6)


def test_places_that_cannot_be(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        get(site, tmp_path / "file")
    (tmp_path / CATEGORIES_FOLDER).write_text("")
    with pytest.raises(UserError, match="is a file"):
        get(site, tmp_path)
    assert site.seen == []


def test_two_processes(site: Site, tmp_path: Path) -> None:
    with locked(tmp_path / f".{fetch.ARCHIVE}.lock") as taken:
        assert taken
        with pytest.raises(RunError, match="another process"):
            get(site, tmp_path)


def test_the_real_one_is_complete(shared: Path) -> None:
    folder = shared / "data" / "caltech-101"
    assert fetch_caltech101(folder, url="https://invalid.invalid/") == folder / CATEGORIES_FOLDER
