"""Heat maps: Grad-CAM as its paper's equations have it, computed here by hooks and by hand."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bagoftricks.data.batches import crop_and_resize, evaluation_boxes
from bagoftricks.data.input import InputConfig
from bagoftricks.models.folder import save_model
from bagoftricks.models.inference import for_inference
from bagoftricks.models.resnet import ResNet
from bagoftricks.serving.classifier import load_model
from bagoftricks.serving.heatmap import RAMP, data_uri, grad_cam, overlay, view, watched

SIZE = 96


def network(tweaks: str, depth: int) -> ResNet:
    """With statistics of batch-norms that are not their initial ones, so that folding them changes something."""
    model = ResNet(tweaks, depth, num_classes=7, seed=1).train()
    with torch.no_grad():
        for seed in range(3):
            model(torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) + 0.3)
    return model.eval()


def image(seed: int = 0) -> Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def by_hooks(model: ResNet, x_1CHW: Tensor, target: int) -> npt.NDArray[np.float32]:
    """Selvaraju et al. 2017, equations 1 and 2, with a graph through the whole network."""
    kept: dict[str, Tensor] = {}
    forward = model.layer4.register_forward_hook(lambda module, inputs, output: kept.update(activation=output))
    backward = model.layer4.register_full_backward_hook(lambda module, before, after: kept.update(gradient=after[0]))
    model.zero_grad()
    model(x_1CHW)[0, target].backward()
    forward.remove()
    backward.remove()
    activation, gradient = kept["activation"][0].detach(), kept["gradient"][0]
    coarse = torch.zeros(activation.shape[1:])
    for channel in range(len(activation)):
        coarse += gradient[channel].mean() * activation[channel]
    fine = F.interpolate(coarse.clamp(min=0)[None, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    peak = float(fine.max())
    return (fine[0, 0] / peak if peak > 0 else fine[0, 0]).numpy()


def pixels_of(uri: str) -> npt.NDArray[np.uint8]:
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize(("tweaks", "depth"), [("A", 18), ("B", 50), ("BCD", 50)])
def test_equals_grad_cam_by_hooks(tweaks: str, depth: int) -> None:
    model, x_1CHW = network(tweaks, depth), image()
    folded = for_inference(model)
    with watched(folded) as seen, torch.inference_mode():
        folded(x_1CHW)
    maps = grad_cam(folded, seen[0], list(range(7)), SIZE)
    assert maps.shape == (7, SIZE, SIZE)
    wanted = [by_hooks(model, x_1CHW, k) for k in range(7)]
    assert sum(bool(one.any()) for one in wanted) >= 3  # else nothing is compared
    for got, one in zip(maps, wanted, strict=True):
        np.testing.assert_allclose(got, one, atol=1e-4)
    assert maps.min() >= 0
    assert maps.max() == 1


def test_each_class_has_its_own_map() -> None:
    folded = for_inference(network("A", 18))
    with watched(folded) as seen, torch.inference_mode():
        folded(image())
    maps = grad_cam(folded, seen[0], list(range(7)), SIZE)
    assert np.abs(maps[:, None] - maps[None]).max((2, 3))[~np.eye(7, dtype=bool)].max() > 0.1
    np.testing.assert_array_equal(grad_cam(folded, seen[0], [4, 2], SIZE), maps[[4, 2]])  # in the order asked for


def test_the_peak_is_where_the_evidence_is() -> None:
    model = network("A", 18)
    with torch.no_grad():
        model.fc.weight[3], model.fc.weight[4] = 1.0, -1.0
    stage = torch.zeros(1, 512, 3, 3)
    stage[0, :, 0, 2] = 1.0
    for_it, against = grad_cam(model, stage, [3, 4], SIZE)
    row, column = np.unravel_index(for_it.argmax(), for_it.shape)
    assert row < 32
    assert column >= 64
    assert not against.any()  # and not divided by nothing


def test_bf16_gives_nearly_the_same() -> None:
    model, maps = network("A", 18), {}
    for dtype in (torch.float32, torch.bfloat16):
        folded = for_inference(model, dtype)
        with watched(folded) as seen, torch.inference_mode():
            folded(image().to(dtype))
        maps[dtype] = grad_cam(folded, seen[0], [0, 1, 2, 3, 4, 5, 6], SIZE)
    correlation = np.corrcoef(maps[torch.float32].ravel(), maps[torch.bfloat16].ravel())[0, 1]
    assert correlation > 0.95
    assert not np.array_equal(maps[torch.float32], maps[torch.bfloat16])


def test_watching_leaves_nothing_behind() -> None:
    model = network("A", 18)

    def failing() -> None:
        with watched(model):
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    with watched(model) as seen:
        model(image())
    model(image())
    assert len(seen) == 1
    grad_cam(model, seen[0], [0], SIZE)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.layer4._forward_hooks


def test_an_overlay_is_as_opaque_as_the_map_is_high() -> None:
    map_HW = np.linspace(0, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    rgba = pixels_of(overlay(map_HW))
    np.testing.assert_array_equal(rgba[..., 3], np.rint(map_HW * 255))
    assert tuple(rgba[0, 0]) == (*RAMP[0], 0)
    assert tuple(rgba[-1, -1]) == (*RAMP[-1], 255)
    assert (np.diff(rgba[..., 0].ravel().astype(int)) >= 0).all()  # red only grows along inferno


@pytest.mark.parametrize("crop", ["center", "pad", "squash"])
def test_the_view_is_what_the_network_sees(tmp_path: Path, crop: str) -> None:
    inputs = InputConfig(size=SIZE, crop=crop)  # type: ignore[arg-type]
    save_model(network("A", 18), tuple("abcdefg"), inputs, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (130, 170, 3), dtype=np.uint8)
    shown = pixels_of(view(load_model(tmp_path, device="cpu").prepare([pixels])[0]))
    cut, boxes = evaluation_boxes([pixels], inputs)
    wanted = crop_and_resize(cut, boxes, np.zeros(1, dtype=bool), SIZE, "cpu")[0].permute(1, 2, 0).numpy()
    assert shown.shape == (SIZE, SIZE, 3)
    np.testing.assert_allclose(shown, wanted, atol=0.51)


def test_pixels_survive_the_data_uri() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 4), dtype=np.uint8)
    np.testing.assert_array_equal(pixels_of(data_uri(pixels)), pixels)
