"""Any network of timm's as a backbone: built by timm, trained, measured, kept and served as a `ResNet` is.

Images come normalised by ImageNet's usual mean and deviation, as everywhere here; a network that wants others gets
them: x' = (x * std + mean - mean') / std'.

Shapes: N images, C channels, H x W pixels, h x w places, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagoftricks.data.input import MEAN, STD
from bagoftricks.errors import UserError
from bagoftricks.models.config import CLASSIFIER, ModelConfig
from bagoftricks.models.from_timm import about, need_timm
from bagoftricks.models.network import Network
from bagoftricks.rng import forked, stream

INNER = "network."
"""What the wrapper puts before timm's names."""
MEMBERS = 4
"""Stages that a network's layers are sorted into."""


class Backbone(Network):
    """A network of timm's with a classifier of K classes.

    Args:
        config: whose `backbone` names it.
        num_classes: K.
        seed: of the initial weights, which timm draws in its own order.

    Raises:
        UserError: for a name that timm does not have, or without timm.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, config: ModelConfig, num_classes: int, seed: int = 0) -> None:
        super().__init__()
        self.config, self.dropout = config, 0.0
        self.classes = tuple(str(i) for i in range(num_classes))
        known = about(config.timm_name)
        with forked(stream(seed, "init/backbone")):
            self.network = need_timm().create_model(config.timm_name, pretrained=False, num_classes=num_classes)
        self.stage = nn.Identity()
        self.mean, self.std = (tuple(known.get(name) or own) for name, own in (("mean", MEAN), ("std", STD)))
        mine, theirs = (
            [torch.tensor(x).view(1, 3, 1, 1) for x in pair] for pair in ((MEAN, STD), (self.mean, self.std))
        )
        self.register_buffer("scale", mine[1] / theirs[1], persistent=False)
        self.register_buffer("shift", (mine[0] - theirs[0]) / theirs[1], persistent=False)
        self.classifier_keys = _of_classes(config.timm_name, self.network, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Returns logits_NK."""
        if self.mean != MEAN or self.std != STD:
            x_NCHW = x_NCHW * self.scale + self.shift
        features = self.stage(self.network.forward_features(x_NCHW))
        if not self.dropout:
            return cast(Tensor, self.network.forward_head(features))
        pooled_NC = self.network.forward_head(features, pre_logits=True)
        return cast(Tensor, self.network.get_classifier()(F.dropout(pooled_NC, self.dropout, self.training)))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "dropout" and value and not self._ends_linearly():
            raise UserError(
                f"dropout acts before one linear classifier, which {self.config.backbone} has not: leave it off"
            )
        super().__setattr__(name, value)

    def _ends_linearly(self) -> bool:
        """Whether all that depends on the classes is one linear layer."""
        classifier = self.network.get_classifier()
        if not isinstance(classifier, nn.Linear):
            return False
        ours = {id(p) for p in classifier.parameters()}
        return ours == {id(p) for key, p in self.network.named_parameters() if key in self.classifier_keys}

    def depth_of(self, name: str) -> int:
        """As in `Network`, from what timm says of the network's layers: a module's is that of its first parameter.

        timm numbers layers in groups; the groups between the first and the last are shared out evenly among the four
        stages, so that a ConvNeXt's stages are its own and three blocks of a ViT of twelve are one. Where it has no
        groups, their order is that of the names.
        """
        depth = self._depths.get(name)
        if depth is None:
            depth = next((d for known, d in self._depths.items() if known.startswith(f"{name}.")), MEMBERS)
        return depth

    def undecayed(self) -> frozenset[str]:
        """As in `Network`, from timm."""
        listed = self.network.no_weight_decay() if hasattr(self.network, "no_weight_decay") else ()
        names = (name for name, _ in self.network.named_parameters())
        return frozenset(INNER + name for name in names if any(fnmatchcase(name, pattern) for pattern in listed))

    @cached_property
    def _depths(self) -> dict[str, int]:
        """The depth of each parameter."""
        names = [name for name, _ in self.network.named_parameters()]
        groups = self._groups() or _in_order(names)
        between = max(max(groups.values()) - 1, 1)

        def placed(group: int) -> int:
            return 0 if group == 0 else min(1 + (group - 1) * MEMBERS // between, MEMBERS)

        return {INNER + name: CLASSIFIER if name in self.classifier_keys else placed(groups[name]) for name in names}

    def _groups(self) -> dict[str, int]:
        """Returns timm's number of the group that each parameter is in; nothing where it has none for this network."""
        from timm.models import group_parameters

        try:
            found = group_parameters(self.network, self.network.group_matcher(coarse=True), reverse=True)
        except (AttributeError, AssertionError, TypeError, KeyError):
            return {}
        return dict(found) if all(name in found for name, _ in self.network.named_parameters()) else {}

    @property
    def last_stage(self) -> nn.Module:
        """What passes on the features that timm's head gets: (N, C, h, w), (N, h, w, C) or tokens."""
        return self.stage

    def head(self, stage_NChw: Tensor) -> Tensor:
        """As in `Network`; in the network's own precision."""
        dtype = next(self.network.parameters()).dtype
        return cast(Tensor, self.network.forward_head(stage_NChw.to(dtype)).float())

    def has_map(self, stage: Tensor) -> bool:
        """As in `Network`: some networks have channels last."""
        return isinstance(stage, Tensor) and stage.ndim == 4 and stage.shape[1] == self.network.num_features

    def weights(self) -> dict[str, Tensor]:
        """As in `Network`: timm's names."""
        return cast(dict[str, Tensor], self.network.state_dict())

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """As in `Network`."""
        self.network.load_state_dict(weights)


def _of_classes(name: str, network: Any, num_classes: int) -> tuple[str, ...]:
    """Returns the names of the parameters whose shapes depend on the number of classes."""
    with torch.device("meta"):
        other = dict(need_timm().create_model(name, pretrained=False, num_classes=num_classes + 1).named_parameters())
    return tuple(key for key, p in network.named_parameters() if p.shape != other[key].shape)


def _in_order(names: list[str]) -> dict[str, int]:
    """Returns groups of parameters in the order of their names, by the first two parts of these."""
    parts = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
    place = {part: i for i, part in enumerate(parts)}
    return {name: place[".".join(name.split(".")[:2])] for name in names}
