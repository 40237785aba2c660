"""Networks of timm's as backbones: timm's own logits, and every room that a network of ours goes through."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import bagoftricks
from bagoftricks.cli import main, parser
from bagoftricks.data.folder import read_folder
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.input import MEAN, STD, InputConfig
from bagoftricks.errors import UserError
from bagoftricks.flags import recipe_changes
from bagoftricks.models import from_timm
from bagoftricks.models.backbone import Backbone
from bagoftricks.models.build import build, cost
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.folder import load_model, save_model
from bagoftricks.models.published import UNKNOWN, find
from bagoftricks.models.resnet import ResNet
from bagoftricks.models.saved import read_config
from bagoftricks.models.weights import load_initial
from bagoftricks.recipe import Recipe
from bagoftricks.store import StoredRun
from bagoftricks.studies.study_file import load_recipe
from bagoftricks.training.bag import Bag
from bagoftricks.training.checks import check_fit
from bagoftricks.training.fit import Listener
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.train import train

CPU = Hardware("cpu", "fp32", 1)
CONVNEXT = "timm:test_convnext"
WEIGHTS = "timm:test_convnext.r160_in1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def backbone(name: str, num_classes: int = 3, seed: int = 0) -> Backbone:
    found = build(ModelConfig(backbone=name), num_classes, seed)
    assert isinstance(found, Backbone)
    return found


def small(**changes: Any) -> Recipe:
    fields = {"epochs": 2, "batch_size": 40, "input.size": 32, "model.backbone": CONVNEXT, "optimizer.lr": 1e-3}
    return Recipe().with_fields({**fields, **changes})


def in_hf_hub(cache: Path, name: str, num_classes: int = 1000) -> Path:
    """Lays a repository of timm's into the HF hub's cache as its own library does, with weights of ours in it."""
    draft = cache / "draft"
    torch.manual_seed(1)
    save_file(timm.create_model(name, num_classes=num_classes).state_dict(), draft)
    blob = hashlib.sha256(draft.read_bytes()).hexdigest()
    repository = cache / f"models--timm--{name}"
    link = repository / "snapshots" / COMMIT / "model.safetensors"
    for folder in (repository / "blobs", repository / "refs", link.parent):
        folder.mkdir(parents=True)
    draft.rename(repository / "blobs" / blob)
    link.symlink_to(f"../../blobs/{blob}")
    (repository / "refs" / "main").write_text(COMMIT)
    return link


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The HF hub's cache, and no way out of this machine."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return cache


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_convnext", 64),  # of other mean and deviation
        ("test_vit", 160),
        ("test_efficientnet", 64),
        ("resnet18", 64),
    ],
)
def test_logits_are_timms(name: str, size: int) -> None:
    ours = backbone(f"timm:{name}").eval()
    theirs = timm.create_model(name, num_classes=3).eval()
    theirs.load_state_dict(ours.weights())
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    x_NCHW = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    known = theirs.pretrained_cfg
    shown = (pixels - torch.tensor(known["mean"]).view(1, 3, 1, 1)) / torch.tensor(known["std"]).view(1, 3, 1, 1)
    torch.testing.assert_close(ours(x_NCHW), theirs(shown), rtol=1e-4, atol=1e-5)
    other = dict(timm.create_model(name, num_classes=5).named_parameters())
    assert set(ours.classifier_keys) == {k for k, p in theirs.named_parameters() if p.shape != other[k].shape}


def test_initial_weights_are_the_seeds() -> None:
    before = torch.get_rng_state()
    first, again, other = backbone(CONVNEXT), backbone(CONVNEXT), backbone(CONVNEXT, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    for key, tensor in first.weights().items():
        assert torch.equal(tensor, again.weights()[key])
    assert not torch.equal(first.weights()["head.fc.weight"], other.weights()["head.fc.weight"])


def test_depths() -> None:
    """A ConvNeXt's stages are its own; the blocks of a ViT are shared out, and its classifier is the deepest."""
    convnext, vit = backbone(CONVNEXT), backbone("timm:test_vit")
    assert convnext.depth_of("network.stem.0.weight") == 0
    for stage in range(4):
        assert convnext.depth_of(f"network.stages.{stage}") == stage + 1
    assert convnext.depth_of("network.head.norm.weight") == 4
    assert convnext.depth_of("network.head.fc.bias") == 5
    blocks = [vit.depth_of(f"network.blocks.{i}.mlp.fc1.weight") for i in range(6)]
    assert blocks == sorted(blocks)
    assert (vit.depth_of("network.patch_embed.proj.weight"), blocks[0], blocks[-1]) == (0, 1, 4)
    assert vit.depth_of("network.head.weight") == 5


