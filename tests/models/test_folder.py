from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from bagoftricks.data.input import InputConfig
from bagoftricks.errors import UserError
from bagoftricks.models.folder import load_model, save_model
from bagoftricks.models.resnet import ResNet


@torch.no_grad()
def test_round_trip(tmp_path: Path) -> None:
    model = ResNet("CD", 18, num_classes=3).eval()
    save_model(model, ("ant", "bee", "cow"), InputConfig(size=96), tmp_path)
    loaded = load_model(tmp_path)
    x_NCHW = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded(x_NCHW), model(x_NCHW), rtol=1e-4, atol=1e-5)
    assert loaded.classes == ("ant", "bee", "cow")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["id2label"] == {"0": "ant", "1": "bee", "2": "cow"}
    assert config["input_size"] == [3, 96, 96]
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata()["architecture"] == "ResNet-18-CD"


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.json is missing"):
        load_model(tmp_path)
    save_model(ResNet("A", 18, num_classes=2), ("a", "b"), InputConfig(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(tmp_path)
    for text in ("{}", "[]", "\xff"):
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match="cannot be loaded"):
            load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        load_model(tmp_path)


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    model = ResNet("A", 18, num_classes=3)
    for i in range(6):
        save_model(model, ("a", "b\u00e9", "c"), InputConfig(), tmp_path / str(i))
    contents = {(tmp_path / str(i) / "model.safetensors").read_bytes() for i in range(6)}
    assert len(contents) == 1
    loaded = load_model(tmp_path / "0")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    with safe_open(tmp_path / "0" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "architecture": "ResNet-18-A", "classes": '["a", "b\\u00e9", "c"]'}
