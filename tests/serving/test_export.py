"""An exported file is the model, at any batch size, and says what it is; one that is not is not left behind."""

from __future__ import annotations

import io
import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from bagoftricks.data.cache import cached_side
from bagoftricks.data.decoding import decode
from bagoftricks.data.input import MEAN, STD, InputConfig
from bagoftricks.errors import RunError, UserError
from bagoftricks.files import file_digest
from bagoftricks.models.folder import load_model as load_network
from bagoftricks.models.folder import save_model
from bagoftricks.recipe import Recipe
from bagoftricks.serving import export as export_module
from bagoftricks.serving.classifier import load_model
from bagoftricks.serving.export import Exported, export_model
from bagoftricks.serving.export_check import Check
from bagoftricks.serving.export_images import BATCH_SIZE, NOISE, draw, noise
from bagoftricks.serving.export_network import Deployed
from tests.conftest import ROOT
from tests.models.test_inference import trained
from tests.serving.trained import Trained, lay_out, train_small

CLASSES = ("ant", "bée", "čow", "dog\n", "eel", "fly", "gnu")
SIZE, TEMPERATURE, LICENCE = 48, 1.7, "bsd-3-clause"
"""Of the networks that are not trained; they have the seven classes of `trained`."""
COLOURS = {"cat": "red", "dog": "green", "owl": "blue"}


def folder_of(tweaks: str, depth: int, folder: Path) -> Path:
    """Writes a model whose batch-norms do something."""
    inputs = InputConfig(size=SIZE, crop_pct=0.9)
    save_model(trained(tweaks, depth), CLASSES, inputs, folder, temperature=TEMPERATURE, licence=LICENCE)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ResNet-10-CD."""
    return folder_of("CD", 10, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def exported(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """It as ONNX, alone in its folder."""
    return export_model(small, "onnx", out=tmp_path_factory.mktemp("exported") / "deep" / "shop.onnx")


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A kept run, and the photographs that it was trained on."""
    return train_small(recipe, tmp_path_factory.mktemp("run"))


def images_of(count: int, size: int = SIZE) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count))


