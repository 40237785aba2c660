"""The loop: its golden curve, what pairing means, what it does when the loss breaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import DecodedImages
from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import RunError
from bagoftricks.models.build import build
from bagoftricks.models.config import ModelConfig
from bagoftricks.recipe import Recipe
from bagoftricks.reports.results import MEASURES
from bagoftricks.training.evaluate import Meter, evaluate, ranks
from bagoftricks.training.fit import Listener, fit
from bagoftricks.training.hardware import Hardware

CPU = Hardware("cpu", "fp32", 1)
GOLDEN = [
    2.41331,
    2.34944,
    2.36944,
    2.42908,
    2.26344,
    2.26978,
    2.30164,
    2.28665,
    2.21684,
    2.19137,
    2.23863,
    2.16463,
    2.26842,
    2.25308,
    2.25814,
    2.15001,
    2.21975,
    2.23782,
    2.08243,
    2.30968,
]


def run(
    recipe: Recipe, index: ImageIndex, seed: int = 0, **options: Any
) -> tuple[torch.nn.Module, list[dict[str, float]]]:
    CPU.prepare()
    train, val = np.arange(0, 160), np.arange(160, 200)
    images = DecodedImages(index, 48)

    def side(members: np.ndarray) -> Batches:
        return Batches(images, index.labels, members, recipe.input, recipe.batch_size, seed)

    model = build(recipe.model, index.num_classes, seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows: list[dict[str, float]] = []
    fit(model, side(train), side(val), recipe, index.num_classes, CPU, Listener(on_epoch=rows.append, **options))
    return model, rows


def test_golden_curve(digits: ImageIndex, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty steps with every refinement on. A change that moves these numbers belongs under Numerics, by how much."""
    losses: list[float] = []
    add = Meter.add

    def spy(self: Meter, loss: torch.Tensor, logits: torch.Tensor, label: torch.Tensor) -> None:
        if not loss.is_inference():
            losses.append(float(loss))
        add(self, loss, logits, label)

    monkeypatch.setattr(Meter, "add", spy)
    changes = {
        "mixup.alpha": 0.2,
        "schedule.warmup_epochs": 0.5,
        "optimizer.name": "sgd",
        "optimizer.lr": 0.001,
        "optimizer.momentum": 0.5,
        "model.depth": 18,
        "model.zero_init_gamma": True,  # well conditioned: rounding on another processor stays rounding
        "batch_size": 32,
        "epochs": 4,
    }
    run(recipe.with_fields(changes), digits)
    assert len(losses) == 20
    assert losses == pytest.approx(GOLDEN, rel=2e-3)


def test_training_learns(digits: ImageIndex, recipe: Recipe) -> None:
    _, rows = run(recipe.with_fields({"epochs": 5, "optimizer.lr": 1e-3}), digits)
    assert rows[-1]["train_top1"] > 0.8
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[0]["lr"] > rows[-1]["lr"] > 0


def test_rows_have_timms_names(digits: ImageIndex, recipe: Recipe) -> None:
    _, rows = run(recipe, digits)
    assert [row["epoch"] for row in rows] == [1, 2]
    expected = {"epoch", "lr", "images_per_s", "train_s", "eval_s"}
    expected |= {f"{side}_{name}" for side in ("train", "eval") for name in MEASURES}
    assert set(rows[0]) == expected


