from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from bagoftricks import UserError, train
from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import DecodedImages
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.input import InputConfig
from bagoftricks.models.hub import WeightsFile, weights_file
from bagoftricks.models.published import Published, find
from bagoftricks.models.resnet import BasicBlock, Bottleneck, ResNet
from bagoftricks.recipe import Recipe
from bagoftricks.training.adapt import (
    Adaptation,
    AdaptConfig,
    adapt,
    changed_parts,
    distance,
    estimate_norms,
    stage_outputs,
)
from bagoftricks.training.fit import Listener
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.initial import adapt_weights, check_initial, initial_identity, needs_adapting, network_of
from bagoftricks.training.train import run_identity

CPU = Hardware("cpu", "fp32", 1)
SHORT = AdaptConfig(part_steps=3, whole_steps=3, norm_batches=2)


def trained_like(tweaks: str, depth: int, seed: int = 3) -> ResNet:
    """A network whose batch-norms have statistics and weights of their own, as after a training."""
    network = ResNet(tweaks, depth, num_classes=10, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=draw)
            module.bias.data.uniform_(-0.2, 0.2, generator=draw)
    for module in network.modules():
        if isinstance(module, (BasicBlock, Bottleneck)):
            module.last_norm.weight.data *= 0.3  # as in trained networks, a block changes its input little
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(16, 3, 32, 32, generator=draw))
    return network.eval()


def sides(digits: ImageIndex, batch: int = 16) -> tuple[Batches, Batches]:
    """What is learnt from, and what is held back."""
    members = np.arange(0, len(digits), 2)
    train = Batches(DecodedImages(digits, 48), digits.labels, members, InputConfig(32), batch, 0)
    return train, replace(train, members=members[:100] + 1, batch_size=64)


def batches(digits: ImageIndex) -> Batches:
    return sides(digits)[0]


def test_the_distance_is_the_share_of_variance_left() -> None:
    draw = np.random.default_rng(0)
    wanted, output = (draw.normal(3, 2, (2, 3, 4, 5)) for _ in range(2))
    left = spread = 0.0
    for channel in range(3):
        mean = wanted[:, channel].mean()
        for n in range(2):
            for h in range(4):
                for w in range(5):
                    left += (output[n, channel, h, w] - wanted[n, channel, h, w]) ** 2
                    spread += (wanted[n, channel, h, w] - mean) ** 2
    assert float(distance(torch.tensor(output), torch.tensor(wanted))) == pytest.approx(left / spread, rel=1e-5)
    constant = torch.tensor(wanted).mean((0, 2, 3), keepdim=True).expand(2, 3, 4, 5)
    assert float(distance(constant, torch.tensor(wanted))) == pytest.approx(1, rel=1e-5)
    assert float(distance(torch.tensor(wanted), torch.tensor(wanted))) == 0


def test_stage_outputs_are_the_networks_own() -> None:
    network, x = trained_like("BCD", 50), torch.randn(2, 3, 64, 64)
    outputs = stage_outputs(network, x)
    assert [tuple(o.shape[1:]) for o in outputs] == [
        (64, 16, 16), (256, 16, 16), (512, 8, 8), (1024, 4, 4), (2048, 2, 2),
    ]  # fmt: skip
    assert torch.equal(network.fc(network.avgpool(outputs[-1]).flatten(1)), network(x))


@pytest.mark.parametrize(
    ("source", "target", "stages"),
    [
        ("B", "A", [2, 3, 4]),
        ("B", "BC", [0]),
        ("B", "BCD", [0, 2, 3, 4]),
        ("BCD", "BD", [0]),
        ("B", "B", []),
        ("B", "BF", [0, 2, 3, 4]),
        ("B", "BE", []),
    ],
)
def test_what_a_tweak_changes_is_taught(source: str, target: str, stages: list[int]) -> None:
    network = ResNet(target, 50, num_classes=2)
    parts = changed_parts(source, network)
    assert [stage for _, stage in parts] == stages
    # exactly the tensors whose meaning the tweaks change: a part's weights, and no others
    taught = {id(p) for part, _ in parts for p in part.parameters()}
    named = {name.split(".")[0] for name, p in network.named_parameters() if id(p) in taught}
    assert named == {("conv1", "bn1")[i] for i in (0, 1) if 0 in stages} | {f"layer{i}" for i in stages if i}