@torch.no_grad()
def expected(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Logits of the model as it was saved, normalised by hand."""
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (MEAN, STD))
    logits_NK: torch.Tensor = load_network(folder)((images - mean) / std)
    return logits_NK


def session_of(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def run_onnx(file: Path, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    logits, probabilities = session_of(file).run(None, {"images": images.numpy()})
    return logits, probabilities


@pytest.mark.parametrize(("tweaks", "depth"), [("A", 18), ("CDEF", 18), ("BCD", 50)])
def test_onnx_gives_the_logits_of_the_model(tweaks: str, depth: int, tmp_path: Path) -> None:
    folder = folder_of(tweaks, depth, tmp_path)
    found = export_model(folder, "onnx")
    assert found.file == folder / "model.onnx"
    for count in (1, 3, 7):
        images = images_of(count)
        logits, probabilities = run_onnx(found.file, images)
        reference = expected(folder, images)
        assert logits.dtype == probabilities.dtype == np.float32
        np.testing.assert_allclose(logits, reference, atol=1e-4 * float(reference.abs().max()))
        np.testing.assert_allclose(probabilities, torch.softmax(reference / TEMPERATURE, 1), atol=1e-4)
    graph = onnx.load(found.file).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    assert not any(each.data_location == onnx.TensorProto.EXTERNAL for each in graph.initializer)


def test_names_and_shapes(exported: Exported) -> None:
    file = exported.file
    session = session_of(file)
    (images,) = session.get_inputs()
    assert (images.name, images.shape, images.type) == ("images", ["batch", 3, SIZE, SIZE], "tensor(float)")
    outputs = [(each.name, each.shape, each.type) for each in session.get_outputs()]
    assert outputs == [(name, ["batch", 7], "tensor(float)") for name in ("logits", "probabilities")]
    assert [(each.domain, each.version) for each in onnx.load(file).opset_import] == [("", 20)]


def test_it_says_what_it_is(small: Path, exported: Exported) -> None:
    found = exported
    held = session_of(found.file).get_modelmeta().custom_metadata_map
    about = json.loads(found.about.read_text(encoding="utf-8"))
    assert found.about == found.file.with_name("shop.onnx.json")
    assert sorted(path.name for path in found.file.parent.iterdir()) == ["shop.onnx", "shop.onnx.json"]
    for key, value in held.items():
        assert about[key] == (value if isinstance(about[key], str) else json.loads(value)), key
    assert set(about) - set(held) == {"file", "bytes", "sha256", "check"}
    assert json.loads(held["classes"]) == list(CLASSES)
    assert about["id2label"] == {str(k): name for k, name in enumerate(CLASSES)}
    assert about["architecture"] == "ResNet-10-CD"
    assert about["input"]["shape"] == ["batch", 3, SIZE, SIZE]
    assert about["preprocessing"]["crop_pct"] == 0.9
    assert about["preprocessing"]["normalisation"] == {"in_the_file": True, "mean": list(MEAN), "std": list(STD)}
    assert (about["temperature"], about["calibrated"]) == (TEMPERATURE, True)
    assert about["licence"] == {"initial_weights": LICENCE, "teacher": ""}
    assert about["source"] == {"run": None, "weights_sha256": file_digest(small / "model.safetensors")}
    assert about["opset"] == 20
    assert about["versions"]["torch"] == version("torch")
    assert about["versions"]["onnxruntime"] == onnxruntime.__version__
    assert about["sha256"] == file_digest(found.file)
    assert about["bytes"] == found.bytes == found.file.stat().st_size
    assert found.model_bytes == (small / "model.safetensors").stat().st_size
    assert found.bytes == pytest.approx(found.model_bytes, rel=0.02)


@pytest.mark.parametrize("crop", ["center", "pad", "squash"])
def test_steps_lead_to_what_the_model_sees(crop: Any, tmp_path: Path) -> None:
    """The words are followed by other means than ours, and lead to the pixels of `Classifier.prepare`."""
    inputs = InputConfig(size=32, crop=crop, crop_pct=0.75)
    save_model(trained("A", 18), CLASSES, inputs, tmp_path)
    words = export_model(tmp_path, "torch-export").about.read_text(encoding="utf-8")
    steps = json.loads(words)["preprocessing"]["steps"]
    assert len(steps) == 5
    assert "smaller of 48 / its short side and 384 / its long side" in steps[1]
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    cut = torch.from_numpy(pixels).permute(2, 0, 1).float()[None]
    if crop == "center":
        assert "whose side is 0.75 of the short side" in steps[2]
        cut = cut[:, :, 6:42, 14:50]  # 36 = 0.75 * 48
    elif crop == "pad":
        assert "(124, 116, 104)" in steps[2]
        square = torch.tensor([124.0, 116.0, 104.0]).view(1, 3, 1, 1).repeat(1, 1, 64, 64)
        square[:, :, 8:56] = cut
        cut = square
    resized = torch.nn.functional.interpolate(cut, (32, 32), mode="bilinear", align_corners=False) / 255
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (MEAN, STD))
    prepared = load_model(tmp_path, device="cpu", precision="fp32").prepare([pixels])
    torch.testing.assert_close(prepared * std + mean, resized, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "shape"), [("grey.png", (60, 90)), ("strip.png", (40, 900)), ("photo.jpg", (300, 400))]
)
def test_steps_lead_to_what_is_decoded(name: str, shape: tuple[int, int], small: Path, tmp_path: Path) -> None:
    """Grey of 16 bits, a strip whose long side alone is too long, and a JPEG far larger than the size."""
    draw, path, side = np.random.default_rng(0), tmp_path / name, 48
    if name == "grey.png":
        Image.fromarray(draw.integers(0, 2**16, shape, dtype=np.uint16)).save(path)
        picture = Image.fromarray((np.asarray(Image.open(path)) >> 8).astype(np.uint8)).convert("RGB")
    else:
        smooth = np.add.outer(np.linspace(0, 120, shape[0]), np.linspace(0, 130, shape[1])).astype(np.uint8)
        Image.fromarray(np.stack([smooth, smooth // 2, 255 - smooth], 2)).save(path)
        picture = Image.open(path)
    scale = min(side / min(picture.size), 8 * side / max(picture.size))
    wanted = tuple(max(1, round(length * scale)) for length in picture.size)
    if name == "photo.jpg":
        picture.draft("RGB", tuple(int(2 * scale * length) for length in picture.size))
        assert picture.size < (400, 300)
    picture = picture.convert("RGB").resize(wanted, Image.Resampling.BILINEAR) if scale < 1 else picture
    assert np.array_equal(np.asarray(picture), decode(path, side))
    steps = json.loads(export_model(small, "torch-export", out=tmp_path).about.read_text())["preprocessing"]["steps"]
    assert f"the smaller of {cached_side(load_model(small).inputs.size)} / its short side" in steps[1]
    assert "grey of 16 bits keeps its upper 8" in steps[0]


def test_fp16(small: Path, tmp_path: Path) -> None:
    found = export_model(small, "onnx", "fp16", out=tmp_path)
    assert found.file.name == "model-fp16.onnx"
    assert found.bytes < 0.52 * found.model_bytes
    kinds = {
        each.data_type for each in onnx.load(found.file).graph.initializer if len(each.dims) == 4 and each.dims[0] > 1
    }
    assert kinds == {onnx.TensorProto.FLOAT16}
    images = images_of(3)
    logits, probabilities = run_onnx(found.file, images)
    reference = expected(small, images)
    assert logits.dtype == probabilities.dtype == np.float32
    assert 0 < np.abs(logits - reference.numpy()).max() < 0.02 * float(reference.max() - reference.min())


def test_int8(run: Trained, tmp_path: Path) -> None:
    found = export_model(run.folder, "onnx", "int8", data=run.photos, out=tmp_path)
    assert found.bytes < 0.3 * found.model_bytes
    model = onnx.load(found.file)
    by_name = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    weights = [each for each in by_name.values() if each.dtype == np.int8 and each.ndim == 4]
    assert len(weights) == 12  # the stem, two in each of four blocks, three shortcuts
    scales = [by_name[node.input[1]] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert any(len(np.atleast_1d(scale)) == 512 for scale in scales)  # one for each channel of the last stage
    assert found.check.images == found.check.labelled == 6
    assert found.check.about == "validation images of photos"
    assert found.check.agreement >= 0.95
    assert found.warnings == ()
    about = json.loads(found.about.read_text())
    assert about["source"]["run"] == run.folder.name
    assert about["calibrated_with"] == "24 images of photos"
    # like those that it was calibrated with: beyond their range int8 saturates
    photos = [Image.open(path).resize((32, 32)) for path in sorted(run.photos.rglob("*.jpg"))[::10]]
    images = torch.stack([torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255 for photo in photos])
    logits, _ = run_onnx(found.file, images)
    reference = expected(run.folder, images).numpy()
    assert 0 < np.abs(logits - reference).max() < 0.5 * np.ptp(reference)


def test_accuracy_is_that_of_the_run(run: Trained, tmp_path: Path) -> None:
    found = export_model(run.folder, "onnx", data=run.photos, out=tmp_path)
    top1 = json.loads((run.folder / "result.json").read_text())["top1"]
    assert found.check.top1_model == found.check.top1_exported == pytest.approx(top1)
    assert found.check.relative < 1e-3
    assert found.check.difference > 0
    assert [each.batch for each in found.latency] == [1, 32]
    assert {each.threads for each in found.latency} == {load_model(run.folder).hardware.threads}
    for each in found.latency:
        assert 3 <= each.runs <= 20
        assert each.model > 0 < each.exported
    assert found.latency[1].exported > 2 * found.latency[0].exported  # 32 times the work


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_torch_export(dtype: str, small: Path, tmp_path: Path) -> None:
    found = export_model(small, "torch-export", dtype, out=tmp_path)
    held = {"about.json": ""}
    network = torch.export.load(found.file, extra_files=held).module()
    about = json.loads(held["about.json"])
    assert about["classes"] == list(CLASSES)
    assert about.items() <= json.loads(found.about.read_text(encoding="utf-8")).items()
    tolerance = {"fp32": 1e-4, "fp16": 2e-2}[dtype]
    for count in (1, 3, 7):
        images = images_of(count)
        with torch.no_grad():
            logits, probabilities = network(images)
        reference = expected(small, images)
        span = float(reference.max() - reference.min())
        torch.testing.assert_close(logits, reference, atol=tolerance * span, rtol=0)
        torch.testing.assert_close(probabilities, torch.softmax(logits / TEMPERATURE, 1))
    assert (found.bytes < 0.55 * found.model_bytes) == (dtype == "fp16")


@pytest.mark.parametrize("file_format", ["onnx", "torch-export"])
def test_no_path_of_this_computer_is_in_it(file_format: str, small: Path, exported: Exported, tmp_path: Path) -> None:
    found = exported if file_format == "onnx" else export_model(small, file_format, out=tmp_path)
    for content in (found.file.read_bytes(), found.about.read_bytes()):
        for path in (str(ROOT), str(small), "site-packages", str(Path.home()) + "/", "bagoftricks/models"):
            assert path.encode() not in content


def test_without_data_it_is_checked_on_noise(small: Path, tmp_path: Path) -> None:
    check = export_model(small, "torch-export", out=tmp_path).check
    assert (check.images, check.labelled, check.about) == (NOISE, 0, "images of noise")
    assert check.top1_model is check.top1_exported is None
    classifier = load_model(small, device="cpu", precision="fp32")
    first, again = ([batch.images_NCHW for batch in noise(classifier).batches(first=1)] for _ in range(2))
    assert [len(images) for images in first] == [1, BATCH_SIZE, NOISE - BATCH_SIZE - 1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


class Unnormalised(Deployed):
    """Forgets to normalise."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.mean, self.std = torch.zeros_like(self.mean), torch.ones_like(self.std)


class Overconfident(Deployed):
    """Forgets the temperature."""

    def __init__(self, network: Any, temperature: float, *rest: Any, **named: Any) -> None:
        super().__init__(network, 1.0, *rest, **named)


class Broken(Deployed):
    """Gives no numbers."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, probabilities = super().forward(images)
        return logits * float("nan"), probabilities


@pytest.mark.parametrize("file_format", ["onnx", "torch-export"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Unnormalised,
            r"logits differ by up to .* of their range, and 0\.001 is accepted at fp32; the file is not kept",
        ),
        (Overconfident, "probabilities do not follow from its logits"),
        (Broken, "logits are not finite"),
    ],
)
def test_a_wrong_file_is_not_left(
    fault: type, words: str, file_format: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"model{export_module.SUFFIX[file_format]}"
    (tmp_path / name).write_text("the one before")
    monkeypatch.setattr(export_module, "Deployed", fault)
    with pytest.raises(RunError, match=words):
        export_model(small, file_format, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "the one before"


class Shuffled(Deployed):
    """Gives classes the places of others."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.network.fc.weight.data = self.network.fc.weight.data.roll(1, 0)
        self.network.fc.bias.data = self.network.fc.bias.data.roll(1, 0)


def test_int8_that_guesses_otherwise_is_not_left(run: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "Deployed", Shuffled)
    with pytest.raises(RunError, match=r"0\.0% of guesses are the model's, and 50% is the least accepted at int8"):
        export_model(run.folder, "onnx", "int8", data=run.photos, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "relative", "agreement", "refused", "warned"),
    [
        ("fp32", 0.0009, 1.0, False, False),
        ("fp32", 0.0011, 1.0, True, False),
        ("fp32", float("nan"), 1.0, True, False),
        ("fp16", 0.019, 0.9, False, False),
        ("fp16", 0.021, 1.0, True, False),
        ("int8", 0.3, 0.95, False, False),
        ("int8", 0.3, 0.94, False, True),
        ("int8", 0.3, 0.49, True, True),
    ],
)
def test_what_is_accepted(dtype: str, relative: float, agreement: float, refused: bool, warned: bool) -> None:
    check = Check(100, "images", 1.0, relative, agreement, 0, None, None)
    assert bool(check.refusal(dtype)) == refused
    assert bool(check.warning(dtype)) == warned