def test_rows_tell_how_long_it_took(digits: ImageIndex, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of our own: two seconds a step, a minute a batch of the evaluation."""
    now = [100.0]
    monkeypatch.setattr("bagoftricks.training.fit.time.perf_counter", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    _, rows = run(recipe, digits, on_step=lambda done, total: pass_by(2.0), on_alive=lambda: pass_by(60.0))
    for row in rows:
        assert row["train_s"] == 10 * 2.0  # 160 images in batches of 16
        assert row["images_per_s"] == 16 / 2.0
        assert row["eval_s"] == 3 * 60.0  # 40 images


def test_same_seed_same_weights(digits: ImageIndex, recipe: Recipe) -> None:
    one, two, other = (run(recipe, digits, seed)[0] for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_global_generators_do_not_matter(digits: ImageIndex, recipe: Recipe) -> None:
    with_mixup = recipe.with_fields({"mixup.alpha": 0.2, "epochs": 1})
    one = run(with_mixup, digits)[1]
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert run(with_mixup, digits)[1][0]["train_loss"] == one[0]["train_loss"]


def test_tricks_do_not_move_the_order_or_the_crops(
    digits: ImageIndex, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    original = Batches.training
    for name, changes in (("plain", {}), ("mixed", {"mixup.alpha": 0.2, "optimizer.name": "sgd"})):
        shown: list[torch.Tensor] = []

        def spy(self: Batches, *given: Any, shown: list[torch.Tensor] = shown) -> Any:
            for x, y in original(self, *given):
                shown.append(x.clone())
                yield x, y

        monkeypatch.setattr(Batches, "training", spy)
        run(recipe.with_fields({"epochs": 1, **changes}), digits)
        seen[name] = shown
    assert len(seen["plain"]) == 10
    assert all(torch.equal(a, b) for a, b in zip(seen["plain"], seen["mixed"], strict=True))


def test_a_loss_that_breaks_is_named(digits: ImageIndex, recipe: Recipe) -> None:
    with pytest.raises(RunError, match=r"the loss became (nan|inf) in epoch 1, step \d+ of 10: lower optimizer.lr"):
        changes = {"optimizer.name": "sgd", "optimizer.lr": 100.0, "schedule.decay": "constant", "model.depth": 18}
        run(recipe.with_fields(changes), digits)


def test_weights_that_break_in_the_last_step_are_named(
    digits: ImageIndex, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = torch.optim.AdamW.step

    def burst(self: torch.optim.AdamW) -> None:
        step(self)
        self.param_groups[0]["params"][-1].data.fill_(float("nan"))  # the classifier's bias

    monkeypatch.setattr(torch.optim.AdamW, "step", burst)
    with pytest.raises(RunError, match="the validation loss became nan after epoch 1: lower optimizer.lr"):
        run(recipe.with_fields({"epochs": 1, "batch_size": 160}), digits)


def test_bf16_computes_what_fp32_does_but_for_rounding(digits: ImageIndex, recipe: Recipe) -> None:
    side = Batches(DecodedImages(digits, 48), digits.labels, np.arange(16), recipe.input, 16, 0)
    model = build(ModelConfig("CD", 18), 10)
    logits = [evaluate(model, side, 10, Hardware("cpu", precision, 1)).logits_NK for precision in ("fp32", "bf16")]
    assert logits[0].dtype == logits[1].dtype == np.float32
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.1 * np.abs(logits[0]).max()
    bf16 = Hardware("cpu", "bf16", 1)
    rows: list[dict[str, float]] = []
    fit(model, side, side, recipe.with_fields({"epochs": 2}), 10, bf16, Listener(on_epoch=rows.append))
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_progress_counts_steps(digits: ImageIndex, recipe: Recipe) -> None:
    steps: list[tuple[int, int]] = []
    run(recipe, digits, on_step=lambda step, total: steps.append((step, total)))
    assert steps == [(i + 1, 20) for i in range(20)]


def test_of_equal_logits_the_first_is_the_guess() -> None:
    """bf16 gives equal ones now and then; the confusion matrix, which takes `argmax`, must say the same."""
    logits = torch.tensor([[1.0, 1.0, 0.0], [2.0, 3.0, 3.0], [float("nan"), 1.0, 0.0]])
    assert ranks(logits, torch.tensor([0, 1, 1])).tolist() == [0, 0, 1]
    assert ranks(logits, torch.tensor([1, 2, 0])).tolist() == [1, 1, 3]
    draws = torch.randint(0, 3, (500, 7), generator=torch.Generator().manual_seed(0)).float()
    labels = torch.arange(500) % 7
    assert torch.equal(ranks(draws, labels) == 0, draws.argmax(1) == labels)
    order = (-draws.numpy()).argsort(axis=1, kind="stable")
    assert ranks(draws, labels).tolist() == [
        row.tolist().index(k) for row, k in zip(order, labels.tolist(), strict=True)
    ]


def test_meter_against_plain_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 8, generator=generator), torch.randint(0, 7, (50,), generator=generator)
    meter = Meter(8, "cpu")
    for part in (slice(0, 20), slice(20, 50)):
        meter.add(F.cross_entropy(logits[part], labels[part]), logits[part], labels[part])
    measures = meter.measures()
    guess = logits.argmax(1)
    assert measures["top1"] == pytest.approx((guess == labels).float().mean().item())
    top5 = [int(labels[i]) in logits[i].argsort(descending=True)[:5].tolist() for i in range(50)]
    assert measures["top5"] == pytest.approx(np.mean(top5))
    assert measures["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    per_class = [(guess[labels == k] == k).float().mean().item() for k in range(7)]  # class 7 never occurs
    assert measures["mean_class_acc"] == pytest.approx(np.mean(per_class))
    seen = np.unique(labels)
    expected = f1_score(labels, logits.argmax(1), labels=seen, average="macro", zero_division=0)
    assert measures["macro_f1"] == pytest.approx(expected)


@pytest.mark.parametrize(("classes", "has_top5"), [(2, False), (5, False), (6, True)])
def test_no_top5_with_five_classes_or_fewer(classes: int, has_top5: bool) -> None:
    meter = Meter(classes, "cpu")
    meter.add(torch.tensor(1.0), torch.randn(4, classes), torch.tensor([0, 1, 0, 1]))
    assert ("top5" in meter.measures()) == has_top5


def test_evaluation_leaves_the_model_as_it_was(digits: ImageIndex, recipe: Recipe) -> None:
    model = build(recipe.model, 10).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    side = Batches(DecodedImages(digits, 48), digits.labels, np.arange(30), recipe.input, 16, 0)
    result = evaluate(model, side, 10, CPU)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert result.logits_NK.shape == (30, 10)
    assert result.label_N.tolist() == digits.labels[:30].tolist()
    whole = evaluate(model, replace(side, batch_size=30), 10, CPU)
    parts = evaluate(model, side, 10, CPU, micro_batch=3)
    assert parts.logits_NK == pytest.approx(result.logits_NK, abs=1e-4)
    assert parts.measures == pytest.approx(result.measures, abs=1e-4)
    np.testing.assert_allclose(result.logits_NK, whole.logits_NK, atol=1e-4)