@pytest.mark.parametrize("target", ["A", "C", "CD"])
def test_adapting_brings_every_changed_stage_closer(digits: ImageIndex, target: str) -> None:
    depth = 50 if target == "A" else 10
    source = trained_like("B" if depth == 50 else "A", depth)
    kept = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    network = ResNet(target, depth, num_classes=10, seed=0)
    seen: list[tuple[int, int]] = []
    config = AdaptConfig(part_steps=30, whole_steps=10, whole_lr=2e-5, norm_batches=6)
    result = adapt(source, network, *sides(digits), CPU, config, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 40) for i in range(1, 41)]
    assert (result.source, result.target) == (source.config.tweaks, target)
    assert result.after["stage 4"] < 0.8 * result.before["stage 4"]
    if "C" in target:
        assert result.after["stem"] < 0.5 * result.before["stem"]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in source.state_dict().items())
    assert torch.equal(network.fc.weight, source.fc.weight)
    assert not network.training
    assert all(m.momentum == 0.1 for m in network.modules() if isinstance(m, nn.BatchNorm2d))


def test_an_equal_architecture_is_reproduced_from_the_start(digits: ImageIndex) -> None:
    source, network = trained_like("A", 10), ResNet("A", 10, num_classes=10)
    result = adapt(source, network, *sides(digits), CPU, AdaptConfig(part_steps=0, whole_steps=0, norm_batches=1))
    assert max(result.before.values()) < 1e-6
    assert max(result.after.values()) < 1e-6


def test_labels_do_not_matter_and_twice_is_the_same(digits: ImageIndex) -> None:
    source, states = trained_like("A", 10), []
    for labels in (digits.labels, digits.labels[::-1].copy()):
        network = ResNet("C", 10, num_classes=10, seed=0)
        adapt(source, network, *(replace(side, labels=labels) for side in sides(digits)), CPU, SHORT)
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_distances_are_those_of_images_held_back(digits: ImageIndex) -> None:
    """Each counts alike, the last batch is smaller; what they are changes nothing but the figures."""
    source, train, held = trained_like("A", 10), *sides(digits)
    found, states = [], []
    for members in (held.members, held.members[:64], held.members[64:]):
        network = ResNet("C", 10, num_classes=10, seed=0)
        found.append(adapt(source, network, train, replace(held, members=members), CPU, SHORT))
        states.append(network.state_dict())
    for when in ("before", "after"):
        whole, first, last = (getattr(one, when)["stage 4"] for one in found)
        assert whole == pytest.approx(0.64 * first + 0.36 * last, rel=1e-4)
        assert first != last
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_norms_are_estimated_over_whole_batches(digits: ImageIndex) -> None:
    network = ResNet("C", 10, num_classes=10, seed=0)
    inputs = [x for x, _ in batches(digits).training(0)][:3]
    estimate_norms(network, inputs, CPU)
    first = [network.conv1(x) for x in inputs]
    means = torch.stack([x.mean((0, 2, 3)) for x in first]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in first]).mean(0)
    assert torch.allclose(network.bn1.running_mean, means, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(network.bn1.running_var, variances, atol=1e-5)  # type: ignore[arg-type]
    assert network.bn1.momentum == 0.1


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"part_steps": -1}, {"norm_batches": 0}, {"whole_lr": 0.0}, {"part_lr": float("nan")}):
        with pytest.raises(UserError, match=f"adapt.{next(iter(wrong))}"):
            AdaptConfig(**wrong)
    with pytest.raises(UserError, match="another depth"):
        adapt(ResNet("A", 10), ResNet("A", 34), None, None, CPU)  # type: ignore[arg-type]


def test_the_summary_names_both() -> None:
    result = Adaptation("B", "A", {"stage 4": 0.912}, {"stage 4": 0.113})
    assert result.summary() == "adapted from B to A: distance of stage 4 from the source's 0.91 before, 0.11 after"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of ResNet-10 weights with ten classes and a licence."""
    path = tmp_path / "weights.safetensors"
    save_file(trained_like("A", 10).state_dict(), path, {"architecture": "ResNet-10-A", "license": "mit"})
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapting in a second."""
    for name, value in vars(SHORT).items():
        monkeypatch.setattr(AdaptConfig, name, value)
    monkeypatch.setattr(AdaptConfig.__init__, "__defaults__", tuple(vars(SHORT).values()))


def test_a_recipe_may_ask_for_adapted_weights(
    digits: ImageIndex, tmp_path: Path, recipe: Recipe, weights: Path, quick: None
) -> None:
    asked = recipe.with_fields({"model.depth": 10, "model.tweaks": "C", "init": f"adapt:{weights}"})
    told: list[str] = []
    seen: list[tuple[int, int]] = []
    listener = Listener(
        on_weights=lambda summary, warning: told.extend((summary, warning)),
        on_adapt=lambda done, total: seen.append((done, total)),
    )
    result = train(asked, digits, out=tmp_path / "out", hardware=CPU, listener=listener)
    assert seen[-1] == (6, 6)
    assert "adapted from A to C: distance of stage 4" in told[0]
    assert "trained in architecture A and adapted to C" in told[1]
    stored = json.loads(((result.folder or tmp_path) / "result.json").read_text())["weights"]
    assert stored["random"] == []
    assert stored["licence"] == "mit"
    assert stored["warning"] == told[1]
    assert (stored["adapted"]["source"], stored["adapted"]["target"]) == ("A", "C")
    (file,) = (tmp_path / "out" / "cache").glob("adapted-*.safetensors")
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    assert (about["architecture"], about["license"]) == ("ResNet-10-C", "mit")

    # a second recipe of the block takes the file that is there
    seen.clear()
    train(
        asked.with_fields({"label_smoothing.amount": 0.0}),
        digits,
        out=tmp_path / "out",
        hardware=CPU,
        listener=listener,
    )
    assert seen == []
    # another seed has another training side, and so weights of its own
    train(asked, digits, seed=1, out=tmp_path / "out", hardware=CPU, listener=listener)
    assert seen[-1] == (6, 6)


