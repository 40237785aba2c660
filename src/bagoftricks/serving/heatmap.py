"""Grad-CAM: which parts of an image speak for a class, as a map to lay over it.

For class c, a_k = mean over places of d logit_c / d A_k, where A_k is channel k of the last stage's output, and the map
is ReLU(sum_k a_k A_k), enlarged bilinearly to the image and divided by its maximum. It says where, on a grid of 32
pixels, not why; its scale is its own, so that maps of two classes compare in place and not in strength.

Source: Selvaraju et al. 2017, arXiv:1610.02391; computed by captum's `LayerGradCam`.
Cost: the network runs once, without a graph; only pooling and classifier are differentiated, for all classes at once.
Shapes: T classes asked for, C channels, H x W pixels, h x w places.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bagoftricks.data.input import MEAN, STD
from bagoftricks.models.network import Network

Maps = npt.NDArray[np.float32]
RAMP = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Evenly spaced colours of matplotlib's inferno (CC0), from 0 to 1; page.css shows the same ones in its legend."""


class _Head(nn.Module):
    """What follows the last stage; `stage` stands where the stage's output goes by."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.stage = nn.Identity()
        self.of_network = network.head  # no module of this one: only `stage` is looked for

    def forward(self, x_TChw: Tensor) -> Tensor:
        return self.of_network(self.stage(x_TChw))


@contextmanager
def watched(network: Network) -> Iterator[list[Tensor]]:
    """Within the block, each pass through the network appends the last stage's output, (N, C, h, w), to the list."""
    seen: list[Tensor] = []
    handle = network.last_stage.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        yield seen
    finally:
        handle.remove()


def grad_cam(network: Network, stage_1Chw: Tensor, classes: Sequence[int], size: int) -> Maps:
    """Returns (T, size, size) maps in [0, 1]; one is 0 everywhere where nothing speaks for its class.

    Args:
        network: whose last stage gave `stage_1Chw`.
        stage_1Chw: what it gave for one image, as from `watched`.
        classes: indices of the classes asked for.
        size: side of the image that the network saw, in pixels.
    """
    captum = import_module("captum.attr")  # an extra
    with torch.inference_mode(False), torch.enable_grad():
        head = _Head(network)
        stage_TChw = stage_1Chw.detach().float().repeat(len(classes), 1, 1, 1).requires_grad_()
        maps_T1hw = captum.LayerGradCam(head, head.stage).attribute(
            stage_TChw, target=list(classes), relu_attributions=True
        )
        maps_T1HW = captum.LayerAttribution.interpolate(maps_T1hw.detach(), (size, size), "bilinear")
    maps: Maps = maps_T1HW[:, 0].float().cpu().numpy()
    peak = maps.max((1, 2), keepdims=True)
    scaled: Maps = np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0)
    return scaled


def overlay(map_HW: Maps) -> str:
    """Returns a map as a PNG in a data URI: the brighter and the more opaque, the more speaks for the class."""
    place = np.linspace(0, 1, len(RAMP))
    colours = [np.interp(map_HW, place, channel) for channel in zip(*RAMP, strict=True)]
    return data_uri(np.rint(np.stack([*colours, map_HW * 255], 2)).astype(np.uint8))


def view(x_3HW: Tensor) -> str:
    """Returns what the network sees, a normalised image, as a PNG in a data URI."""
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (MEAN, STD))
    pixels = ((x_3HW.detach().float().cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return data_uri(pixels.permute(1, 2, 0).numpy())


def data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Returns (H, W, 3) RGB or (H, W, 4) RGBA pixels as a PNG in a data URI."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
