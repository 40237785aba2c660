"""The locked test set: measured once, recorded, and never trained or chosen on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bagoftricks.cli import main
from bagoftricks.data.folder import read_folder
from bagoftricks.data.split import split
from bagoftricks.errors import UserError
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store
from bagoftricks.study_folder import read_plan, read_test
from bagoftricks.training.final import measure_test
from bagoftricks.training.train import train


@pytest.fixture(scope="module")
def small(recipe: Recipe) -> Recipe:
    return recipe.with_fields({"epochs": 1, "batch_size": 8, "split.duplicates": "ignore"})


@pytest.fixture
def with_test(photos: Path) -> Path:
    """Photographs with a test folder of their own."""
    inside = photos.with_name("with-test")
    shutil.copytree(photos, inside / "train")
    for folder in (inside / "train").iterdir():
        for i in range(4):
            (inside / "test" / folder.name).mkdir(parents=True, exist_ok=True)
            (folder / f"0{i}.jpg").rename(inside / "test" / folder.name / f"0{i}.jpg")
    return inside


def test_a_given_test_set_is_measured_once(small: Recipe, with_test: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = (train(small, with_test, seed=seed, out=out) for seed in (0, 1))
    assert first.folder is not None
    assert second.folder is not None
    with pytest.raises(UserError, match="several could be meant"):
        measure_test(out, with_test)
    result = measure_test(first.folder, with_test)
    assert result.fresh
    (look,) = result.looks
    assert look["images"] == 12
    assert look["run"] == first.id
    again = measure_test(first.folder, with_test)
    assert not again.fresh
    assert list(again.looks) == [look]
    with pytest.raises(UserError, match=r"spent on .*; a second choice on it is no test"):
        measure_test(second.folder, with_test)
    assert len(read_test(out)) == 1
    assert measure_test(second.folder, with_test, again=True).fresh
    assert len(read_test(out)) == 2


def test_the_card_has_the_measures_unless_somebody_changed_it(
    small: Recipe, with_test: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for edited in (False, True):
        folder = train(small, with_test, out=tmp_path / str(edited)).folder
        assert folder is not None
        card = folder / "README.md"
        before = card.read_text()
        assert "Not measured" in before
        if edited:
            card.write_text(f"{before}\nMine.\n")
        assert main(["test", str(folder), "--data", str(with_test), "--device", "cpu"]) == 0
        beside = folder / "README.tested.md"
        assert "Not measured" not in (beside if edited else card).read_text()
        assert beside.exists() == edited
        assert ("README.tested.md has the measures" in capsys.readouterr().err) == edited
        assert not edited or card.read_text() == f"{before}\nMine.\n"


def test_a_part_of_the_test_set_is_spent_with_it(small: Recipe, with_test: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = train(small, with_test, out=out)
    assert first.folder is not None
    measure_test(first.folder, with_test)
    (with_test / "test" / "cat" / "00.jpg").unlink()
    second = train(small, with_test, seed=1, out=out)
    assert second.folder is not None
    with pytest.raises(UserError, match="spent on"):
        measure_test(second.folder, with_test)


def test_copies_in_the_test_set_do_not_move_the_split(small: Recipe, with_test: Path) -> None:
    config = small.with_fields({"split.duplicates": "together"}).split
    before = [split(read_folder(with_test), config, seed).val.tolist() for seed in range(10)]
    for i, name in enumerate(("cat", "dog", "owl")):  # the test set joins unlike images of the pool
        for k in range(4):
            shutil.copy(with_test / "train" / name / f"0{4 + k}.jpg", with_test / "test" / name / f"0{k}.jpg")
        assert i < 3
    index = read_folder(with_test)
    assert [split(index, config, seed).val.tolist() for seed in range(10)] == before


def test_a_cell_is_measured_whole_and_each_run_once(small: Recipe, with_test: Path, tmp_path: Path) -> None:
    from bagoftricks.studies.design import Study
    from bagoftricks.studies.run import run_study

    study = Study("tiny", small, {"mixup.alpha": [0.0, 0.2]}, seeds=(0, 1))
    out = run_study(study, with_test, out=tmp_path / "study", jobs=2, keep="all")
    runs = {(run.result["seed"], cell): run for run in Store(out).models() for cell in [_cell_of(out, run.id)]}
    measure_test(runs[0, "baseline"].folder, with_test)
    both = measure_test(out, with_test, cell="baseline")
    assert [look["seed"] for look in both.looks] == [0, 1] or [look["seed"] for look in both.looks] == [1, 0]
    assert len(read_test(out)) == 2
    Store(out).drop_model(runs[1, "mixup.alpha=0.2"].id)
    with pytest.raises(UserError, match="1 runs did not keep their models"):
        measure_test(out, with_test, cell="mixup.alpha=0.2", again=True)


def test_a_chosen_cell_against_one_settled_on_before(
    small: Recipe, with_test: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One look at both; the difference is that of the Top-1s, and what was spent on a third is told."""
    from bagoftricks.studies.design import Study
    from bagoftricks.studies.run import run_study

    factors = {"mixup.alpha": [0.0, 0.2], "ema.decay": [0.0, 0.5]}
    study = Study("tiny", small, factors, seeds=(0, 1), design="one-at-a-time")
    out = run_study(study, with_test, out=tmp_path / "study", jobs=2, keep="all")
    for wrong in ({"against": "baseline"}, {"cell": "baseline", "against": "baseline"}):
        with pytest.raises(UserError, match="needs --cell with another cell"):
            measure_test(out, with_test, **wrong)
    command = ["test", str(out), "--cell", "ema.decay=0.5", "--against", "baseline", "--data", str(with_test)]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    tops = {(look["cell"], look["seed"]): look["top1"] for look in found["looks"]}
    assert set(tops) == {(cell, seed) for cell in ("ema.decay=0.5", "baseline") for seed in (0, 1)}
    differences = [tops["ema.decay=0.5", seed] - tops["baseline", seed] for seed in (0, 1)]
    assert found["difference"]["by_seed"] == pytest.approx(differences)
    assert (found["difference"]["first"], found["difference"]["images"]) == ("ema.decay=0.5", 12)
    assert "right" not in found["looks"][0]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "nothing was measured again" in said
    assert "ema.decay=0.5 minus baseline: " in said
    assert "12 images, 2 seeds" in said
    with pytest.raises(UserError, match=r"spent on baseline, ema.decay=0.5 .*; a second choice"):
        measure_test(out, with_test, cell="mixup.alpha=0.2", against="baseline")


