"""The active tricks as one object: turns, order, losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bagoftricks.data.batches import Batches, _repeats
from bagoftricks.data.cache import DecodedImages
from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import UserError
from bagoftricks.recipe import Recipe
from bagoftricks.training.bag import Bag
from bagoftricks.tricks.balanced_sampling import BalancedSampling
from bagoftricks.tricks.base import Trick
from bagoftricks.tricks.cutmix import Cutmix
from bagoftricks.tricks.focal import Focal, focal_loss
from bagoftricks.tricks.logit_adjustment import LogitAdjustment
from bagoftricks.tricks.mixup import Mixup

COUNTS = np.array([4, 2, 2])


def bag(seed: int = 0, **tricks: Trick) -> Bag:
    return Bag(tricks, COUNTS, seed, "cpu")


def test_mixup_and_cutmix_take_turns() -> None:
    x = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.eye(8)
    both = bag(mixup=Mixup(1.0), cutmix=Cutmix(1.0))
    alone = {name: bag(**{name: trick}) for name, trick in both.tricks.items()}
    took = []
    for step in range(200):
        mixed = both.batch(x, y, np.arange(8), step)[:2]
        (match,) = [
            name for name, one in alone.items()
            if all(torch.equal(a, b) for a, b in zip(mixed, one.batch(x, y, np.arange(8), step)[:2], strict=True))
        ]  # fmt: skip
        took.append(match)
    assert 70 < took.count("mixup") < 130  # 5 standard deviations are 35


def test_a_trick_alone_draws_what_it_drew_without_turns() -> None:
    from bagoftricks.rng import stream

    x, y = torch.rand(4, 3, 8, 8), torch.eye(4)
    for got, expected in zip(
        bag(mixup=Mixup(0.2)).batch(x, y, np.arange(8), 5)[:2],
        Mixup(0.2).on_batch(x, y, stream(0, "mixup", 5)),
        strict=True,
    ):
        assert torch.equal(got, expected)


@dataclass(frozen=True)
class Penalty(Trick):
    """Adds to the loss, then multiplies it."""

    added: float = 0.0
    factor: float = 1.0

    def on_loss(
        self, loss: torch.Tensor, logits_NK: torch.Tensor, x_NCHW: torch.Tensor, y_NK: torch.Tensor
    ) -> torch.Tensor:
        assert logits_NK.shape == y_NK.shape
        return (loss + self.added * x_NCHW.mean()) * self.factor


def test_tricks_have_the_last_word_on_the_loss_one_after_the_other() -> None:
    logits, x, y = torch.randn(8, 3), torch.full((8, 3, 4, 4), 2.0), torch.eye(3)[torch.arange(8) % 3]
    plain = bag().loss(logits, x, y)
    both = bag(first=Penalty(added=3.0), second=Penalty(factor=5.0)).loss(logits, x, y)
    assert float(both) == pytest.approx(5 * (float(plain) + 6))
    other = bag(first=Penalty(factor=5.0), second=Penalty(added=3.0)).loss(logits, x, y)
    assert float(other) == pytest.approx(5 * float(plain) + 6)


def test_the_loss_without_tricks_is_cross_entropy_to_the_bit() -> None:
    logits, y = torch.randn(6, 3), torch.rand(6, 3).softmax(1)
    assert torch.equal(bag().loss(logits, torch.zeros(6, 3, 8, 8), y), F.cross_entropy(logits, y))


def test_shifted_logits_reach_whatever_the_loss_is() -> None:
    logits, y = torch.randn(6, 3), torch.eye(3).repeat(2, 1)
    both = bag(logit_adjustment=LogitAdjustment(1.0), focal=Focal(2.0))
    shifted = logits + torch.from_numpy(np.log(COUNTS / 8)).float()
    torch.testing.assert_close(both.loss(logits, torch.zeros(6, 3, 8, 8), y), focal_loss(shifted, y, 2.0))


def test_two_losses_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="focal and bce each take the place of the loss"):
        Recipe().with_fields({"focal.gamma": 2.0, "bce.on": True})
    Recipe().with_fields({"focal.gamma": 2.0, "bce.threshold": 0.2})  # which is off


@dataclass(frozen=True)
class Backwards(Trick):
    """Shows the last first, and says which label it saw."""

    on: bool = True

    def on_order(self, order_n: np.ndarray, labels_n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        assert np.array_equal(labels_n, order_n % 3)
        return order_n[::-1]


def test_orders_chain_and_labels_stay_with_their_images() -> None:
    order = np.random.default_rng(0).permutation(30)
    labels = np.arange(30) % 3
    chain = bag(first=Backwards(), balanced_sampling=BalancedSampling(1.0), last=Backwards())
    assert len(chain.order(order, labels, 0)) == 30
    assert bag(mixup=Mixup(0.2)).order(order, labels, 0) is order


def test_repeats() -> None:
    order = np.array([7, 3, 7, 7, 3, 1])
    assert _repeats(order).tolist() == [0, 0, 1, 2, 1, 0]
    assert _repeats(np.arange(5)).tolist() == [0] * 5


def test_an_image_that_is_shown_again_gets_another_crop(digits: ImageIndex, recipe: Recipe) -> None:
    members = np.arange(16)
    side = Batches(DecodedImages(digits, 48), digits.labels, members, recipe.input, 8, 0)
    first = side.order(0)[0]
    plain, _ = next(side.training(0))
    shown, _ = next(side.training(0, order=np.full(16, first)))
    assert torch.equal(shown[0], plain[0])  # the first showing is what it always was
    assert len({image.sum().item() for image in shown}) > 4