def test_what_is_fixed_and_what_is_slow() -> None:
    model = backbone(CONVNEXT)
    recipe = small(**{"linear_probe.epochs": 1, "layerwise_lr.decay": 0.5})
    bag = Bag(recipe.tricks, np.ones(3, dtype=np.int64), 0, "cpu")
    scales = {group["lr_scale"] for group in bag.parameters(model)}
    assert scales == {0.5**k for k in range(6)}
    model.train()
    bag.freeze(model, 0)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        f"network.{k}" for k in model.classifier_keys
    }
    assert not model.network.stages[2].training
    assert model.network.head.fc.training
    bag.freeze(model, 1)
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


@torch.no_grad()
def test_dropout() -> None:
    """Half of the features, at random, before the classifier; none in evaluation, and none where there are two."""
    model = backbone(CONVNEXT)
    x_NCHW = torch.randn(4, 3, 32, 32)
    plain = model.eval()(x_NCHW)
    model.dropout = 0.5
    assert torch.equal(model(x_NCHW), plain)
    model.train()
    torch.manual_seed(0)
    features = model.network.forward_head(model.network.forward_features(x_NCHW * model.scale + model.shift), True)
    kept = torch.nn.functional.dropout(features, 0.5)
    torch.manual_seed(0)
    torch.testing.assert_close(model(x_NCHW), model.network.head.fc(kept))
    with pytest.raises(UserError, match="dropout acts before one linear classifier"):
        backbone("timm:deit_tiny_distilled_patch16_224").dropout = 0.5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model.backbone": "convnext_tiny"}, "must be resnet, or timm:"),
        ({"model.backbone": "timm:../up"}, "must be resnet, or timm:"),
        ({"model.tweaks": "BC"}, "tweaks, depth and zero_init_gamma are a ResNet's"),
        ({"model.depth": 18, "model.tweaks": "A"}, "are a ResNet's"),
        ({"stochastic_depth.prob": 0.1}, "stochastic_depth acts on a ResNet's blocks, which timm:test_convnext has"),
        ({"init": "adapt:x.safetensors"}, "adapted among ResNets"),
    ],
)
def test_refused_by_the_recipe(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        small(**fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model.backbone": "timm:test_convnxt"}, "did you mean 'timm:test_convnext'"),
        ({"model.backbone": "timm:test_convnext.r161_in1k"}, "did you mean 'timm:test_convnext.r160_in1k'"),
        ({"model.backbone": "timm:vit_tiny_patch16_224"}, "takes no images of 32 pixels .*: pass another --size"),
        (
            {"model.backbone": "timm:vit_tiny_patch16_224", "input.size": 224, "fixres.share": 0.5},
            "takes no images of 112 pixels .*: leave fixres off",
        ),
        (
            {"model.backbone": "timm:deit_tiny_distilled_patch16_224", "input.size": 224, "dropout.prob": 0.5},
            "dropout acts before one linear classifier",
        ),
        ({"init": "timm:test_convnext"}, "say which: timm:test_convnext.r160_in1k"),
        (
            {"model.backbone": "timm:vit_tiny_patch16_224_in21k"},
            "unknown network of timm",
        ),  # a name of earlier versions
    ],
)
def test_refused_before_training(digits: ImageIndex, fields: dict[str, Any], says: str, hub: Path) -> None:
    with pytest.raises(UserError, match=says):
        check_fit(small(**fields), digits, 0)


