"""Recipe: everything that determines one training, its seed aside. Frozen, typed, TOML and back.

It only composes: each part owns its config. Fields have dotted names, as in TOML: `optimizer.lr`, `mixup.alpha`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from bagoftricks.data.input import InputConfig
from bagoftricks.data.split import SplitConfig
from bagoftricks.data.untrusted import MOST_TOML, parse_toml, read_named
from bagoftricks.dotted import Value, attribute_docs, flatten, nest
from bagoftricks.errors import UserError, first_line, unknown
from bagoftricks.models.config import ADAPT, ModelConfig
from bagoftricks.optim import OptimizerConfig, ScheduleConfig
from bagoftricks.tricks.balanced_sampling import BalancedSampling
from bagoftricks.tricks.base import Trick
from bagoftricks.tricks.bce import Bce
from bagoftricks.tricks.class_weights import ClassWeights
from bagoftricks.tricks.cutmix import Cutmix
from bagoftricks.tricks.distillation import Distillation
from bagoftricks.tricks.dropout import Dropout
from bagoftricks.tricks.early_stopping import EarlyStopping
from bagoftricks.tricks.ema import Ema
from bagoftricks.tricks.fixres import Fixres
from bagoftricks.tricks.focal import Focal
from bagoftricks.tricks.gradient_clipping import GradientClipping
from bagoftricks.tricks.gradual_unfreezing import GradualUnfreezing
from bagoftricks.tricks.label_smoothing import LabelSmoothing
from bagoftricks.tricks.layerwise_lr import LayerwiseLr
from bagoftricks.tricks.linear_probe import LinearProbe
from bagoftricks.tricks.logit_adjustment import LogitAdjustment
from bagoftricks.tricks.lr_scaling import LrScaling
from bagoftricks.tricks.mixup import Mixup
from bagoftricks.tricks.no_bias_decay import NoBiasDecay
from bagoftricks.tricks.progressive_resizing import ProgressiveResizing
from bagoftricks.tricks.rand_augment import RandAugment
from bagoftricks.tricks.random_erasing import RandomErasing
from bagoftricks.tricks.repeated_augmentation import RepeatedAugmentation
from bagoftricks.tricks.sam import Sam
from bagoftricks.tricks.stochastic_depth import StochasticDepth
from bagoftricks.tricks.test_time_flip import TestTimeFlip
from bagoftricks.tricks.trivial_augment import TrivialAugment

SCHEMA = 1
"""Raised when the meaning of existing fields changes, and only then: identities hash it."""
NEUTRAL: dict[str, Value] = {
    "split.test_fraction": 0.0,
    "split.duplicates": "ignore",
    "input.crop": "center",
    "model.backbone": "resnet",
    "schedule.step_epochs": 30.0,
    "schedule.step_factor": 0.1,
}
"""Fields added after the first version, tricks apart, with the value that does what was done before them: at that value
they are left out of identities."""

PATHS = ("init", "distillation.teacher")
"""Fields that may name files of this machine."""


@dataclass(frozen=True)
class Recipe:
    """One training. The defaults suit fine-tuning from ImageNet weights on a folder of photographs."""

    epochs: int = 10
    """Passes over the training images, from 1."""
    batch_size: int = 64
    """Images a step, from 2 up to the number of training images."""
    init: str = "scratch"
    """Initial weights: scratch, a .safetensors or .pth file with torchvision's or timm's keys, or a name that `tricks
    weights` lists; with adapt: before it, made to fit the architecture. A study that needs ImageNet weights says
    imagenet, and asks for them."""
    model: ModelConfig = ModelConfig()
    input: InputConfig = InputConfig()
    split: SplitConfig = SplitConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig(decay="cosine", warmup_epochs=0.5)
    balanced_sampling: BalancedSampling = BalancedSampling()
    repeated_augmentation: RepeatedAugmentation = RepeatedAugmentation()
    trivial_augment: TrivialAugment = TrivialAugment()
    rand_augment: RandAugment = RandAugment()
    random_erasing: RandomErasing = RandomErasing()
    label_smoothing: LabelSmoothing = LabelSmoothing(amount=0.1)
    mixup: Mixup = Mixup()
    cutmix: Cutmix = Cutmix()
    dropout: Dropout = Dropout()
    stochastic_depth: StochasticDepth = StochasticDepth()
    logit_adjustment: LogitAdjustment = LogitAdjustment()
    class_weights: ClassWeights = ClassWeights()
    focal: Focal = Focal()
    bce: Bce = Bce()
    distillation: Distillation = Distillation()
    linear_probe: LinearProbe = LinearProbe()
    gradual_unfreezing: GradualUnfreezing = GradualUnfreezing()
    fixres: Fixres = Fixres()
    progressive_resizing: ProgressiveResizing = ProgressiveResizing()
    lr_scaling: LrScaling = LrScaling()
    layerwise_lr: LayerwiseLr = LayerwiseLr()
    no_bias_decay: NoBiasDecay = NoBiasDecay()
    sam: Sam = Sam()
    gradient_clipping: GradientClipping = GradientClipping()
    ema: Ema = Ema()
    early_stopping: EarlyStopping = EarlyStopping()
    test_time_flip: TestTimeFlip = TestTimeFlip()

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= 100_000:
            raise UserError(f"epochs = {self.epochs}: must be between 1 and 100000")
        if not 2 <= self.batch_size <= 1_000_000:
            raise UserError(f"batch_size = {self.batch_size}: must be between 2 and 1000000")
        if not self.init:
            raise UserError("init is empty: pass 'scratch' or a file of weights")
        if self.schedule.warmup_epochs > self.epochs:
            raise UserError(
                f"schedule.warmup_epochs = {self.schedule.warmup_epochs}: more than the {self.epochs} epochs trained"
            )
        if self.linear_probe.epochs >= self.epochs:
            raise UserError(f"linear_probe.epochs = {self.linear_probe.epochs}: must be below epochs = {self.epochs}")
        self._check_backbone()
        losses = [name for name, trick in self.tricks.items() if type(trick).loss is not Trick.loss]
        if len(losses) > 1:
            raise UserError(f"{' and '.join(losses)} each take the place of the loss: switch on one of them")
        if sum(bool(trick.taught_by) for trick in self.tricks.values()) > 1:
            raise UserError("two tricks each name a teacher: switch on one of them")

    def _check_backbone(self) -> None:
        """Refuses what only a ResNet has a place for."""
        if self.model.is_resnet:
            return
        if self.init.startswith(ADAPT):
            raise UserError(f"init = {self.init}: weights are adapted among ResNets, not to {self.model.backbone}")
        for name, trick in self.tricks.items():
            if trick.resnet_only:
                raise UserError(f"{name} acts on a ResNet's blocks, which {self.model.backbone} has not: leave it off")

    @property
    def tricks(self) -> dict[str, Trick]:
        """The active tricks by field name, in the order in which they act."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: part for name, part in parts.items() if isinstance(part, Trick) and part.active}

    @property
    def teacher(self) -> str:
        """Folder of the model that it learns from, or its name in timm; "" for none."""
        return next((trick.taught_by for trick in self.tricks.values() if trick.taught_by), "")

    def training_size(self, epoch: int) -> int:
        """Returns the side of the training images of an epoch, counted from 0, in pixels."""
        size = self.input.size
        for trick in self.tricks.values():
            size = trick.on_size(size, epoch, self.epochs)
        return size

    @property
    def sizes(self) -> list[int]:
        """The sides of the images that the network sees, in pixels: `input.size`, then those of training alone."""
        return [self.input.size, *sorted({self.training_size(e) for e in range(self.epochs)} - {self.input.size})]

    @property
    def cost(self) -> float:
        """The time of a training with its tricks over that without, as well as can be told beforehand."""
        return math.prod(trick.cost(self.epochs) for trick in self.tricks.values())

    def flat(self) -> dict[str, Value]:
        """Every field by its dotted name."""
        return {name: _get(self, name) for name in field_types()}

    def with_fields(self, changes: Mapping[str, Value]) -> Recipe:
        """Returns a copy with dotted fields changed, e.g. `{"mixup.alpha": 0.2}`.

        Raises:
            UserError: for an unknown field (naming the nearest), a wrong type, or a value out of range.
        """
        for name in changes:
            if name not in field_types():
                raise unknown("recipe field", name, field_types())
        top: dict[str, Any] = {}
        nested: dict[str, dict[str, Value]] = {}
        for name, value in changes.items():
            part, _, leaf = name.rpartition(".")
            (nested.setdefault(part, {}) if part else top)[leaf] = _coerce(name, value)
        return replace(self, **top, **{part: replace(getattr(self, part), **sub) for part, sub in nested.items()})

    def canonical(self) -> dict[str, Value]:
        """The fields that make this recipe what it is: those of inactive tricks are left out, and so are neutral values
        of active ones, so that a trick added later changes no identity.
        """
        kept = {}
        for name, value in self.flat().items():
            part = getattr(self, name.partition(".")[0])
            if isinstance(part, Trick) and (not part.active or value == _get(type(part)(), name.partition(".")[2])):
                continue
            if name in NEUTRAL and value == NEUTRAL[name]:
                continue
            kept[name] = float(value) if field_types()[name] is float else value
        return kept

    def to_toml(self) -> str:
        """TOML with every field, resolved."""
        import tomli_w

        return tomli_w.dumps(nest(self.flat()))

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        """Reads TOML; fields that are absent keep their defaults.

        Raises:
            UserError: for broken TOML, or what `with_fields` refuses.
        """
        try:
            return cls().with_fields(flatten(parse_toml(text)))
        except ValueError as error:
            raise UserError(f"recipe is no valid TOML: {first_line(error)[:300]}") from error

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Reads a recipe from a TOML file."""
        return cls.from_toml(read_named(path, "recipe", MOST_TOML))


@dataclass(frozen=True)
class Conditions:
    """What else determines a run's result, beside its recipe."""

    seed: int
    data: str
    """Fingerprint of the data set's content."""
    weights: str = "scratch"
    """Hash of the initial weights' file, or "scratch"."""
    teacher: str = ""
    """Hash of the model that it learns from; "" for none."""
    threads: int = 1
    precision: str = "fp32"
    device: str = "cpu"
    deterministic: bool = False
    """Whether a GPU was held to exact algorithms; a CPU's always are, and say no."""
    kernels: str = "torch"
    """torch, or native: `bagoftricks.kernels`."""


