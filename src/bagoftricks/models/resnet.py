"""ResNet with the tweaks of He et al. 2019 as constructor arguments.

| tweak | what changes                                               | where it comes from                        |
|-------|------------------------------------------------------------|--------------------------------------------|
| A     | nothing: stride 2 in the first 1x1 of a bottleneck         | He et al. 2015, arXiv:1512.03385           |
| B     | stride 2 moves to the 3x3, so no input is skipped          | Gross and Wilber 2016; torchvision's model |
| C     | the stem's 7x7 becomes three 3x3 of 32, 32, 64 channels    | Szegedy et al. 2016; He et al. 2019        |
| D     | the shortcut pools 2x2 before its 1x1, which has stride 1  | He et al. 2019, arXiv:1812.01187           |
| E     | squeeze-and-excitation: channels weighed by their means    | Hu et al. 2018, arXiv:1709.01507           |
| F     | a 3x3 blur does the halving, after a ReLU or the max pool  | Zhang 2019, arXiv:1904.11486               |

They compose: `ResNet("BCD")` is ResNet-50-D of He et al. 2019. E and F are as in timm: shortcuts are not blurred.
State-dict keys are torchvision's, and timm's where a tweak adds layers, so that published weights load without
renaming.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagoftricks.models.config import BLOCKS, CLASSIFIER, ModelConfig, is_bottleneck
from bagoftricks.models.network import Network
from bagoftricks.models.units import (
    BlurPool,
    SqueezeExcitation,
    conv_norm,
    conv_norm_add_relu,
    conv_norm_relu,
    drop_add_relu,
    sequence_norm_relu,
)
from bagoftricks.rng import torch_stream


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Returns a convolution that keeps the size but for its stride, without bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, for depths 18 and 34."""

    expansion = 1
    drop_prob = 0.0
    """Probability that its branch is left out of an image's pass in training."""

    def __init__(self, inputs: int, width: int, stride: int, tweaks: str, downsample: nn.Module | None) -> None:
        super().__init__()
        blurred = "F" in tweaks and stride > 1
        self.conv1 = conv(inputs, width, 3, 1 if blurred else stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.aa = BlurPool(width) if blurred else None
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.se = SqueezeExcitation(width) if "E" in tweaks else None
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn2

    def forward(self, x_NCHW: Tensor) -> Tensor:
        shortcut = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        x_NCHW = conv_norm_relu(self.conv1, self.bn1, self.relu, x_NCHW)
        x_NCHW = x_NCHW if self.aa is None else self.aa(x_NCHW)
        return _joined(self, self.conv2, self.bn2, x_NCHW, shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the stride is in the first, or with tweak B in the second."""

    expansion = 4
    drop_prob = 0.0
    """Probability that its branch is left out of an image's pass in training."""

    def __init__(self, inputs: int, width: int, stride: int, tweaks: str, downsample: nn.Module | None) -> None:
        super().__init__()
        stride1, stride2 = (1, stride) if "B" in tweaks else (stride, 1)
        blurred1, blurred2 = ("F" in tweaks and s > 1 for s in (stride1, stride2))
        self.conv1 = conv(inputs, width, 1, 1 if blurred1 else stride1)
        self.bn1 = nn.BatchNorm2d(width)
        self.aa1 = BlurPool(width) if blurred1 else None
        self.conv2 = conv(width, width, 3, 1 if blurred2 else stride2)
        self.bn2 = nn.BatchNorm2d(width)
        self.aa = BlurPool(width) if blurred2 else None
        self.conv3 = conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.se = SqueezeExcitation(width * self.expansion) if "E" in tweaks else None
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn3

    def forward(self, x_NCHW: Tensor) -> Tensor:
        shortcut = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        x_NCHW = conv_norm_relu(self.conv1, self.bn1, self.relu, x_NCHW)
        x_NCHW = x_NCHW if self.aa1 is None else self.aa1(x_NCHW)
        x_NCHW = conv_norm_relu(self.conv2, self.bn2, self.relu, x_NCHW)
        x_NCHW = x_NCHW if self.aa is None else self.aa(x_NCHW)
        return _joined(self, self.conv3, self.bn3, x_NCHW, shortcut)


def _joined(
    block: BasicBlock | Bottleneck, conv: nn.Conv2d, norm: nn.BatchNorm2d, x_NCHW: Tensor, shortcut_NCHW: Tensor
) -> Tensor:
    """Returns a block's output from its last convolution and norm on."""
    drop_prob = block.drop_prob if block.training else 0.0
    if block.se is None and not drop_prob:
        return conv_norm_add_relu(conv, norm, x_NCHW, shortcut_NCHW)
    branch_NCHW = conv_norm(conv, norm, x_NCHW)
    if block.se is not None:
        branch_NCHW = block.se(branch_NCHW)
    return drop_add_relu(branch_NCHW, shortcut_NCHW, drop_prob)


class Projection(nn.Sequential):
    """A shortcut's layers: a pool maybe, a convolution, a batch-norm."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        *before, projection, norm = self
        for layer in before:
            x_NCHW = layer(x_NCHW)
        assert isinstance(projection, nn.Conv2d)
        return conv_norm(projection, norm, x_NCHW)


def shortcut_projection(inputs: int, outputs: int, stride: int, tweaks: str) -> nn.Sequential:
    """Returns the shortcut where shapes change: a strided 1x1, or with tweak D an average pool and a plain 1x1.

    The pool is ceil-mode and does not count padding, so that odd sizes agree with the strided path (as in timm).
    """
    if "D" not in tweaks:
        return Projection(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
    pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return Projection(pool, conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))


def stage(
    block: type[BasicBlock | Bottleneck], count: int, inputs: int, width: int, stride: int, tweaks: str
) -> nn.Sequential:
    """Returns `count` blocks that share a size; the first one changes it."""
    outputs = width * block.expansion
    changes = stride > 1 or inputs != outputs
    downsample = shortcut_projection(inputs, outputs, stride, tweaks) if changes else None
    first = block(inputs, width, stride, tweaks, downsample)
    return nn.Sequential(first, *(block(outputs, width, 1, tweaks, None) for _ in range(count - 1)))


def deep_stem(width: int = 32) -> nn.Sequential:
    """Returns tweak C's three 3x3 convolutions in place of the 7x7."""
    return nn.Sequential(
        conv(3, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        conv(width, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        conv(width, 2 * width, 3),
    )  # fmt: skip


def blurred_max_pool(channels: int) -> nn.Sequential:
    """Returns tweak F's max pool: over every position, then a blur that halves."""
    return nn.Sequential(nn.MaxPool2d(3, 1, padding=1), BlurPool(channels))


STAGES = {"conv1": 0, "bn1": 0, "layer1": 1, "layer2": 2, "layer3": 3, "layer4": 4, "fc": CLASSIFIER}
"""Depth of a parameter, by the first part of its name."""


class ResNet(Network):
    """A ResNet with any combination of the tweaks B to F.

    Args:
        tweaks: "A" for none, or letters of B to F; see the table at the top of this file.
        depth: 10, 18, 34, 50, 101 or 152; B needs bottlenecks, so 50 or more.
        num_classes: K.
        zero_init_gamma: start each block's last batch-norm weight at zero (Goyal et al. 2017, arXiv:1706.02677).
        seed: of the initial weights, which are drawn per layer by its role, so that layers two architectures share
            start equal.

    Raises:
        UserError: where tweaks or depth are not valid together.
    """

    def __init__(
        self, tweaks: str = "B", depth: int = 50, num_classes: int = 1000, zero_init_gamma: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        self.config = ModelConfig(tweaks, depth, zero_init_gamma)
        self.dropout = 0.0
        self.classifier_keys = ("fc.weight", "fc.bias")
        self.classes = tuple(str(i) for i in range(num_classes))
        tweaks = self.config.tweaks
        block = Bottleneck if is_bottleneck(depth) else BasicBlock
        blocks = BLOCKS[depth]
        self.conv1 = deep_stem() if "C" in tweaks else conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = blurred_max_pool(64) if "F" in tweaks else nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = stage(block, blocks[0], 64, 64, 1, tweaks)
        self.layer2 = stage(block, blocks[1], 64 * block.expansion, 128, 2, tweaks)
        self.layer3 = stage(block, blocks[2], 128 * block.expansion, 256, 2, tweaks)
        self.layer4 = stage(block, blocks[3], 256 * block.expansion, 512, 2, tweaks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        initialise(self, seed)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Returns logits_NK for normalised images of any size from 32 pixels up."""
        x_NCHW = self.maxpool(sequence_norm_relu(self.conv1, self.bn1, self.relu, x_NCHW))
        x_NCHW = self.layer1(x_NCHW)
        x_NCHW = self.layer2(x_NCHW)
        x_NCHW = self.layer3(x_NCHW)
        x_NCHW = self.layer4(x_NCHW)
        features_NC = self.avgpool(x_NCHW).flatten(1)
        if self.dropout:
            features_NC = F.dropout(features_NC, self.dropout, self.training)
        logits_NK: Tensor = self.fc(features_NC)
        return logits_NK

    def depth_of(self, name: str) -> int:
        """As in `Network`."""
        return depth_of(name)

    @property
    def last_stage(self) -> nn.Module:
        """As in `Network`."""
        return self.layer4

    def head(self, stage_NChw: Tensor) -> Tensor:
        """As in `Network`."""
        return F.linear(stage_NChw.float().mean((2, 3)), self.fc.weight.float(), self.fc.bias.float())

    def blocks(self) -> Iterator[BasicBlock | Bottleneck]:
        """Yields the residual blocks, from the stem to the classifier."""
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            yield from layer  # type: ignore[misc]


def depth_of(name: str) -> int:
    """Returns the depth of a parameter: 0 for the stem, 1 to 4 for the stages, 5 for the classifier."""
    return STAGES[name.partition(".")[0]]


def roles(state: dict[str, Tensor]) -> dict[str, str]:
    """Maps each state-dict key to what it stands for, the same in every architecture.

    Tweak D's pool shifts the numbers of a shortcut's layers; its convolution is told from its norm by 4 dimensions.
    """
    names = {}
    for key, tensor in state.items():
        kind = "conv" if tensor.ndim == 4 else "norm"
        names[key] = re.sub(r"\.downsample\.\d+\.", f".downsample.{kind}.", key)
    return names


@torch.no_grad()
def initialise(model: ResNet, seed: int) -> None:
    """Draws initial weights in place: He-normal over fan-out for convolutions (He et al. 2015, arXiv:1502.01852), batch
    norms at 1 and 0, the classifier uniform in +-1/sqrt(fan-in), biases zero.
    """
    state = model.state_dict()
    for key, name in roles(state).items():
        tensor = state[key]
        if tensor.is_meta:
            continue
        if tensor.ndim == 4:
            fan_out = tensor.shape[0] * tensor.shape[2] * tensor.shape[3]
            tensor.normal_(0, math.sqrt(2 / fan_out), generator=torch_stream(seed, f"init/{name}"))
        elif tensor.ndim == 2:
            bound = 1 / math.sqrt(tensor.shape[1])
            tensor.uniform_(-bound, bound, generator=torch_stream(seed, f"init/{name}"))
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
            nn.init.zeros_(module.bias)
    if model.config.zero_init_gamma:
        for module in model.modules():
            if isinstance(module, (BasicBlock, Bottleneck)):
                nn.init.zeros_(module.last_norm.weight)
