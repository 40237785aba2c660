"""A teacher for tests: a small network that knows the digits' classes, untrained."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from bagoftricks.data.input import InputConfig
from bagoftricks.models.folder import save_model
from bagoftricks.models.resnet import ResNet

DIGITS = tuple(str(i) for i in range(10))


def write_teacher(folder: Path, classes: tuple[str, ...] = DIGITS, seed: int = 9) -> Path:
    model = ResNet("A", 10, len(classes), seed=seed)
    save_model(model, classes, InputConfig(32), folder)
    return folder


@cache
def digits_teacher() -> Path:
    """One for the whole process."""
    folder = Path(tempfile.mkdtemp(prefix="bagoftricks-teacher-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_teacher(folder)
