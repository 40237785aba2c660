"""The worst mistakes: chosen as a loop would, small, upright, without what is locked or broken."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bagoftricks.data.folder import read_folder
from bagoftricks.data.index import ImageIndex
from bagoftricks.files import write_json
from bagoftricks.store import Store, pack_names
from bagoftricks.studies.best import HeldOut, best_cell, candidates, common_seeds, metric_of, read_held_out
from bagoftricks.studies.design import Study
from bagoftricks.studies.mistakes import MOST_MISTAKES, thumbnail, write_mistakes, wrong_images
from bagoftricks.studies.plan import plan_study
from bagoftricks.studies.portrait import picture_mistakes
from bagoftricks.studies.run import execute_plan
from bagoftricks.study_folder import read_mistakes
from bagoftricks.training.calibration import softmax
from tests.conftest import make_photos


def held_out(index: ImageIndex, seed: int, members: list[int], *, named: bool = True) -> HeldOut:
    """A run with logits at random, most of them wrong."""
    rng = np.random.default_rng(seed)
    member_N = np.array(members)
    logits = rng.normal(0, 3, (len(members), index.num_classes)).astype(np.float32)
    names = tuple(index.names[i] for i in members) if named else None
    return HeldOut(seed, logits, index.labels[member_N], member_N, names)


def keep(root: Path, runs: dict[str, list[HeldOut]], top1: dict[str, float]) -> Store:
    """Writes a study folder with these runs of these cells."""
    store, rows = Store(root), []
    for cell, held in runs.items():
        for run in held:
            run_id = f"{cell}-{run.seed}"
            rows.append({"id": run_id, "cell": cell, "seed": run.seed})
            with store.writing(run_id) as writer:
                names = {"names": pack_names(run.names)} if run.names else {}
                writer.predictions(logits=run.logits_NK, labels=run.label_N, members=run.member_N, **names)
                writer.result({"top1": top1[cell] + 0.001 * run.seed})
    plan: dict[str, Any] = {"study": {"metric": "top1"}, "data": {}, "hardware": {}, "cells": [], "runs": rows}
    write_json(store.plan, plan)
    return store


@pytest.mark.parametrize("named", [True, False])
def test_mistakes_are_those_of_a_loop(photos: Path, named: bool) -> None:
    index = read_folder(photos)
    runs = [held_out(index, seed, list(range(seed, 30, 2 + seed)), named=named) for seed in range(3)]
    wrong, images = wrong_images(runs)
    expected = {}
    for i in range(30):
        held = [(run, run.member_N.tolist().index(i)) for run in runs if i in run.member_N]
        if not held:
            continue
        p = [softmax(run.logits_NK)[row] for run, row in held]
        guess = int(np.mean(p, axis=0).argmax())
        if guess != index.labels[i]:
            errs = sum(int(one.argmax() != index.labels[i]) for one in p)
            expected[i] = (guess, pytest.approx(np.mean(p, axis=0)[guess], abs=1e-5), errs, len(held))
    found = {int(runs[w.run].member_N[w.row]): (w.guess, w.probability, w.wrong, w.of) for w in wrong}
    assert found == expected
    assert images == len({i for run in runs for i in run.member_N.tolist()})
    assert [w.probability for w in wrong] == sorted((w.probability for w in wrong), reverse=True)
    assert any(of > errs for _, _, errs, of in found.values())


def test_an_image_is_known_by_its_name(photos: Path) -> None:
    """An index may move when test images join the data; the name stays."""
    index = read_folder(photos)
    first, second = held_out(index, 0, [0, 1, 2]), held_out(index, 1, [0, 1, 2])
    moved = replace(second, member_N=np.array([10, 11, 12]))
    assert wrong_images([first, moved]) == wrong_images([first, second])
    assert wrong_images([replace(first, names=None), moved])[1] == 6


def test_pictures_are_few_small_and_of_the_best_cell(photos: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "many", each=40)
    index = read_folder(tmp_path / "many")
    every = list(range(120))
    runs = {"worse": [held_out(index, 0, every)], "better": [held_out(index, 1, every), held_out(index, 2, every)]}
    store = keep(tmp_path / "out", runs, {"worse": 0.3, "better": 0.4})
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "many").rglob("*"))
    write_mistakes(store, index)
    kept = read_mistakes(tmp_path / "out")
    assert kept is not None
    assert (kept["cell"], kept["runs"], kept["images"]) == ("better", 2, 120)
    wrong, _ = wrong_images(runs["better"])
    assert len(kept["mistakes"]) == MOST_MISTAKES < len(wrong) == kept["wrong"]
    for one, expected in zip(kept["mistakes"], wrong, strict=False):
        assert one["name"] == index.names[expected.row]
        assert (one["true"], one["guessed"]) == (index.classes[expected.label], index.classes[expected.guess])
        with Image.open(io.BytesIO(base64.b64decode(one["jpeg"]))) as image:
            assert image.format == "JPEG"
            assert max(image.size) <= 160
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "many").rglob("*")) == before


def test_what_is_broken_gone_or_locked_is_passed_over(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", each=4)
    index = read_folder(photos)
    store = keep(tmp_path / "out", {"a": [held_out(index, 0, list(range(12)))]}, {"a": 0.5})
    write_mistakes(store, index)
    names = [one["name"] for one in read_mistakes(tmp_path / "out")["mistakes"]]  # type: ignore[index]
    assert len(names) >= 4
    (photos / names[0]).write_bytes(b"rubbish")
    gone = index.names.index(names[1])
    locked = tuple("test" if name == names[2] else "pool" for name in index.names)
    changed = replace(index, names=(*index.names[:gone], "new.jpg", *index.names[gone + 1 :]), given=locked)
    write_mistakes(store, changed)
    assert [one["name"] for one in read_mistakes(tmp_path / "out")["mistakes"]] == names[3:]  # type: ignore[index]


def test_thumbnails_are_upright_and_small(tmp_path: Path) -> None:
    root = make_photos(tmp_path / "photos", each=2)
    sideways = Image.new("RGB", (300, 90), "red")
    exif = sideways.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    sideways.save(root / "cat" / "00.jpg", exif=exif)
    index = read_folder(root)
    store = keep(tmp_path / "out", {"a": [_wrong(index, 0)]}, {"a": 0.5})
    write_mistakes(store, index)
    (one,) = read_mistakes(tmp_path / "out")["mistakes"]  # type: ignore[index]
    assert one["name"] == "cat/00.jpg"
    with Image.open(io.BytesIO(base64.b64decode(one["jpeg"]))) as image:
        assert image.size == (48, 160)
        assert not image.getexif()
    with Image.open(io.BytesIO(thumbnail(np.zeros((8, 6, 3), dtype=np.uint8)))) as image:
        assert image.size == (120, 160)
    with Image.open(io.BytesIO(thumbnail(np.zeros((1000, 4, 3), dtype=np.uint8)))) as image:
        assert image.size == (1, 160)


def _wrong(index: ImageIndex, i: int) -> HeldOut:
    """A run that held out one image, and gets it wrong."""
    logits = -np.eye(index.num_classes, dtype=np.float32)[index.labels[[i]]]
    return HeldOut(0, logits, index.labels[[i]], np.array([i]), (index.names[i],))


def test_a_study_keeps_its_mistakes_unless_pictures_are_off(
    digits: ImageIndex, recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study("tiny", recipe.with_fields({"epochs": 1, "batch_size": 64}), {"mixup.alpha": [0.0, 0.2]})
    plan = plan_study(study, digits, out=tmp_path)
    assert execute_plan(plan, tmp_path, samples=False) == ""
    assert not (tmp_path / "data" / "mistakes.json").exists()
    assert not (tmp_path / "data" / "samples.jpg").exists()
    assert execute_plan(plan, tmp_path) == ""  # nothing is trained again
    kept = json.loads((tmp_path / "data" / "mistakes.json").read_text())
    run = Store(tmp_path).get(next(run.id for run in plan.runs if run.cell.name == kept["cell"]))
    assert run is not None
    arrays, names = run.predictions(), run.names()
    assert set(arrays) == {"logits", "labels", "members"}
    assert names == [digits.names[i] for i in arrays["members"]]
    errs = arrays["logits"].argmax(axis=1) != arrays["labels"]
    assert kept["wrong"] == errs.sum() > 0
    assert {one["name"] for one in kept["mistakes"]} <= {name for name, err in zip(names, errs, strict=True) if err}

    def fail(*_: object) -> bytes:
        raise MemoryError("no room")

    monkeypatch.setattr("bagoftricks.studies.mistakes.thumbnail", fail)
    assert picture_mistakes(plan, Store(tmp_path)) == "The report shows no mistakes as images: no room"
    assert execute_plan(plan, tmp_path) == "The report shows no mistakes as images: no room"


def test_nothing_is_written_without_predictions(photos: Path, tmp_path: Path) -> None:
    index = read_folder(photos)
    store = keep(tmp_path / "none", {}, {})
    write_mistakes(store, index)
    assert read_mistakes(tmp_path / "none") is None
    store = keep(tmp_path / "damaged", {"a": [held_out(index, 0, [1, 2])]}, {"a": 0.5})
    (store.runs / "a-0" / "predictions.npz").write_bytes(b"PK rubbish")
    write_mistakes(store, index)
    assert read_mistakes(tmp_path / "damaged") is None


def test_the_best_cell_is_found_on_seeds_that_all_have() -> None:
    values = {("a", 0): 0.5, ("a", 1): 0.9, ("b", 0): 0.6}
    assert common_seeds(values) == [0]
    assert best_cell(values) == "b"
    assert best_cell({("a", 0): 0.5, ("b", 1): 0.4}) == "a"  # none in common: its own
    assert common_seeds([]) == []
    often = {(cell, seed): value for cell, value in (("a", 0.5), ("b", 0.6)) for seed in range(4)}
    rare = {("c", 0): 0.9, ("b", 0): 0.1}  # in seed 0 alone, a would be better than b
    assert candidates({**often, **rare}) == sorted(often)
    assert best_cell({**often, **rare, ("b", 1): 0.95}) == "b"
    assert best_cell({**often, ("c", 0): 0.9, ("c", 1): 0.9}) == "c"  # half of the seeds will do
    assert metric_of([{"macro_f1": 1, "top1": 1}], "macro_f1") == "macro_f1"
    assert metric_of([{"macro_f1": 1, "top1": 1}, {"top1": 1}], "macro_f1") == "top1"


def test_predictions_are_of_the_first_twenty_runs(photos: Path, tmp_path: Path) -> None:
    index = read_folder(photos)
    runs = [held_out(index, seed, [1, 2, 3]) for seed in range(22)]
    store = keep(tmp_path, {"a": runs}, {"a": 0.5})
    found = read_held_out(store, [(f"a-{run.seed}", run.seed) for run in reversed(runs)])
    assert [run.seed for run in found] == list(range(20))
    np.testing.assert_array_equal(found[3].logits_NK, runs[3].logits_NK)
    assert found[3].names == runs[3].names
