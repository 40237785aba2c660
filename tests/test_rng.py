from __future__ import annotations

import random

import numpy as np
import torch

from bagoftricks.rng import forked, stream, torch_stream, uniforms


def test_streams_depend_on_seed_name_and_step_only() -> None:
    first = stream(0, "order", 3).random(5)
    stream(0, "mixup", 3).random(1000)
    assert np.array_equal(first, stream(0, "order", 3).random(5))
    for other in (stream(1, "order", 3), stream(0, "crop", 3), stream(0, "order", 4)):
        assert not np.array_equal(first, other.random(5))


def test_torch_stream_repeats() -> None:
    assert torch.equal(torch.rand(4, generator=torch_stream(0, "a")), torch.rand(4, generator=torch_stream(0, "a")))


def test_uniforms_belong_to_their_item() -> None:
    together = uniforms(0, "crop", 2, np.array([5, 900_000, 7]), 23)
    alone = uniforms(0, "crop", 2, np.array([7]), 23)
    assert together.shape == (3, 23)
    assert np.array_equal(together[2], alone[0])
    assert ((together >= 0) & (together < 1)).all()


def test_uniforms_of_neighbours_do_not_overlap() -> None:
    draws = uniforms(0, "crop", 0, np.arange(100), 23)
    assert len(np.unique(draws)) == draws.size
    assert abs(draws.mean() - 0.5) < 0.03


def test_a_fork_is_seeded_and_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(3), random.random()
    torch.manual_seed(5)
    random.seed(5)
    drawn = []
    for _ in range(2):
        with forked(stream(0, "noise", 3)):
            drawn.append((torch.rand(3).tolist(), random.random()))
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]
    with forked(stream(0, "noise", 4)):
        assert torch.rand(3).tolist() != drawn[0][0]