def test_without_timm(monkeypatch: pytest.MonkeyPatch, digits: ImageIndex) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(from_timm, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install .*\[timm\]'"):
        check_fit(small(), digits, 0)


def test_cost_is_timms_count() -> None:
    """Against a count by hand of a small ViT: patches, four matrices and two products a block, the classifier."""
    parameters, products = cost(ModelConfig(backbone="timm:test_vit"), 7, 160)
    model = timm.create_model("test_vit", num_classes=7)
    assert parameters == sum(p.numel() for p in model.parameters())
    tokens, width, hidden = 101, 64, model.blocks[0].mlp.fc1.out_features
    block = tokens * (width * 3 * width + width * width + 2 * width * hidden) + 2 * tokens * tokens * width
    assert products == 100 * 3 * 256 * width + len(model.blocks) * block + width * 7


def test_published_weights(hub: Path) -> None:
    """From the HF hub's cache, with what timm says of them: the licence, the normalisation."""
    path = in_hf_hub(hub, "test_convnext.r160_in1k")
    item = find(WEIGHTS)
    assert (item.architecture, item.licence, item.size) == (CONVNEXT, "apache-2.0", 160)
    model = backbone(CONVNEXT)
    report = load_initial(model, path)
    assert report.name == WEIGHTS
    assert report.licence == "apache-2.0"
    assert report.replaced == model.classifier_keys
    assert not report.random
    assert not report.warning
    assert torch.equal(model.weights()["stem.0.weight"], load_file(path)["stem.0.weight"])


def test_weights_that_do_not_fit(hub: Path, tmp_path: Path) -> None:
    whole = in_hf_hub(hub, "test_convnext.r160_in1k")
    path = tmp_path / "part.safetensors"
    save_file({key: tensor for key, tensor in load_file(whole).items() if not key.startswith("stem")}, path)
    report = load_initial(backbone(CONVNEXT), path)
    assert report.random
    assert "start at random: the result says little" in report.warning
    strange = tmp_path / "strange.safetensors"
    save_file({"a": torch.zeros(1)}, strange)
    with pytest.raises(UserError, match="none of its tensors fits timm:test_convnext"):
        load_initial(backbone(CONVNEXT), strange)
    with pytest.raises(UserError, match="no ResNet, which does not fit ResNet-50-B"):
        load_initial(ResNet("B"), path)


def test_weights_for_images_of_another_mean(hub: Path) -> None:
    """A ViT's default weights want 0.5; those of DINO, ImageNet's mean: the architecture must name them."""
    path = in_hf_hub(hub, "vit_small_patch16_224.dino", 0)
    report = load_initial(backbone("timm:vit_small_patch16_224"), path)
    assert "name them in the architecture, --model timm:vit_small_patch16_224.dino" in report.warning
    assert not load_initial(backbone("timm:vit_small_patch16_224.dino"), path).warning


def test_trains_learns_and_leaves_the_lab(digits: ImageIndex, tmp_path: Path) -> None:
    """One training with tricks of many kinds; the kept model is timm's, predicts as measured, and exports."""
    recipe = small(
        **{
            "epochs": 6, "layerwise_lr.decay": 0.8, "linear_probe.epochs": 1, "ema.decay": 0.5, "mixup.alpha": 0.2,
            "dropout.prob": 0.1, "no_bias_decay.on": True, "gradient_clipping.norm": 5.0, "optimizer.lr": 0.01,
        }
    )  # fmt: skip
    result = train(recipe, digits, seed=0, out=tmp_path / "out", hardware=CPU)
    assert result.top1 > 0.5  # of ten classes, 40 images
    folder = result.folder
    assert folder is not None

    saved = read_config(folder)
    assert saved.config == recipe.model
    model, theirs = load_model(folder).eval(), timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x_NCHW = torch.randn(2, 3, 32, 32)
    assert isinstance(model, Backbone)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x_NCHW * model.scale + model.shift), model(x_NCHW), rtol=1e-4, atol=1e-5)
    assert theirs.pretrained_cfg["mean"] == list(model.mean) or tuple(theirs.pretrained_cfg["mean"]) == model.mean

    run = StoredRun(folder)
    assert run.environment["timm"] == timm.__version__
    card = (folder / "README.md").read_text()
    assert "a network of timm's" in card
    assert "library_name: timm" in card
    assert "\n- resnet\n" not in card

    classifier = bagoftricks.load_model(folder)
    said = classifier.predict(np.zeros((40, 40, 3), np.uint8))
    assert len(said) == 1
    assert said[0].labels[0] in digits.classes
    assert main(["export", str(folder), "--format", "torch-export"]) == 0


