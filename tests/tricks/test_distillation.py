from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import DecodedImages
from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.data.input import InputConfig
from bagoftricks.data.split import split
from bagoftricks.errors import UserError
from bagoftricks.models.folder import load_model, save_model
from bagoftricks.models.resnet import ResNet
from bagoftricks.models.saved import read_config
from bagoftricks.recipe import Recipe
from bagoftricks.reports.report import write_report
from bagoftricks.serving.classifier import load_model as load_classifier
from bagoftricks.store import StoredRun
from bagoftricks.studies.cost import _teacher_share
from bagoftricks.studies.design import Study
from bagoftricks.studies.plan import plan_study
from bagoftricks.studies.run import execute_plan
from bagoftricks.studies.study_file import load_study
from bagoftricks.training.bag import Bag
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.step import Stepper
from bagoftricks.training.teacher import Teacher, check_teacher
from bagoftricks.training.train import run_identity, train
from bagoftricks.tricks.base import Trick
from bagoftricks.tricks.distillation import Distillation, distillation_loss
from bagoftricks.tricks.label_smoothing import LabelSmoothing
from bagoftricks.tricks.mixup import Mixup
from bagoftricks.tricks.progressive_resizing import ProgressiveResizing
from bagoftricks.tricks.random_erasing import RandomErasing
from tests.tricks.resuming import cut_and_resumed, equal
from tests.tricks.teachers import DIGITS, digits_teacher, write_teacher

CPU = Hardware("cpu", "fp32", 1)
ON = {"distillation.teacher": str(digits_teacher()), "distillation.temperature": 4.0}


def logits(seed: int, n: int = 5, k: int = 4) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_against_an_explicit_loop() -> None:
    student, teacher = logits(0), logits(1)
    total = 0.0
    for z, r in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(value / 20) for value in r]
        q = [math.exp(value / 20) for value in z]
        total += sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    assert float(distillation_loss(student, teacher, 20.0)) == pytest.approx(400 * total / len(student), rel=1e-12)


def test_its_gradient_is_that_of_the_sources_cross_entropy() -> None:
    teacher = logits(1)
    mine, theirs = logits(0).requires_grad_(), logits(0).requires_grad_()
    distillation_loss(mine, teacher, 3.0).backward()
    (9 * F.cross_entropy(theirs / 3, (teacher / 3).softmax(1))).backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_student_that_agrees_learns_nothing_from_it() -> None:
    student = logits(0).requires_grad_()
    loss = distillation_loss(student, student.detach() + 7, 20.0)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-9)
    loss.backward()
    assert float(student.grad.abs().max()) < 1e-12


def test_the_loss_is_added_to() -> None:
    loss, student, teacher = torch.tensor(2.0), logits(0), logits(1)
    added = Distillation("there", 5.0, 0.5).on_taught(loss, student, teacher)
    assert float(added) == pytest.approx(2 + 0.5 * float(distillation_loss(student, teacher, 5.0)))


def test_without_a_teacher_it_is_off() -> None:
    assert not Distillation(temperature=3.0).active
    assert Distillation("there").active


def side(digits: ImageIndex, size: int = 32, **inputs: object) -> Batches:
    config = InputConfig(size, **inputs)  # type: ignore[arg-type]
    return Batches(DecodedImages(digits, 48), digits.labels, np.arange(3, 23), config, 8, 0)


def test_classes_in_another_order(digits: ImageIndex, tmp_path: Path) -> None:
    shuffled = ("7", "2", "0", "1", "3", "9", "8", "6", "4", "5")
    model = load_model(write_teacher(tmp_path, shuffled))
    x = torch.randn(4, 3, 32, 32)
    said = Teacher(model, DIGITS, side(digits), CPU).logits(x)
    theirs = model(x)
    for ours, name in enumerate(DIGITS):
        torch.testing.assert_close(said[:, ours], theirs[:, shuffled.index(name)], rtol=1e-4, atol=1e-4)
    assert not said.requires_grad


@pytest.mark.parametrize("same", [True, False])
def test_logits_are_kept_where_images_stay_the_same(digits: ImageIndex, same: bool) -> None:
    inputs = {"crop_min": 1.0, "crop_ratio": 1.0, "flip": False} if same else {}
    train_side = side(digits, **inputs)
    teacher = Teacher(load_model(digits_teacher()), DIGITS, train_side, CPU)
    seen: list[int] = []
    teacher.network.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    for epoch in range(3):
        order = train_side.order(epoch)
        for step, (x, _) in enumerate(train_side.training(epoch, order=order)):
            members = order[8 * step : 8 * step + 8]
            torch.testing.assert_close(teacher.logits(x, members), teacher._computed(x), rtol=1e-4, atol=1e-4)
    assert len(seen) == 6 + (3 if same else 6)


