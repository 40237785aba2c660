from __future__ import annotations

from pathlib import Path

import pytest

from bagoftricks.data.manifest import read_manifest
from bagoftricks.data.sources import open_data
from bagoftricks.errors import UserError
from bagoftricks.files import check_output


@pytest.fixture
def flat(photos: Path, tmp_path: Path) -> Path:
    """Thirty images in one folder, `cat-00.jpg` and so on, beside which a manifest can lie."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for path in photos.rglob("*.jpg"):
        path.rename(folder / f"{path.parent.name}-{path.name}")
    return folder


def write(folder: Path, header: str, rows: list[str], name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def listed(folder: Path) -> list[tuple[str, str]]:
    return [(p.name, p.name.partition("-")[0]) for p in sorted(folder.glob("*.jpg"))]


def test_paths_and_labels(flat: Path) -> None:
    path = write(flat, "path,label", [f"{name},{label}" for name, label in listed(flat)])
    index = open_data(str(path))
    assert (index.name, index.classes, len(index)) == ("list", ("cat", "dog", "owl"), 30)
    assert index.given is None
    assert index.groups is None
    assert index.names[10] == "dog-00.jpg"
    assert index.read(10).shape[2] == 3


def test_header_in_any_order_and_case_with_more_columns_and_a_byte_order_mark(flat: Path) -> None:
    rows = [f"x,{label}, {name} ,3" for name, label in listed(flat)]
    path = write(flat, "\ufeffNote,Label,PATH,Age", rows)
    assert len(read_manifest(path)) == 30


def test_tabs_quotes_absolute_paths_and_blank_lines(flat: Path) -> None:
    rows = [f'"{flat / name}"\t{label}\n' for name, label in listed(flat)]
    index = read_manifest(write(flat, "path\tlabel", rows, "list.tsv"))
    assert len(index) == 30
    assert index.read(0).ndim == 3


def test_splits_and_groups(flat: Path) -> None:
    sides = ("train", "Val", "validation", "test", "train")
    rows = [f"{name},{label},{sides[i % 5]},p{i}" for i, (name, label) in enumerate(listed(flat))]
    index = read_manifest(write(flat, "path,label,split,group", rows))
    assert index.given is not None
    assert [index.given.count(side) for side in ("train", "val", "test")] == [12, 12, 6]
    assert index.groups is not None
    assert index.describe()["groups"] == 30


def test_groups_change_the_identity(flat: Path) -> None:
    plain = read_manifest(write(flat, "path,label", [f"{n},{k}" for n, k in listed(flat)]))
    rows = [f"{n},{k},g{i // 3}" for i, (n, k) in enumerate(listed(flat))]
    grouped = read_manifest(write(flat, "path,label,group", rows))
    assert plain.fingerprint != grouped.fingerprint


@pytest.mark.parametrize(
    ("header", "change", "message"),
    [
        ("path,class", lambda i, r: r, "no column 'label' in its first line (found: path, class)"),
        ("path,label", lambda i, r: "none.jpg,cat" if i == 4 else r, "line 6: 'none.jpg' is no file"),
        ("path,label", lambda i, r: "cat-00.jpg,cat" if i == 4 else r, "line 6: 'cat-00.jpg' stands in line 2 already"),
        (
            "path,label",
            lambda i, r: "x/../cat-00.jpg,cat" if i == 4 else r,
            "line 6: 'x/../cat-00.jpg' stands in line 2",
        ),
        ("path,label", lambda i, r: r.partition(",")[0] + "," if i == 4 else r, "line 6: no label"),
        ("path,label", lambda i, r: r.partition(",")[0] if i == 4 else r, "line 6: 1 cells for 2 columns"),
        ("path,label", lambda i, r: r + ", small" if i == 4 else r, "line 6: 3 cells for 2 columns"),
        ("path,label", lambda i, r: r.partition(",")[0] + ",cat", "one class only ('cat')"),
        ("path,label,split", lambda i, r: r + ",dev", "line 2: split 'dev' must be train, val, test or empty"),
        ("path,label,split", lambda i, r: r + ("," if i else ",val"), "some images are in train or val and others in"),
        ("path,label,group", lambda i, r: r + ",", "line 2: no group"),
        (
            "path,label,group",
            lambda i, r: r + "," + r.partition(",")[2],
            "class 'cat' lies within one group ('cat')",
        ),
        (
            "path,label,split,group",
            lambda i, r: f"{r},{'train' if i % 2 else 'val'},{i // 2}",
            "group '0' is on two sides (train, val)",
        ),
    ],
)
def test_errors_name_the_line(flat: Path, header: str, change, message: str) -> None:  # type: ignore[no-untyped-def]
    rows = [change(i, f"{name},{label}") for i, (name, label) in enumerate(listed(flat))]
    with pytest.raises(UserError) as error:
        read_manifest(write(flat, header, rows))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_empty_missing_and_binary(flat: Path) -> None:
    with pytest.raises(UserError, match="lists no images"):
        read_manifest(write(flat, "path,label", []))
    with pytest.raises(UserError, match="no column 'path'"):
        read_manifest(write(flat, "", []))
    with pytest.raises(UserError, match="no such file"):
        read_manifest(flat / "none.csv")
    (flat / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no UTF-8 text"):
        read_manifest(flat / "binary.csv")


def test_only_the_folders_of_images_are_guarded(photos: Path, tmp_path: Path) -> None:
    """A manifest may lie where the user works: a study can then lie beside it."""
    rows = [f"{p.relative_to(tmp_path)},{p.parent.name}" for p in sorted(photos.rglob("*.jpg"))]
    index = read_manifest(write(tmp_path, "path,label", rows))
    assert index.folders == tuple(photos.resolve() / name for name in ("cat", "dog", "owl"))
    check_output(tmp_path / "study", index.folders)
    with pytest.raises(UserError, match="lies inside the data folder"):
        check_output(photos / "dog" / "study", index.folders)
