"""Training in bf16 comes to fp32's accuracy: the same seeds in both, so that a seed's luck cancels."""

from __future__ import annotations

from functools import cache
from statistics import fmean, stdev

import numpy as np
import pytest

from bagoftricks.data.digits import read_digits
from bagoftricks.data.index import subset
from bagoftricks.recipe import Recipe
from bagoftricks.training.hardware import KERNELS, Hardware, has_fast_bf16, why_not_native
from bagoftricks.training.train import Result, train

SEEDS = range(4)
EACH = 50
"""Images of each class; 40 % of them validate, 200 in all."""


@cache
def trained(hardware: Hardware) -> list[Result]:
    """Results of a small training, one a seed."""
    whole = read_digits()
    members = np.concatenate([np.flatnonzero(whole.labels == k)[:EACH] for k in range(10)])
    index = subset(whole, members.tolist())
    recipe = Recipe().with_fields(
        {
            "epochs": 4,
            "batch_size": 30,
            "model.tweaks": "CD",
            "model.depth": 10,
            "input.size": 32,
            "input.flip": False,
            "input.crop_min": 0.7,
            "split.val_fraction": 0.4,
        }
    )
    return [train(recipe, index, seed=seed, hardware=hardware) for seed in SEEDS]


@pytest.mark.skipif(not has_fast_bf16("cpu"), reason="no bf16 units: emulated, many times slower")
@pytest.mark.parametrize("kernels", KERNELS)
def test_bf16_trains_to_fp32s_accuracy(kernels: str) -> None:
    """The mean difference is within what as many other seeds would make, and below three points."""
    if kernels == "native" and (missing := why_not_native("cpu", "bf16")):
        pytest.skip(missing)
    fp32, bf16 = trained(Hardware("cpu", "fp32", 1)), trained(Hardware("cpu", "bf16", 1, kernels=kernels))
    accuracy = [result.top1 for result in fp32]
    gaps = [low.top1 - full.top1 for low, full in zip(bf16, fp32, strict=True)]
    assert fmean(accuracy) > 0.88  # it has learnt: chance is 0.1
    assert fp32[0].history[0]["train_loss"] != bf16[0].history[0]["train_loss"]  # bf16 was at work
    luck = stdev(accuracy) * (2 / len(accuracy)) ** 0.5  # of the difference of two such means, were they unpaired
    assert abs(fmean(gaps)) < min(2 * luck, 0.03)
    for low, full in zip(bf16, fp32, strict=True):
        for one, other in zip(low.history, full.history, strict=True):
            assert one["train_loss"] == pytest.approx(other["train_loss"], rel=0.15)
    losses = [[result.measures["loss"] for result in results] for results in (fp32, bf16)]
    luck = stdev(losses[0]) * (2 / len(losses[0])) ** 0.5  # it differs by a quarter from seed to seed
    assert abs(fmean(losses[1]) - fmean(losses[0])) < 3 * luck < fmean(losses[0])
