from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from timm.layers import BlurPool2d
from timm.models import PretrainedCfg

from bagoftricks.data.input import MEAN, STD, InputConfig
from bagoftricks.errors import UserError
from bagoftricks.models.config import BLOCKS, TWEAKS, ModelConfig, is_bottleneck
from bagoftricks.models.folder import load_model, save_model
from bagoftricks.models.resnet import ResNet
from bagoftricks.models.saved import SavedModel, model_config, read_config
from bagoftricks.models.timm_names import resnet_of_timm, timm_architecture

CLASSES = ("ant", "bee", "cow")
WITHOUT_B = ("A", "C", "D", "CD")


@torch.no_grad()
def with_statistics(tweaks: str, depth: int) -> ResNet:
    """A network whose batch-norms differ from each other, so that a layer in the wrong place shows."""
    model = ResNet(tweaks, depth, num_classes=len(CLASSES), seed=1)
    draw = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=draw)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.2, 0.2, generator=draw)
    return model.eval()


@torch.no_grad()
def test_round_trip(tmp_path: Path) -> None:
    model = ResNet("CD", 18, num_classes=3).eval()
    inputs = InputConfig(size=96, crop_pct=0.9)
    save_model(model, CLASSES, inputs, tmp_path, temperature=1.25, licence="BSD-3-Clause")
    loaded = load_model(tmp_path)
    x_NCHW = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded(x_NCHW), model(x_NCHW), rtol=1e-4, atol=1e-5)
    assert loaded.classes == CLASSES
    assert read_config(tmp_path) == SavedModel(ModelConfig("CD", 18), CLASSES, inputs, 1.25, "BSD-3-Clause")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["id2label"] == {"0": "ant", "1": "bee", "2": "cow"}
    assert config["label2id"] == {"ant": 0, "bee": 1, "cow": 2}
    assert config["label_names"] == ["ant", "bee", "cow"]
    assert config["pretrained_cfg"]["input_size"] == [3, 96, 96]
    assert config["license"] == config["pretrained_cfg"]["license"] == "BSD-3-Clause"
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata()["architecture"] == "ResNet-18-CD"
        assert file.metadata()["license"] == "BSD-3-Clause"


@pytest.mark.parametrize("crop", ["center", "pad", "squash"])
def test_inputs_come_back(tmp_path: Path, crop: Any) -> None:
    inputs = InputConfig(size=96, crop=crop)
    save_model(ResNet("A", 18, num_classes=3), CLASSES, inputs, tmp_path)
    saved = read_config(tmp_path)
    assert (saved.inputs, saved.temperature, saved.licence) == (inputs, None, "")