@pytest.mark.parametrize("trick", [Mixup(0.4), LabelSmoothing(0.1), RandomErasing(1.0), ProgressiveResizing(0.5)])
def test_images_that_a_trick_changes_are_looked_at_anew(digits: ImageIndex, trick: Trick) -> None:
    train_side = side(digits, crop_min=1.0, crop_ratio=1.0, flip=False)
    teacher = Teacher(load_model(digits_teacher()), DIGITS, train_side, CPU)
    bag = Bag({"it": trick, "distillation": Distillation("there")}, np.full(10, 2), 0, "cpu", teacher)
    order = train_side.order(0)
    x, label = next(train_side.training(0))
    x, _, taught = bag.batch(x, F.one_hot(label, 10).float(), order[:8], 0)
    assert taught is not None
    torch.testing.assert_close(taught, teacher._computed(x), rtol=1e-4, atol=1e-4)
    assert (teacher._kept_nK is None) == (not isinstance(trick, LabelSmoothing))


def test_parts_of_a_batch_hear_what_is_said_of_them(digits: ImageIndex) -> None:
    """In eval mode, where batch-norm sees no batch, the gradients of the parts add up to the whole's."""
    model = ResNet("A", 10, num_classes=10).eval()
    stepper = Stepper(model, Recipe(), side(digits), 10, CPU)
    stepper.bag = Bag({"distillation": Distillation("there", 1.0)}, np.full(10, 2), 0, "cpu")
    x, y = torch.randn(6, 3, 32, 32), torch.eye(10)[:6]
    taught = 20 * torch.eye(10)[[3, 1, 4, 1, 5, 9]]
    found = []
    for micro, said in ((None, taught), (2, taught), (2, taught.flip(0))):
        stepper.micro_batch = micro
        loss, _ = stepper.gradients(x, y, said, 0)
        found.append((float(loss), model.fc.weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)
    assert (found[0][1] - found[2][1]).norm() > 0.1 * found[0][1].norm()


def test_it_takes_no_more_images_at_once_than_it_may(digits: ImageIndex) -> None:
    teacher = Teacher(load_model(digits_teacher()), DIGITS, side(digits), CPU, most=3)
    x, seen = torch.randn(8, 3, 32, 32), []
    whole = Teacher(load_model(digits_teacher()), DIGITS, side(digits), CPU).logits(x)
    teacher.network.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    torch.testing.assert_close(teacher.logits(x), whole, rtol=1e-4, atol=1e-4)
    assert seen == [3, 3, 2]


def test_it_says_that_it_is_alive_while_it_computes_what_is_kept(digits: ImageIndex) -> None:
    beats: list[int] = []
    as_they_are = side(digits, crop_min=1.0, crop_ratio=1.0, flip=False)
    teacher = Teacher(load_model(digits_teacher()), DIGITS, as_they_are, CPU, on_alive=lambda: beats.append(1))
    teacher.logits(torch.randn(8, 3, 32, 32), as_they_are.order(0)[:8])
    assert len(beats) == 3  # 20 images in batches of 8


def test_the_identity_is_the_teachers_not_its_folders(digits: ImageIndex, recipe: Recipe, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(digits_teacher(), tmp_path / "elsewhere"))
    other = write_teacher(tmp_path / "other", seed=3)

    def name(folder: Path) -> str:
        return run_identity(recipe.with_fields({"distillation.teacher": str(folder)}), digits, 0, CPU)

    assert name(digits_teacher()) == name(elsewhere) != name(other)
    config = json.loads((elsewhere / "config.json").read_text())
    (elsewhere / "config.json").write_text(json.dumps({**config, "temperature": 2.0}))
    assert name(digits_teacher()) != name(elsewhere)


def test_each_seed_has_its_own_teacher_which_has_not_seen_the_answers(
    digits: ImageIndex, recipe: Recipe, tmp_path: Path
) -> None:
    base = recipe.with_fields({"epochs": 1})
    for seed in (0, 1):
        made = train(base, digits, seed=seed, out=tmp_path / "made", hardware=CPU)
        assert made.folder is not None
        shutil.copytree(made.folder, tmp_path / f"teacher-{seed}")
    taught = base.with_fields({"distillation.teacher": str(tmp_path / "teacher-{seed}")})
    assert run_identity(taught, digits, 0, CPU) != run_identity(taught, digits, 1, CPU)
    done = train(taught, digits, seed=1, out=tmp_path / "taught", hardware=CPU)
    assert done.folder is not None
    about = json.loads((done.folder / "result.json").read_text())["teacher"]
    assert (about["run"], about["architecture"], about["warning"]) == ("teacher-1", "ResNet-10-A", "")
    card = " ".join((done.folder / "README.md").read_text().split())
    assert "by the guesses of a teacher, ResNet-10-A of run teacher-1, on images" in card
    assert str(tmp_path) not in card
    with pytest.raises(UserError, match=r"was trained on \d+ of the \d+ validation images of seed 1; train one with"):
        train(base.with_fields({"distillation.teacher": str(tmp_path / "teacher-0")}), digits, seed=1, hardware=CPU)


def test_the_licence_behind_a_teacher_stays_with_the_weights(
    digits: ImageIndex, recipe: Recipe, tmp_path: Path
) -> None:
    """From a teacher to its student, and to what begins with the student's weights."""
    save_model(ResNet("A", 10, 10), DIGITS, InputConfig(32), tmp_path / "teacher", licence="cc-by-nc-4.0")
    base = recipe.with_fields({"epochs": 1})
    student = train(
        base.with_fields({"distillation.teacher": str(tmp_path / "teacher")}), digits, out=tmp_path / "1", hardware=CPU
    )
    assert student.folder is not None
    start = student.folder / "model.safetensors"
    next_one = train(base.with_fields({"init": str(start)}), digits, out=tmp_path / "2", hardware=CPU)
    assert next_one.folder is not None
    for folder, said in (
        (student.folder, "of run teacher, which"),
        (next_one.folder, "a teacher of its initial weights, which"),
    ):
        saved = read_config(folder)
        assert (saved.licence, saved.teacher_licence) == ("", "cc-by-nc-4.0")
        card = " ".join((folder / "README.md").read_text().replace("\\", "").split())
        assert f"{said} comes from weights under cc-by-nc-4.0. Whether that" in card
    assert load_classifier(next_one.folder).teacher_licence == "cc-by-nc-4.0"


def test_a_teacher_of_whom_nobody_knows_what_it_saw_comes_with_a_warning(
    digits: ImageIndex, recipe: Recipe, tmp_path: Path
) -> None:
    base = recipe.with_fields({"epochs": 1})
    made = train(base, digits, out=tmp_path / "made", hardware=CPU)
    assert made.folder is not None
    fewer = subset(digits, list(range(len(digits) - 1)))  # an image less: the split is another one
    for folder, known in ((digits_teacher(), False), (tmp_path / "made", True)):
        taught = base.with_fields({"distillation.teacher": str(folder)})
        val = split(fewer, taught.split, 0).val
        about = check_teacher(taught, fewer, val, 0)
        assert about is not None
        held = set(StoredRun(made.folder).names() or ())
        unseen = sum(fewer.names[i] not in held for i in val)
        said = f"{unseen:,} of the {len(val):,} validation images were not among" if known else "nobody can tell"
        assert (said in about.warning) == (unseen > 0 or not known)


def test_a_run_with_kept_logits_resumes_bit_for_bit(digits: ImageIndex, recipe: Recipe, tmp_path: Path) -> None:
    same = {"input.crop_min": 1.0, "input.crop_ratio": 1.0, "input.flip": False}
    chosen = recipe.with_fields({**ON, **same, "epochs": 1})
    once = train(chosen, digits, hardware=CPU)
    again = cut_and_resumed(chosen, digits, tmp_path)
    assert once.measures == again.measures
    assert equal(once, again)


def test_a_study_with_teachers_runs_to_its_report(digits: ImageIndex, recipe: Recipe, tmp_path: Path) -> None:
    """Neither page, tables nor the study's own file say where the teachers lie."""
    for seed in range(2):
        write_teacher(tmp_path / "home" / "large" / str(seed), seed=seed)
    level = str(tmp_path / "home" / "large" / "{seed}")
    study = Study(
        "distilled",
        recipe.with_fields({"epochs": 1}),
        {"distillation.teacher": ["none", level]},
        "one-at-a-time",
        (0, 1),
    )
    plan = plan_study(study, digits, device="cpu", precision="fp32")
    plain, taught = (next(run for run in plan.runs if (run.cell.name == "baseline") == off) for off in (True, False))
    assert _teacher_share(plain, 10) == 0
    assert _teacher_share(taught, 10) == pytest.approx(1 / 3, rel=1e-6)  # ResNet-10s both
    execute_plan(plan, tmp_path / "study")
    page = write_report(tmp_path / "study")
    assert all(str(tmp_path / "home") not in path.read_text(errors="replace") for path in page.parent.rglob("*.*"))
    again = load_study(page.parent / "study.toml")
    assert again.factors == {"distillation.teacher": ["none", "large/{seed}"]}
    assert "nobody can tell which images the teacher was trained on" in page.read_text()


def test_refuses_what_is_no_teacher(digits: ImageIndex, recipe: Recipe, tmp_path: Path) -> None:
    few, many = write_teacher(tmp_path / "few", DIGITS[:9]), write_teacher(tmp_path / "many", (*DIGITS, "ten"))
    with pytest.raises(UserError, match="is empty"):
        Distillation("")
    for folder, message in (
        (tmp_path / "none", "no model folder, it has no model.safetensors"),
        (few, "does not know 1 of the 10 classes, such as '9'"),
        (many, "knows 11 classes, not 10, such as 'ten'"),
    ):
        with pytest.raises(UserError, match=message):
            train(recipe.with_fields({"distillation.teacher": str(folder)}), digits, hardware=CPU)


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0.5), ("temperature", 2000.0), ("weight", 0.0), ("weight", 1e4)]
)
def test_refuses(field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"distillation\.{field}"):
        Distillation(**{field: value})
    with pytest.raises(UserError, match=rf"distillation\.{field}"):
        Distillation(**{field: math.nan})