def test_identity(digits: ImageIndex, recipe: Recipe, weights: Path) -> None:
    plain = recipe.with_fields({"model.depth": 10, "model.tweaks": "A", "init": str(weights)})
    same = plain.with_fields({"init": f"adapt:{weights}"})
    assert not needs_adapting(same)
    assert run_identity(plain, digits, 0, CPU) == run_identity(same, digits, 0, CPU)
    other, adapted = (r.with_fields({"model.tweaks": "C"}) for r in (plain, same))
    assert needs_adapting(adapted)
    assert run_identity(other, digits, 0, CPU) != run_identity(adapted, digits, 0, CPU)
    assert len(initial_identity(adapted)) == 64


def test_what_weights_are_called_decides_what_they_are_adapted_from(
    digits: ImageIndex, recipe: Recipe, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes by two names are two adaptations, and none where the name is no ResNet's."""
    asked = recipe.with_fields({"model.depth": 10, "model.tweaks": "C", "init": f"adapt:{weights}"})
    plain = initial_identity(asked)

    def named(item: Published) -> None:
        monkeypatch.setattr("bagoftricks.training.initial.weights_file", lambda init: WeightsFile(weights, 0, 0, item))

    named(replace(find("timm:resnet18.a1_in1k"), tweaks="F", depth=10))
    assert initial_identity(asked) != plain
    named(find("timm:resnetaa50.a1h_in1k"))
    with pytest.raises(UserError, match="timm:resnetaa50 is no ResNet that could be adapted"):
        check_initial(asked, 10)


def test_weights_that_cannot_be_adapted(tmp_path: Path, digits: ImageIndex, recipe: Recipe, weights: Path) -> None:
    with pytest.raises(UserError, match="there is nothing to adapt"):
        adapt_weights(str(weights), "A", digits, tmp_path / "o.safetensors", hardware=CPU)
    with pytest.raises(UserError, match=r"must end in .safetensors"):
        adapt_weights(str(weights), "C", digits, tmp_path / "o.pth", hardware=CPU)
    state = ResNet("A", 10, num_classes=10).state_dict()
    del state["layer3.0.conv1.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=r"lack layer3.0.conv1.weight"):
        network_of(weights_file(str(tmp_path / "part.safetensors")))
    with pytest.raises(UserError, match="timm:resnetaa50 is no ResNet that could be adapted"):
        network_of(WeightsFile(weights, 0, 0, find("timm:resnetaa50.a1h_in1k")))
    with pytest.raises(UserError, match="ResNet-10"):
        train(recipe.with_fields({"model.depth": 50, "init": f"adapt:{weights}"}), digits, hardware=CPU)
    with pytest.raises(UserError, match="no such file"):
        train(recipe.with_fields({"init": f"adapt:{tmp_path / 'gone.pth'}"}), digits, hardware=CPU)
    assert not list(tmp_path.glob("o.*"))


def test_the_command(
    photos: Path, tmp_path: Path, weights: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from bagoftricks.cli import main

    out = tmp_path / "adapted.safetensors"
    flags = ["adapt", "--from", str(weights), "--to", "ac", "--data", str(photos), "--size", "32", "--device", "cpu"]
    assert main([*flags, "--out", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["source"], shown["target"]) == ("A", "C")
    assert set(shown["before"]) == {"stem", "stage 1", "stage 2", "stage 3", "stage 4"}
    network, about = network_of(weights_file(str(out)))
    assert network.config.name == "ResNet-10-C"
    assert json.loads(about["adapted_from"])["file"] == "weights.safetensors"
    before = out.stat()
    assert main([*flags, "--out", str(photos / "x.safetensors")]) == 2
    assert "only ever read" in capsys.readouterr().err
    assert main([*flags, "--out", str(out), "--part-steps", "-1"]) == 2
    assert "adapt.part_steps = -1" in capsys.readouterr().err
    assert out.stat().st_mtime_ns == before.st_mtime_ns
