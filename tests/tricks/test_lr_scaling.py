from __future__ import annotations

import pytest

from bagoftricks.errors import UserError
from bagoftricks.tricks.lr_scaling import LrScaling
from tests.tricks.parameters import bag

ON = {"lr_scaling.per": 256}


def test_the_rate_grows_with_the_batch() -> None:
    assert bag(lr_scaling=LrScaling(256)).lr(0.1, 64) == pytest.approx(0.025)
    assert bag(lr_scaling=LrScaling(256)).lr(0.1, 1024) == pytest.approx(0.4)
    assert bag().lr(0.1, 64) == 0.1


def test_neutral_is_off() -> None:
    assert not LrScaling().active


def test_refuses() -> None:
    with pytest.raises(UserError, match=r"lr_scaling\.per"):
        LrScaling(-1)