def identity(recipe: Recipe, conditions: Conditions) -> str:
    """Returns the run's name: 16 hexadecimal digits of a hash over all that determines the result.

    The paths of the initial weights and of a teacher do not count, their contents do.
    """
    kept = {name: value for name, value in recipe.canonical().items() if name not in PATHS}
    # left out at their neutral values, so that runs from before they existed keep their names
    neutral = {"deterministic": False, "kernels": "torch", "teacher": ""}
    where = {name: value for name, value in vars(conditions).items() if neutral.get(name, ...) != value}
    material = {"schema": SCHEMA, "recipe": kept, "conditions": where}
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()[:16]


@cache
def field_types() -> dict[str, type]:
    """The dotted name and plain type (bool, int, float or str) of every field, in order."""
    types: dict[str, type] = {}
    for name, hint in get_type_hints(Recipe).items():
        if is_dataclass(hint):
            for leaf, leaf_hint in get_type_hints(hint).items():
                types[f"{name}.{leaf}"] = leaf_hint if isinstance(leaf_hint, type) else str
        else:
            types[name] = hint
    return types


@cache
def field_help() -> dict[str, str]:
    """The docstring of every field, by its dotted name."""
    texts: dict[str, str] = {}
    for name, hint in get_type_hints(Recipe).items():
        if is_dataclass(hint) and isinstance(hint, type):
            texts |= {f"{name}.{leaf}": text for leaf, text in attribute_docs(hint).items()}
        else:
            texts[name] = attribute_docs(Recipe)[name]
    return texts


def parse_value(name: str, text: str) -> Value:
    """Reads a field's value from the command line.

    Raises:
        UserError: for an unknown field or a text that is none of its values.
    """
    if name not in field_types():
        raise unknown("recipe field", name, field_types())
    kind = field_types()[name]
    if kind is bool:
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise UserError(f"{name} = {text}: must be true or false")
    try:
        return kind(text)  # type: ignore[no-any-return]
    except ValueError:
        raise UserError(f"{name} = {text}: must be a number{' without decimals' if kind is int else ''}") from None


def _coerce(name: str, value: Value) -> Value:
    kind = field_types()[name]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise UserError(f"{name} = {value!r}: must be {wanted}")
    return value


def _get(owner: Any, name: str) -> Value:
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner  # type: ignore[no-any-return]