def test_calibrates_with_training_images_and_checks_with_others(run: Trained) -> None:
    classifier = load_model(run.folder, device="cpu", precision="fp32")
    checked, calibrating, index = draw(classifier, run.photos, 0, calibrate=True)
    assert calibrating is not None
    assert (len(checked), len(calibrating)) == (6, 24)
    by_pixels = {index.read(i, classifier.short_side).tobytes(): name for i, name in enumerate(index.names)}
    seen = {by_pixels[calibrating.read(place).tobytes()] for place in range(24)}
    held = {by_pixels[checked.read(place).tobytes()] for place in range(6)}
    assert held == set(run.names())
    assert seen == set(index.names) - held


def test_of_other_data_no_image_is_in_both_and_none_of_a_test_set(run: Trained, tmp_path: Path) -> None:
    classifier = load_model(run.copy(tmp_path / "model"), device="cpu", precision="fp32")
    checked, calibrating, index = draw(classifier, run.photos, 0, calibrate=True)
    assert calibrating is not None
    assert (len(checked), len(calibrating)) == (15, 15)
    pixels = [{part.read(place).tobytes() for place in range(15)} for part in (checked, calibrating)]
    assert len(pixels[0] | pixels[1]) == 30
    whole, none, _ = draw(classifier, run.photos, 0, calibrate=False)
    assert (len(whole), none) == (30, None)

    names = list(index.names)
    divided = tmp_path / "divided"
    lay_out(run.photos, divided / "train", names[:5])
    lay_out(run.photos, divided / "test", names[5:])
    checked, calibrating, _ = draw(classifier, divided, 0, calibrate=True)
    assert calibrating is not None
    assert len(checked) + len(calibrating) == 5
    shutil.rmtree(divided / "train")
    with pytest.raises(UserError, match="nothing but a test set"):
        draw(classifier, divided, 0, calibrate=True)