def test_a_damaged_folder(digits: ImageIndex, tmp_path: Path) -> None:
    folder = train(small(epochs=1), digits, out=tmp_path, hardware=CPU).folder
    assert folder is not None
    config = json.loads((folder / "config.json").read_text())
    for changes, says in (
        ({"backbone": "timm:test_vit"}, r"\('head.weight'\)"),
        ({"backbone": "timm:no_such_network"}, "unknown network of timm"),
        ({"backbone": "resnet"}, "lacks tweaks"),
        ({"num_classes": 9}, "10 classes in model.safetensors, 9"),
        ({"backbone": f"{CONVNEXT}.r160_in1k"}, f"{CONVNEXT} in model.safetensors"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(UserError, match=says):
            load_model(folder)
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    save_file({key: tensor for key, tensor in state.items() if key != "stem.0.weight"}, folder / "model.safetensors")
    with pytest.raises(UserError, match=f"does not hold the tensors of {CONVNEXT}"):
        load_model(folder)


def test_a_config_that_lies_costs_no_memory(tmp_path: Path) -> None:
    """The smallest of files beside the name of a network of 27 GB."""
    name = "vit_7b_patch16_dinov3"
    (tmp_path / "config.json").write_text(json.dumps(model_config_of(f"timm:{name}")))
    save_file({"head.weight": torch.zeros(2, 4)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"does not hold the tensors of timm:{name}"):
        load_model(tmp_path)


def model_config_of(backbone: str) -> dict[str, Any]:
    return {
        "backbone": backbone, "num_classes": 2, "id2label": {"0": "a", "1": "b"},
        "pretrained_cfg": {"input_size": [3, 256, 256], "crop_pct": 1.0},
    }  # fmt: skip


def test_a_resnets_config_may_name_its_backbone(tmp_path: Path) -> None:
    config = {"tweaks": "A", "depth": 18, **model_config_of("resnet")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config(tmp_path).config == ModelConfig("A", 18)


@pytest.mark.parametrize(
    "name",
    ["coat_lite_tiny", "efficientformer_l1"],  # one uses a tensor twice; one keeps indices among its weights
)
def test_networks_out_of_the_ordinary_are_kept(name: str, tmp_path: Path) -> None:
    model = backbone(f"timm:{name}").eval()
    save_model(model, ("a", "b", "c"), InputConfig(size=224), tmp_path)
    loaded = load_model(tmp_path)
    for key, tensor in model.weights().items():
        assert torch.equal(tensor, loaded.weights()[key])


@pytest.mark.parametrize(
    "name", ["caformer_s18", "pit_ti_224", "rdnet_tiny", "volo_d1_224", "crossvit_tiny_240", "levit_128s"]
)
def test_depths_of_every_kind(name: str) -> None:
    """Where timm has no groups, the names' order tells; the stem is 0, and what depends on the classes 5."""
    with torch.device("meta"):
        model = backbone(f"timm:{name}")
    depths = [model.depth_of(key) for key, _ in model.named_parameters()]
    assert {0, 1, 2, 3, 5} <= set(depths) <= {0, 1, 2, 3, 4, 5}
    assert depths.count(5) == len(model.classifier_keys) > 0
    if name == "volo_d1_224":  # a second classifier looks at each place
        with pytest.raises(UserError, match="dropout acts before one linear classifier"):
            model.dropout = 0.5


def test_what_a_network_draws_by_itself_is_the_seeds() -> None:
    """Some of timm's drop paths without being asked: by the step, and by nothing that was drawn before."""
    model = backbone("timm:swin_tiny_patch4_window7_224").train()
    bag = Bag({}, np.ones(3, dtype=np.int64), 0, "cpu")
    bag.begin(model)
    x_NCHW = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))

    def logits(step: int) -> torch.Tensor:
        torch.rand(3)
        with torch.no_grad(), bag.draws(step):
            return cast(torch.Tensor, model(x_NCHW))

    first = logits(0)
    assert torch.equal(first, logits(0))
    assert not torch.equal(first, logits(1))


def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(digits: ImageIndex, tmp_path: Path) -> None:
    """A network that draws, an average of its weights, and a stop in the midst of the second epoch."""
    recipe = small(**{"model.backbone": "timm:rexnet_100", "ema.decay": 0.5, "mixup.alpha": 0.2})
    whole = train(recipe, digits, out=tmp_path / "whole", hardware=CPU)

    def stop(step: int, total: int) -> None:
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, digits, out=tmp_path / "cut", hardware=CPU, listener=Listener(on_step=stop))
    resumed: list[int] = []
    listener = Listener(on_resume=lambda step, total: resumed.append(step))
    again = train(recipe, digits, out=tmp_path / "cut", hardware=CPU, listener=listener)
    assert resumed == [4]
    assert again.measures == whole.measures
    assert again.model is not None
    assert whole.model is not None
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[key])


