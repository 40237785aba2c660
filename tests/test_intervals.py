from __future__ import annotations

import pytest
from scipy import stats

from bagoftricks.intervals import wilson


def test_wilson() -> None:
    for k, n in ((0, 5), (5, 5), (3, 8)):
        theirs = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k, n) == pytest.approx((theirs.low, theirs.high))
    assert wilson(2.5, 5)[0] == pytest.approx(1 - wilson(2.5, 5)[1])
