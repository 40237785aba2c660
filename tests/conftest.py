"""Small things to train on. Nothing here needs the shared data; tests that do skip without it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from bagoftricks.data.digits import read_digits
from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.recipe import Recipe

ROOT = Path(__file__).parent.parent
hypothesis.settings.register_profile("house", deadline=None)  # the first example imports; machines are busy
hypothesis.settings.load_profile("house")
SHARED = Path(os.environ.get("BAGOFTRICKS_SHARED", ROOT.parent / "shared"))


@pytest.fixture(autouse=True, scope="session")
def hasty_disk() -> Iterator[None]:
    """What tests write in this process need not outlive a power cut; the processes that they start sync in earnest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


def pytest_configure(config: pytest.Config) -> None:
    """Keeps tests, their collection and the processes that they start out of the user's cache."""
    folder, patch = tempfile.TemporaryDirectory(prefix="bagoftricks-tests-"), pytest.MonkeyPatch()
    patch.setenv("BAGOFTRICKS_CACHE", folder.name)
    config.add_cleanup(folder.cleanup)
    config.add_cleanup(patch.undo)


def make_photos(root: Path, classes: tuple[str, ...] = ("cat", "dog", "owl"), each: int = 10) -> Path:
    """Writes JPEGs of random sizes; each class has a colour of its own, so that it can be learnt."""
    draw = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            height, width = draw.integers(40, 80, 2)
            pixels = draw.integers(0, 80, (height, width, 3), dtype=np.uint8)
            pixels[..., label % 3] += np.uint8(150)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.jpg")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of thirty photographs in three classes."""
    return make_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def digits() -> ImageIndex:
    """Twenty digits of each class."""
    whole = read_digits()
    return subset(whole, np.concatenate([np.flatnonzero(whole.labels == k)[:20] for k in range(10)]).tolist())


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """The smallest training there is: a second or two."""
    return Recipe().with_fields(
        {
            "epochs": 2,
            "batch_size": 16,
            "model.tweaks": "A",
            "model.depth": 10,
            "input.size": 32,
            "input.flip": False,
            "input.crop_min": 0.7,
            "schedule.warmup_epochs": 0.0,
        }
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED}; set BAGOFTRICKS_SHARED")
    return SHARED