def test_a_second_choice_does_not_come_in_as_the_other_side(small: Recipe, with_test: Path, tmp_path: Path) -> None:
    """Once a cell was looked at, neither another one beside it nor it beside another is a first look."""
    from bagoftricks.studies.design import Study
    from bagoftricks.studies.run import run_study

    study = Study("tiny", small, {"mixup.alpha": [0.0, 0.2]}, seeds=(0,))
    out = run_study(study, with_test, out=tmp_path / "study", keep="all")
    measure_test(out, with_test, cell="baseline")
    for cell, against in (("mixup.alpha=0.2", "baseline"), ("baseline", "mixup.alpha=0.2")):
        with pytest.raises(UserError, match=r"spent on baseline .*; a second choice"):
            measure_test(out, with_test, cell=cell, against=against)
    looks = read_test(out)
    del looks[0]["right"]  # as an earlier version wrote it
    (out / "test.json").write_text(json.dumps({"looks": looks}))
    result = measure_test(out, with_test, cell="baseline", against="mixup.alpha=0.2", again=True)
    assert [set(look["right"]) <= {"0", "1"} for look in result.looks] == [True, True]


def _cell_of(out: Path, run_id: str) -> str:
    return next(run["cell"] for run in read_plan(out)["runs"] if run["id"] == run_id)


def test_the_measures_are_those_of_the_model(small: Recipe, with_test: Path, tmp_path: Path) -> None:
    """Against a loop over the test images, each cropped and classified by itself."""
    import torch

    from bagoftricks.data.batches import crop_and_resize, evaluation_boxes, normalise

    result = train(small, with_test, out=tmp_path / "out")
    assert result.folder is not None
    assert result.model is not None
    index, right = read_folder(with_test), 0
    for i in index.on_side("test"):
        images, boxes = evaluation_boxes([index.read(int(i), 48)], small.input)
        x_NCHW = normalise(crop_and_resize(images, boxes, np.array([False]), small.input.size, "cpu"))
        with torch.no_grad():
            right += int(result.model(x_NCHW).argmax()) == index.labels[i]
    assert measure_test(result.folder, with_test).looks[0]["top1"] == pytest.approx(right / 12)


def test_a_fraction_is_locked_away(small: Recipe, photos: Path, tmp_path: Path) -> None:
    locked = small.with_fields({"split.test_fraction": 0.2})
    result = train(locked, photos, out=tmp_path / "out")
    assert result.folder is not None
    index = read_folder(photos)
    members = np.load(result.folder / "predictions.npz")["members"]
    sides = split(index, locked.split, 0)
    assert not set(members) & set(sides.test)
    assert measure_test(tmp_path / "out", photos).looks[0]["images"] == len(sides.test) == 6


def test_a_study_measures_the_chosen_cell(
    small: Recipe, with_test: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bagoftricks.studies.design import Study
    from bagoftricks.studies.run import run_study

    study = Study("tiny", small, {"mixup.alpha": [0.0, 0.2]}, seeds=(0, 1))
    out = run_study(study, with_test, out=tmp_path / "study", jobs=2, keep="best")
    kept = Store(out).models()
    assert len(kept) == 2  # of the best cell alone
    assert main(["test", str(out), "--data", str(with_test), "--json"]) == 0
    looks = json.loads(capsys.readouterr().out)["looks"]
    assert sorted(look["seed"] for look in looks) == [0, 1]
    assert len({look["cell"] for look in looks}) == 1
    other = {"baseline", "mixup.alpha=0.2"} - {looks[0]["cell"]}
    assert main(["test", str(out), "--data", str(with_test), "--cell", other.pop()]) == 2
    assert "2 runs did not keep their models" in capsys.readouterr().err


def test_refusals(small: Recipe, photos: Path, with_test: Path, tmp_path: Path) -> None:
    result = train(small, photos, out=tmp_path / "out")
    assert result.folder is not None
    with pytest.raises(UserError, match="has no test set"):
        measure_test(result.folder, photos)
    with pytest.raises(UserError, match="not what .* was trained on"):
        measure_test(result.folder, with_test)
    with pytest.raises(UserError, match="holds no run with its model"):
        measure_test(tmp_path, photos)


def test_a_look_is_on_record_before_its_card_tells(
    small: Recipe, with_test: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(small, with_test, out=tmp_path / "out").folder
    assert folder is not None

    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bagoftricks.training.final.add_test_to_card", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_test(folder, with_test)
    (look,) = read_test(tmp_path / "out")
    assert look["run"] == folder.name
    assert not measure_test(folder, with_test).fresh