def test_refuses(tmp_path: Path) -> None:
    for read in (load_model, read_config):
        with pytest.raises(UserError, match=r"config.json is missing"):
            read(tmp_path)
    save_model(ResNet("A", 18, num_classes=2), ("a", "b"), InputConfig(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(tmp_path)
    for text in ("{}", "[]", "\xff"):
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        for read in (load_model, read_config):
            with pytest.raises(UserError, match="cannot be loaded"):
                read(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        load_model(tmp_path)


def test_a_temperature_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_model(ResNet("A", 18, num_classes=3), CLASSES, InputConfig(), tmp_path, temperature=float("nan"))


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    model = ResNet("A", 18, num_classes=3)
    for i in range(6):
        save_model(model, ("a", "b\u00e9", "c"), InputConfig(), tmp_path / str(i))
    contents = {(tmp_path / str(i) / "model.safetensors").read_bytes() for i in range(6)}
    assert len(contents) == 1
    loaded = load_model(tmp_path / "0")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    with safe_open(tmp_path / "0" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "architecture": "ResNet-18-A",
            "classes": '["a", "b\\u00e9", "c"]',
            "license": "",
        }


def test_a_and_b_are_not_mixed_up(tmp_path: Path) -> None:
    """They have the same tensors, so that only the weights' own metadata can tell."""
    save_model(ResNet("B", 50, num_classes=3), CLASSES, InputConfig(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tweaks": "A"}))
    with pytest.raises(UserError, match=r"ResNet-50-B in model\.safetensors, ResNet-50-A in config\.json"):
        load_model(tmp_path)


def test_reading_a_config_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(model_config(ModelConfig(), CLASSES, InputConfig())))
    code = (
        "import sys\nfrom bagoftricks.models.saved import read_config\n"
        "print(read_config(sys.argv[1]).classes)\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{CLASSES}\n"), done.stderr


# ---------------------------------------------------------------------------------------------------- earlier versions


def earlier(schema: bool, **changes: Any) -> dict[str, Any]:
    """As `save_model` wrote it, in its first version without and then with `schema` and `crop_mode`."""
    config = {
        "architecture": "ResNet-18-A",
        "tweaks": "A",
        "depth": 18,
        "num_classes": 2,
        "id2label": {"0": "ant", "1": "bee"},
        "input_size": [3, 96, 96],
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    return {**({"schema": 1, "crop_mode": "center"} if schema else {}), **config, **changes}


@pytest.mark.parametrize(
    ("config", "inputs"),
    [
        (earlier(False), InputConfig(size=96, crop_pct=0.9)),
        (earlier(True), InputConfig(size=96, crop_pct=0.9)),
        (earlier(True, crop_mode="border", crop_pct=1.0), InputConfig(size=96, crop="pad")),
        (earlier(True, crop_mode="squash", crop_pct=1.0), InputConfig(size=96, crop="squash")),
    ],
)
@torch.no_grad()
def test_earlier_folders(tmp_path: Path, config: dict[str, Any], inputs: InputConfig) -> None:
    model = ResNet("A", 18, num_classes=2).eval()
    save_model(model, ("ant", "bee"), InputConfig(), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config(tmp_path) == SavedModel(ModelConfig("A", 18), ("ant", "bee"), inputs, None, "unknown")
    x_NCHW = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(load_model(tmp_path)(x_NCHW), model(x_NCHW), rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------------- timm


@pytest.mark.parametrize(
    ("tweaks", "depth"),
    [
        ("B", 50),
        ("BC", 50),
        ("BD", 50),
        ("BCD", 50),
        ("BE", 50),
        ("BCDEF", 50),
        ("AF", 18),
        *((t, 18) for t in WITHOUT_B),
    ],
)
@torch.no_grad()
def test_timm_loads_the_folder(tmp_path: Path, tweaks: str, depth: int) -> None:
    model = with_statistics(tweaks, depth)
    save_model(model, CLASSES, InputConfig(size=96), tmp_path)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x_NCHW = torch.randn(2, 3, 75, 75)  # an odd size, at which padding and pooling show
    logits_NK = theirs(x_NCHW)
    assert logits_NK.std() > 0.01
    torch.testing.assert_close(logits_NK, load_model(tmp_path)(x_NCHW), rtol=1e-4, atol=1e-5)
    assert theirs.pretrained_cfg["label_names"] == list(CLASSES)
    assert theirs.num_features == json.loads((tmp_path / "config.json").read_text())["num_features"]


@pytest.mark.parametrize(
    ("tweaks", "depth"),
    [
        *((tweaks, depth) for depth in BLOCKS for tweaks in TWEAKS if depth >= 50 or "B" not in tweaks),
        *(("BE", 50), ("BCDE", 152), ("CE", 18), ("CDE", 10), ("F", 10), ("BF", 50), ("BCDF", 101)),
    ],
)
def test_timm_has_each_network_that_we_name(tweaks: str, depth: int) -> None:
    """By names and shapes of all tensors and every convolution's stride, on the meta device."""
    config = ModelConfig(tweaks, depth)
    found = timm_architecture(config)
    assert (found is None) == (is_bottleneck(depth) and "B" not in tweaks)
    with torch.device("meta"):
        ours = ResNet(tweaks, depth, num_classes=3)
        if found is None:
            with pytest.raises(RuntimeError, match="Unknown model"):
                timm.create_model(config.name)
            return
        name, arguments = found
        theirs = timm.create_model(name, num_classes=3, **arguments)
    assert shapes(theirs) == shapes(ours)
    assert strides(theirs) == strides(ours)


def test_which_of_timms_networks_are_ours() -> None:
    """By timm's whole list; the deepest apart, for time."""
    mapped = {name: found for name in timm.list_models() if (found := resnet_of_timm(name))}
    assert {"resnet18", "resnet34d", "resnet50", "resnet50c", "resnet50d", "resnetblur50", "seresnet50"} <= set(mapped)
    others = {
        "resnetaa50",
        "ecaresnet50d",
        "resnext50_32x4d",
        "resnet50_gn",
        "resnet50s",
        "resnet50t",
        "legacy_seresnet50",
    }
    assert not others & set(mapped)
    for name, config in mapped.items():
        if config.depth <= 50:
            with torch.device("meta"):
                theirs, ours = (
                    timm.create_model(name, num_classes=3),
                    ResNet(config.tweaks, config.depth, num_classes=3),
                )
            assert (shapes(theirs), strides(theirs)) == (shapes(ours), strides(ours)), name
            blurred = any(isinstance(module, BlurPool2d) for module in theirs.modules())
            assert blurred == ("F" in config.tweaks), name


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in model.state_dict().items()}


def strides(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: module.stride for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)}


@pytest.mark.parametrize("tweaks", ["A", "C", "D", "CD"])
def test_timm_refuses_bottlenecks_without_b(tmp_path: Path, tweaks: str) -> None:
    """It would take A's weights for B's, which have the same tensors, if the name let it."""
    config = model_config(ModelConfig(tweaks, 50), CLASSES, InputConfig())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match=f"Unknown model .ResNet-50-{tweaks}"):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)


@pytest.mark.parametrize(("crop", "mode"), [("center", "center"), ("pad", "border"), ("squash", "squash")])
def test_timm_prepares_images_alike(tmp_path: Path, crop: Any, mode: str) -> None:
    save_model(ResNet("A", 18, num_classes=3), CLASSES, InputConfig(size=96, crop=crop, crop_pct=0.8), tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    config = timm.data.resolve_model_data_config(model)
    assert {name: tuple(v) if isinstance(v, list) else v for name, v in config.items()} == {
        "input_size": (3, 96, 96),
        "interpolation": "bilinear",
        "mean": MEAN,
        "std": STD,
        "crop_pct": 0.8 if crop == "center" else 1.0,
        "crop_mode": mode,
    }


@pytest.mark.parametrize("tweaks", ["B", "BC", "BCD"])
def test_timm_gives_it_another_classifier(tmp_path: Path, tweaks: str) -> None:
    model = ResNet(tweaks, 50, num_classes=3)
    save_model(model, CLASSES, InputConfig(), tmp_path)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7)
    assert theirs.fc.weight.shape == (7, 2048)
    assert torch.equal(theirs.layer4[2].conv3.weight, model.layer4[2].conv3.weight)


def test_the_fields_are_timms() -> None:
    config = model_config(ModelConfig("BCD"), CLASSES, InputConfig(size=100), None, "MIT")
    default = timm.get_pretrained_cfg("resnet50d.ra2_in1k")
    cfg = PretrainedCfg(**config["pretrained_cfg"])  # which refuses fields that it does not know
    assert (cfg.first_conv, cfg.classifier, cfg.license) == (default.first_conv, default.classifier, "MIT")
    model = ResNet("A", 18, num_classes=3)
    x_NCHW = torch.zeros(1, 3, 100, 100)
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        x_NCHW = getattr(model, name)(x_NCHW)
    assert list(x_NCHW.shape[2:]) == cfg.pool_size
