"""The facts that a model card states, all of them plain values. Imports no torch.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PureWindowsPath

import numpy as np
import numpy.typing as npt

from bagoftricks.models.config import ModelConfig

CONFUSED = 5
"""Pairs of classes that a card lists as confused."""
MEASURES = ("top1", "top5", "mean_class_acc", "macro_f1", "loss")


@dataclass(frozen=True)
class Scores:
    """What a model guessed of one labelled set, counted."""

    measures: Mapping[str, float]
    """As in `result.json`: top1, top5 (from six classes on), mean_class_acc, macro_f1, in [0, 1]; loss, in nats."""
    class_images: tuple[int, ...]
    """(K,) images of each class."""
    class_correct: tuple[int, ...]
    """(K,) of those, images whose surest guess is right."""
    confusions: tuple[tuple[int, int, int], ...]
    """(true class, guess, images) of the most frequent mistakes, most frequent first."""

    @property
    def images(self) -> int:
        return sum(self.class_images)


def scores(measures: Mapping[str, float], logits_NK: npt.NDArray[np.float32], label_N: npt.NDArray[np.int64]) -> Scores:
    """Returns a set's scores from the model's logits, the images' labels and what was measured of both."""
    guess_N, classes = logits_NK.argmax(1), logits_NK.shape[1]
    right_N = guess_N == label_N
    pairs, counts = np.unique(label_N[~right_N] * classes + guess_N[~right_N], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CONFUSED]
    return Scores(
        {name: measures[name] for name in MEASURES if name in measures},
        tuple(np.bincount(label_N, minlength=classes).tolist()),
        tuple(np.bincount(label_N[right_N], minlength=classes).tolist()),
        tuple((int(pairs[i]) // classes, int(pairs[i]) % classes, int(counts[i])) for i in order),
    )


@dataclass(frozen=True)
class CardFacts:
    """What a card says; all of it plain values."""

    config: ModelConfig
    """Which network."""
    size: int
    """Side of the square that the network sees when it is evaluated, pixels."""
    crop: str
    """center, pad or squash."""
    crop_pct: float
    """Side of a centre crop as a share of the short side, in (0, 1]; for the others without meaning."""
    classes: tuple[str, ...]
    """K names, in the order of the logits."""
    data: str
    """The data set's name."""
    fingerprint: str
    """Hash of the data set's content."""
    given_split: bool
    """Whether the data set brought its own validation set."""
    train_images: int
    val_images: int
    test_images: int
    """Locked away; 0 where there is no test set."""
    run_id: str
    seed: int
    recipe: Mapping[str, str | int | float | bool]
    """Every field by its dotted name; `init` as `public_init` gives it."""
    defaults: Mapping[str, str | int | float | bool]
    """The same fields with the values that they have where nobody sets them."""
    recipe_toml: str
    """The whole recipe as TOML, `init` as above."""
    validation: Scores
    init: str
    """Initial weights: "scratch", a published name ("torchvision:IMAGENET1K_V2") or a file's name without folders."""
    licence: str = ""
    """Of the initial weights; "" from scratch, "unknown" where nobody said."""
    init_sha256: str = ""
    init_warning: str = ""
    """What a mismatch of architectures means; "" where there is none."""
    trained_size: int = 0
    """Side of the training images of the last epoch, pixels; 0 where it is `size`."""
    mirrored: bool = False
    """Whether its logits are averaged with those of the mirror image, in measuring and in predicting."""
    teacher: str = ""
    """Whom it learnt from: "ResNet-50-B of run 0123456789abcdef"; "" where it had no teacher."""
    teacher_licence: str = ""
    """Of the weights that the teacher began with; as `licence`."""
    knows: tuple[str, ...] = ()
    """Why its teacher or its initial weights may know the validation images; nothing where they do not."""
    groups: int | None = None
    """Groups of images that belong together (a patient, a scene); None where none are known."""
    test: Scores | None = None
    """Measured on the test set; None where it was not."""
    temperature: float | None = None
    """Fitted on the validation set; None where none was."""
    calibration_before: float | None = None
    """Expected calibration error on the validation set at temperature 1, in [0, 1]."""
    calibration_after: float | None = None
    """The same at the fitted temperature."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of software and machine, by name, as in `environment.json`."""
    command: str = ""
    """The command that made it, as typed in a shell; "" where none did."""


def public_init(init: str) -> str:
    """Returns initial weights or a teacher as a recipe names them, without folders, which may hold a user's name.

    Of a folder that is named by the seed alone, the one above stays: "teachers/{seed}".
    """
    kind, colon, path = init.partition(":")
    if colon and len(kind) > 1:  # "adapt:PATH", "torchvision:IMAGENET1K_V2"; one letter is a drive
        return f"{kind}:{PureWindowsPath(path).name}"
    *above, name = PureWindowsPath(init).parts or ("",)
    return f"{above[-1]}/{name}" if name == "{seed}" and above else name