def test_classes_are_matched_by_name(run: Trained, tmp_path: Path) -> None:
    """In another order, and one that the model does not know."""
    renamed = run.copy(tmp_path / "model", classes=("zebra", "bee", "yak"))
    truth = {"cat": "zebra", "dog": "bee", "owl": "unknown"}
    names = [f"{name}/{i:02d}.jpg" for name in truth for i in range(10)]
    data = lay_out(run.photos, tmp_path / "data", names, truth)
    check = export_model(renamed, "torch-export", data=data).check
    assert (check.images, check.labelled) == (30, 20)
    classifier = load_model(renamed, device="cpu", precision="fp32")
    right = [
        classifier.predict(data / truth[n[:3]] / n[4:])[0].labels[0] == truth[n[:3]] for n in names if n[:3] != "owl"
    ]
    assert check.top1_model == check.top1_exported == pytest.approx(sum(right) / 20)


def test_images_that_cannot_be_read_are_left_out(run: Trained, tmp_path: Path) -> None:
    names = [f"{name}/{i:02d}.jpg" for name in COLOURS for i in range(2)]
    data, model = lay_out(run.photos, tmp_path / "data", names), run.copy(tmp_path / "model")
    (data / names[0]).write_bytes(b"rubbish")
    assert export_model(model, "torch-export", data=data).check.images == 5
    for name in names:
        (data / name).write_bytes(b"rubbish")
    (model / "model.pt2").unlink()
    with pytest.raises(RunError, match="none of the images of data could be read"):
        export_model(model, "torch-export", data=data)
    assert not (model / "model.pt2").exists()


