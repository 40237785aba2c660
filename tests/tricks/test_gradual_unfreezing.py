from __future__ import annotations

import pytest

from bagoftricks.errors import UserError
from bagoftricks.models.build import build
from bagoftricks.models.config import ModelConfig
from bagoftricks.tricks.gradual_unfreezing import GradualUnfreezing
from tests.tricks.test_linear_probe import free

ON = {"gradual_unfreezing.epochs": 1, "epochs": 2}


@pytest.mark.parametrize("epochs", [1, 2])
def test_one_stage_more_every_few_epochs(epochs: int) -> None:
    model = build(ModelConfig("CD", 18), 2)
    for epoch in range(7 * epochs):
        lowest = max(0, 5 - epoch // epochs)
        assert free(model, epoch, gradual=GradualUnfreezing(epochs)) == set(range(lowest, 6))


def test_neutral_is_off() -> None:
    assert not GradualUnfreezing().active


def test_refuses() -> None:
    with pytest.raises(UserError, match=r"gradual_unfreezing\.epochs"):
        GradualUnfreezing(-1)
