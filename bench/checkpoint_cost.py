"""What a checkpoint costs: a part of `bench/study.py`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bench.growth import clean
from bench.summary import Spread


def checkpoint_cost(work: Path, repeats: int) -> dict[str, Any]:
    """Returns what a checkpoint of a ResNet-50 with AdamW's moments takes, in seconds and MB.

    waits: what training waits for, the copy in memory; written: from then until it lies on the disk, by a thread which
    shares the processors with the training. The first one is left out.
    """
    import torch

    from bagoftricks.models.resnet import ResNet
    from bagoftricks.optim import OptimizerConfig
    from bagoftricks.training.checkpoint import Checkpoints, State
    from bagoftricks.training.hardware import detect

    detect("cpu").prepare()  # memory is kept, as in a training
    model = ResNet("B", 50, num_classes=101).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = OptimizerConfig().build(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    checkpoints = Checkpoints(clean(work / "checkpoint"), {}, minutes=1)
    waits, written = [], []
    for epoch in range(repeats + 1):
        state = State(epoch, 0, model.state_dict(), optimizer.state_dict(), {}, torch.zeros(1), [], 0.0, 0.0)
        began = time.perf_counter()
        checkpoints.save(state)
        copied = time.perf_counter()
        checkpoints.wait()
        waits.append(copied - began)
        written.append(time.perf_counter() - copied)
    return {
        "waits_s": vars(Spread.of(waits[1:])),
        "written_s": vars(Spread.of(written[1:])),
        "mb": checkpoints.path.stat().st_size / 1e6,
    }