@pytest.mark.parametrize(
    ("file_format", "dtype", "out", "words"),
    [
        ("tflite", "fp32", None, "unknown --format 'tflite': choose from: onnx, torch-export"),
        ("onnx", "fp8", None, "unknown --dtype 'fp8'"),
        ("torch-export", "int8", None, "--dtype int8: is for --format onnx"),
        ("onnx", "int8", None, "--dtype int8: needs images to calibrate with; pass --data"),
        ("onnx", "fp32", "model.safetensors", r"a file of --format onnx is named \*\.onnx"),
        ("torch-export", "fp32", "model.onnx", r"a file of --format torch-export is named \*\.pt2"),
    ],
)
def test_refuses(file_format: str, dtype: str, out: str | None, words: str, small: Path) -> None:
    with pytest.raises(UserError, match=words):
        export_model(small, file_format, dtype, out=out and small / out)
    assert not (small / "model.onnx").exists()


def test_refuses_to_write_into_the_data(run: Trained) -> None:
    with pytest.raises(UserError, match="lies inside the data folder"):
        export_model(run.folder, "torch-export", data=run.photos, out=run.photos / "model.pt2")


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra(name: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"export: .*{name}.*; run: .*pip install .*\[export\]'"):
        export_model(small, "onnx")


def test_torch_export_needs_no_extra(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    assert export_model(small, "torch-export", out=tmp_path).file.is_file()


def test_two_exports_of_one_model_are_one_file(small: Path, exported: Exported, tmp_path: Path) -> None:
    assert export_model(small, "onnx", out=tmp_path / "shop.onnx").file.read_bytes() == exported.file.read_bytes()


def test_the_page_reads_an_image_without_us(
    run: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The page's Python, with onnxruntime and Pillow alone, guesses what the model guesses."""
    page = (ROOT / "docs" / "how-to" / "export.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    export_model(run.folder, "onnx", out=tmp_path / "model.onnx")
    classifier = load_model(run.folder, device="cpu", precision="fp32")
    monkeypatch.chdir(tmp_path)
    for name in run.names():
        shutil.copy(run.photos / name, "photo.jpg")
        exec(code, {})
        label, probability = capsys.readouterr().out.split()
        (guess,) = classifier.predict("photo.jpg")
        assert label == guess.labels[0]
        assert float(probability) == pytest.approx(guess.probs[0], abs=0.05)
    assert "bagoftricks" not in code
    assert io.StringIO(code).readline().startswith("import")