def test_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--model takes either, whatever the recipe had before; what does not go together is one line."""
    common = ["train", "--data", "digits", "--size", "32", "--epochs", "1", "--device", "cpu"]
    assert main([*common, "--model", CONVNEXT, "--stochastic-depth.prob", "0.1"]) == 2
    assert "stochastic_depth acts on a ResNet's blocks" in capsys.readouterr().err
    assert main([*common, "--model", "timm:test_convnxt"]) == 2
    assert "did you mean 'timm:test_convnext'" in capsys.readouterr().err
    assert main([*common, "--model", CONVNEXT, "--model.depth", "18"]) == 2
    assert "are a ResNet's; leave them out" in capsys.readouterr().err
    mine = tmp_path / "mine.toml"
    mine.write_text(f'[model]\nbackbone = "{CONVNEXT}"\n')
    for arguments, backbone in (
        (["--recipe", str(mine), "--model", "BC"], "resnet"),
        (["--recipe", "quickstart", "--model", CONVNEXT], CONVNEXT),  # a ResNet-18-A
    ):
        given = parser(["train", "--data", "digits", *arguments]).parse_args(["train", "--data", "digits", *arguments])
        assert load_recipe(given.recipe).with_fields(recipe_changes(given)).model.backbone == backbone


def synsets(root: Path) -> ImageIndex:
    """A folder as Imagenette's: its classes are synsets of ImageNet."""
    draw = np.random.default_rng(0)
    for name in ("n02979186", "n01440764"):
        (root / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(draw.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return read_folder(root)


def test_a_teacher_of_timms(hub: Path, tmp_path: Path, digits: ImageIndex) -> None:
    """It teaches the classes that it knows by their synsets, a few of its thousand."""
    path = in_hf_hub(hub, "test_convnext.r160_in1k")
    index = synsets(tmp_path / "imagenette")
    recipe = Recipe().with_fields(
        {
            "epochs": 1, "batch_size": 8, "input.size": 32, "distillation.teacher": WEIGHTS,
            "model.tweaks": "A", "model.depth": 10,
        }
    )  # fmt: skip
    result = train(recipe, index, out=tmp_path / "out", hardware=CPU)
    assert result.folder is not None
    told = StoredRun(result.folder).result["teacher"]
    assert (told["run"], told["architecture"], told["licence"]) == ("", WEIGHTS, "apache-2.0")
    assert "nobody can tell" in told["warning"]
    with pytest.raises(UserError, match="does not know 10 of the 10 classes, such as '0'"):
        check_fit(recipe, digits, 0)

    from bagoftricks.data.batches import Batches
    from bagoftricks.training.teacher import hire

    pixels = np.zeros((len(index), 48, 48, 3), np.uint8)
    batches = Batches(list(pixels), index.labels, np.arange(len(index)), recipe.input, 8, 0, "cpu")
    teacher = hire(recipe, index.classes, batches, CPU)
    assert teacher is not None
    x_NCHW = torch.randn(2, 3, 32, 32)
    theirs = timm.create_model("test_convnext").eval()
    theirs.load_state_dict(load_file(path))
    with torch.no_grad():
        logits = theirs(x_NCHW * teacher.network.scale + teacher.network.shift)
    names = timm.data.ImageNetInfo("imagenet-1k").label_names()
    wanted = logits[:, [names.index(name) for name in index.classes]]
    torch.testing.assert_close(teacher.logits(x_NCHW), wanted, rtol=1e-4, atol=1e-5)


def test_a_teacher_that_cannot_see_smaller_images(hub: Path, tmp_path: Path) -> None:
    in_hf_hub(hub, "vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    fields = {
        "distillation.teacher": "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", "batch_size": 8, "model.tweaks": "A",
        "model.depth": 10,
    }  # fmt: skip
    index = synsets(tmp_path / "imagenette")
    check_fit(Recipe().with_fields(fields), index, 0)
    with pytest.raises(UserError, match="takes no images of 160 pixels"):
        check_fit(Recipe().with_fields({**fields, "fixres.share": 0.72}), index, 0)


def test_a_resnet_takes_no_weights_for_other_images(hub: Path) -> None:
    """Published in its own architecture, but for images of another mean."""
    path = in_hf_hub(hub, "resnet18d.ra4_e3600_r224_in1k")
    with pytest.raises(UserError, match="want images of another mean .* --model timm:resnet18d.ra4_e3600_r224_in1k"):
        load_initial(ResNet("CD", 18), path)


def test_a_resnet_of_timms_from_weights_of_another(tmp_path: Path) -> None:
    """timm's bottlenecks are of B: A's weights fit by shape alone."""
    for tweaks, warned in (("A", True), ("B", False)):
        save_model(ResNet(tweaks, 50, 3), ("a", "b", "c"), InputConfig(), tmp_path / tweaks)
        report = load_initial(backbone("timm:resnet50"), tmp_path / tweaks / "model.safetensors")
        assert not report.random
        assert ("ResNet-50-A, which timm:resnet50 is not" in report.warning) == warned


def test_licence_of_what_timm_does_not_know(hub: Path, tmp_path: Path) -> None:
    """A folder in the hub's cache with a name that is none of timm's says nothing."""
    path = in_hf_hub(hub, "test_convnext.r160_in1k")
    other = tmp_path / "hub" / "models--timm--no_such_network.a1" / "blobs" / path.resolve().name
    other.parent.mkdir(parents=True)
    other.write_bytes(path.read_bytes())
    assert load_initial(backbone(CONVNEXT), other).licence == UNKNOWN
