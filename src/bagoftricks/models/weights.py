"""Initial weights: read from a file, fitted into an architecture, with an account of what was taken and what was not.

Keys of torchvision and timm are understood (they agree but for a deep stem and an average-pool shortcut, whose names
are timm's here too), and those of pytorchcv are renamed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bagoftricks.data.input import MEAN, STD
from bagoftricks.data.names import shown
from bagoftricks.data.untrusted import RefusedError, parse_json
from bagoftricks.errors import UserError, first_line
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.hub import known_checksum, sha256_of
from bagoftricks.models.keys import is_of_transformers
from bagoftricks.models.mismatch import depth_of, lack, left_random, mismatch
from bagoftricks.models.network import Network
from bagoftricks.models.published import (
    MOST_LICENCE,
    TEACHER_LICENCE,
    UNKNOWN,
    Published,
    identify,
    licence_of,
    trained_in,
)
from bagoftricks.models.resnet import roles
from bagoftricks.models.state import check_tensor, read_state

IMAGENET = 1000
"""Classes of ImageNet."""
SYNSET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class WeightsReport:
    """What happened to each tensor of the model when weights were loaded."""

    source: str
    matched: int
    """Tensors taken from the file."""
    replaced: tuple[str, ...]
    """Classifier tensors drawn anew because the classes differ."""
    random: tuple[str, ...]
    """Tensors left as drawn: the file has none of their role and shape."""
    unused: tuple[str, ...]
    """Tensors of the file that the model has no place for."""
    warning: str
    """What a mismatch of architectures means for the result; empty where there is none."""
    licence: str = UNKNOWN
    """Of the weights; "" where the file says that its training inherited none."""
    teacher_licence: str = ""
    """Of the weights that a teacher of theirs comes from; "" where the file names none."""
    name: str = ""
    """Of the published weights that the file is; empty where it is none that is known."""
    unverified: bool = False
    """Whether it was taken for them by its name alone: no checksum of it is known here."""

    def summary(self) -> str:
        """One line for people: what matched, what was replaced, what was left random, and the licence."""
        left = f", {len(self.random)} left random ({_shorten(self.random)})" if self.random else ""
        classifier = ", classifier replaced" if self.replaced else ", classifier taken"
        unused = f", {len(self.unused)} of the file unused ({_shorten(self.unused)})" if self.unused else ""
        unverified = ", whose checksum is not known here" if self.unverified else ""
        source = f"{self.name} ({self.source}{unverified})" if self.name else self.source
        licence = f"; licence {self.licence}" if self.licence else ""
        return f"{source}: {self.matched} tensors matched{classifier}{left}{unused}{licence}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _shorten(names: tuple[str, ...], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def load_initial(model: Network, path: Path, item: Published | None = None) -> WeightsReport:
    """Copies into `model`, in place, every tensor of the file that has its role and shape, as float32.

    A classifier is taken only if it has as many classes, and, where the file names them, the same ones; one of 1,000
    that nobody has named is taken for ImageNet's. On a model of torch's meta device nothing is copied, and the report
    tells what would be.

    Args:
        model: whose weights are replaced.
        path: the file.
        item: which published weights it is, where they were asked for by name; by default it is told by its checksum.

    Raises:
        UserError: for an unreadable file, one of another depth, one in which nothing fits, or weights that are not
            finite numbers.
    """
    state, metadata = read_state(path)
    resnet, classifier = model.config.is_resnet, model.classifier_keys
    if resnet:
        _check_depth(state, path, model.config)
    named = roles if resnet else _as_they_are
    offered = {name: state[key] for key, name in named(state).items()}
    if not _are_classes_of(model.classes, metadata):
        offered = {name: tensor for name, tensor in offered.items() if name not in classifier}
    own = model.weights()
    matched, replaced, random = [], [], []
    with torch.no_grad():
        for key, name in named(own).items():
            tensor = offered.get(name)
            if tensor is not None and tensor.shape == own[key].shape:
                try:
                    check_tensor(key, tensor, whole=not own[key].is_floating_point())
                except RefusedError as error:
                    raise UserError(f"initial weights {path}: {first_line(error)}; pass another file") from error
                own[key].copy_(tensor)
                matched.append(name)
            elif key in classifier:
                replaced.append(key)
            elif not key.endswith("num_batches_tracked"):
                random.append(key)
    found = identify(path, sha256_of(path))
    unverified = item is not None and item != found and not known_checksum(item, path)[1]
    item = item or found
    if resnet and item and (item.mean, item.std) != (MEAN, STD):
        raise UserError(
            f"initial weights {item.name}: want images of another mean and deviation than a ResNet gets here; as a "
            f"backbone of timm's they get them: --model {item.name}"
        )
    if not matched:
        raise UserError(f"initial weights {path}: none of its tensors fits {model.config.name}; pass another file")
    if resnet:
        warning = mismatch(model.config, state, metadata, item) or left_random(model, random)
    else:
        warning = left_random(model, random) or lack(model, item, metadata)
    return WeightsReport(
        source=path.name,
        matched=len(matched),
        replaced=tuple(replaced),
        random=tuple(random),
        unused=tuple(sorted(set(offered) - set(matched) - set(classifier))),
        warning=warning,
        licence=licence_of(path, item),
        teacher_licence="" if item else shown(metadata.get(TEACHER_LICENCE, ""))[:MOST_LICENCE],
        name=item.name if item else "",
        unverified=unverified,
    )


def _are_classes_of(classes: tuple[str, ...], metadata: Mapping[str, str]) -> bool:
    """Whether a file's classifier may be one of these classes, as far as it says.

    Files of ImageNet weights say nothing, and its classes in order are numbers or synsets (n01440764).
    """
    named = classes_of(metadata)
    if named is not None or len(classes) != IMAGENET:
        return named in (None, classes)
    numbers = tuple(map(str, range(IMAGENET)))
    return classes == numbers or (all(map(SYNSET.fullmatch, classes)) and list(classes) == sorted(classes))


def classes_of(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Returns the names of classes that a file's metadata state; None where they state none that can be read."""
    try:
        names = parse_json(metadata["classes"])
    except (KeyError, ValueError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _as_they_are(state: dict[str, Tensor]) -> dict[str, str]:
    """As `roles`, of a network whose names stand for themselves."""
    return {key: key for key in state}


def _check_depth(state: dict[str, Tensor], path: Path, config: ModelConfig) -> None:
    """Refuses what is no ResNet of the depth; `load_initial` says how."""
    if is_of_transformers(state):
        instead = next(iter(trained_in(config)), None)
        advice = f"for example {instead.name}" if instead else "tricks weights lists some"
        raise UserError(
            f"initial weights {path}: its tensors have the names of Hugging Face transformers' ResNet, which are not "
            f"understood; pass weights with timm's or torchvision's names, {advice}"
        )
    depth = depth_of(state)
    if depth != config.depth:
        found = f"a ResNet-{depth}" if depth else "no ResNet"
        raise UserError(f"initial weights {path}: {found}, which does not fit {config.name}")
