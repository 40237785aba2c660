"""The card is read back by parsers that others wrote: PyYAML, the HF hub's library, markdown-it, tomllib."""

from __future__ import annotations

import dataclasses
import html
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token
from statsmodels.stats.proportion import proportion_confint

from bagoftricks.models.card import model_card
from bagoftricks.models.cardfacts import CardFacts, Scores, public_init, scores
from bagoftricks.models.cardtext import HUB_LICENCES, consequence, hub_fields
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.published import PUBLISHED
from bagoftricks.recipe import Recipe

VALIDATION = Scores(
    {"top1": 0.75, "top5": 1.0, "mean_class_acc": 0.7, "macro_f1": 0.69, "loss": 0.812},
    (40, 20, 12, 8, 0, 0, 0),
    (40, 10, 6, 4, 0, 0, 0),
    ((1, 0, 9), (2, 3, 4)),
)
CHANGED = Recipe().with_fields({"epochs": 5, "model.tweaks": "BCD", "init": "timm:resnet50d.ra2_in1k"})
HOSTILE = [
    "a|b",
    "`rm -rf`",
    "``` \n```",
    "<script>alert(1)</script>",
    "</details><img src=x onerror=alert(1)>",
    "one\ntwo\n\n# three",
    "[click](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "<https://evil.example>",
    "https://evil.example www.evil.example a@evil.example",
    "&lt;b&gt; &#60;b&#62;",
    "\\",
    "\\|",
    "**bold** _em_ ~~gone~~ $x$",
    '"]: x\n---\nlicense: mit',
    "---",
    "key: value # comment",
    "*alias &anchor !!python/object/apply:os.system ['true']",
    "{{ 7 * 7 }} {% x %}",
    "\x1b[2J\x00\x85\u2028\u202e",
    "\ud800 lone",
    "\U0001f600 \u00e9",
    "'\"",
    "| --- |",
]


def facts(**changes: Any) -> CardFacts:
    made = CardFacts(
        config=ModelConfig("BCD", 50),
        size=128,
        crop="center",
        crop_pct=0.875,
        classes=("ant", "bee", "cow", "dog", "elk", "fox", "gnu"),
        data="photos",
        fingerprint="97a3811216d9f0a1",
        given_split=False,
        train_images=320,
        val_images=80,
        test_images=0,
        run_id="22a71584007cee17",
        seed=3,
        recipe=CHANGED.flat(),
        defaults=Recipe().flat(),
        recipe_toml=CHANGED.to_toml(),
        validation=VALIDATION,
        init="timm:resnet50d.ra2_in1k",
        licence="apache-2.0",
        init_sha256="a" * 64,
        temperature=1.25,
        calibration_before=0.101,
        calibration_after=0.032,
        versions={"bagoftricks": "0.1", "torch": "2.9"},
        command="tricks train --data photos --recipe recipe.toml --seed 3",
    )
    return dataclasses.replace(made, **changes)


def front(card: str) -> dict[str, Any]:
    _, matter, _ = re.split(r"^---\n", card, maxsplit=2, flags=re.M)
    parsed: dict[str, Any] = yaml.safe_load(matter)
    return parsed


def tokens(card: str) -> list[Token]:
    """Every token of the card's body, those inside lines too."""
    body = re.split(r"^---\n", card, maxsplit=2, flags=re.M)[2]

    def flat(some: list[Token]) -> Iterator[Token]:
        for token in some:
            yield token
            yield from flat(token.children or [])

    return list(flat(MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)))


def text_of(cells: list[Token]) -> list[str]:
    return ["".join(child.content for child in cell.children or []) for cell in cells]


def rows(card: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, as a reader sees them."""
    body = card.partition(f" {heading}\n")[2]
    assert body, heading
    parsed, table = MarkdownIt("commonmark").enable("table").parse(body), []
    start = next(i for i, token in enumerate(parsed) if token.type == "tbody_open")
    for i, token in enumerate(parsed[start:], start):
        if token.type == "tbody_close":
            break
        if token.type == "tr_open":
            end = next(j for j in range(i, len(parsed)) if parsed[j].type == "tr_close")
            table.append(text_of([cell for cell in parsed[i:end] if cell.type == "inline"]))
    return table


def prose(card: str) -> str:
    return " ".join(card.split())


# -------------------------------------------------------------------------------------------------------- front matter


def test_the_hub_reads_it() -> None:
    card = ModelCard(model_card(facts(test=dataclasses.replace(VALIDATION, measures={"top1": 0.7, "macro_f1": 0.6}))))
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "apache-2.0",
        "timm",
        "image-classification",
    )
    assert card.data.base_model == ["timm/resnet50d.ra2_in1k"]
    assert card.data.model_name == "ResNet-50-BCD"
    found = {(r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results or []}
    assert found == {
        ("validation", "accuracy"): 0.75,
        ("validation", "f1"): 0.69,
        ("test", "accuracy"): 0.7,
        ("test", "f1"): 0.6,
    }
    assert {r.dataset_name for r in card.data.eval_results or []} == {"photos"}


def test_the_front_matter_of_others() -> None:
    """From scratch there is no licence to pass on, from a file no model of the hub, and timm has no A."""
    matter = front(model_card(facts(config=ModelConfig("A"), init="scratch", licence="")))
    assert not {"license", "license_name", "base_model", "datasets"} & set(matter)
    assert matter["library_name"] == "bagoftricks"
    assert "timm" not in matter["tags"]
    matter = front(model_card(facts(init="mine.safetensors", licence="My Own Terms, v2")))
    assert (matter["license"], matter["license_name"]) == ("other", "my-own-terms-v2")
    assert "base_model" not in matter
    assert front(model_card(facts(licence="unknown")))["license"] == "unknown"


@pytest.mark.parametrize(
    ("init", "base"),
    [
        ("adapt:timm:resnet50d.ra2_in1k", ["timm/resnet50d.ra2_in1k"]),
        ("timm:convnext_tiny.fb_in1k", ["timm/convnext_tiny.fb_in1k"]),
        ("timm:rdnet_tiny.nv_in1k", ["naver-ai/rdnet_tiny.nv_in1k"]),
        ("timm:resnet50.of_no_version", None),
        ("adapt:mine.safetensors", None),
        ("torchvision:IMAGENET1K_V2", None),
    ],
)
def test_the_hub_is_told_what_it_was_made_from(init: str, base: list[str] | None) -> None:
    assert front(model_card(facts(init=init))).get("base_model") == base


def test_a_figure_that_is_none_is_left_out() -> None:
    diverged = dataclasses.replace(VALIDATION, measures={"top1": 0.1, "macro_f1": float("nan"), "loss": float("nan")})
    matter = front(model_card(facts(validation=diverged)))
    assert [m["type"] for m in matter["model-index"][0]["results"][0]["metrics"]] == ["accuracy"]


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        ("BSD-3-Clause", {"license": "bsd-3-clause"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("CC-BY-NC-4.0", {"license": "cc-by-nc-4.0"}),
        ("unknown", {"license": "unknown"}),
        ("", {}),
        ("  ", {}),
        ("\n---\n", {"license": "other", "license_name": "unnamed"}),
    ],
)
def test_identifiers(licence: str, fields: dict[str, str]) -> None:
    assert hub_fields(licence) == fields


def test_every_published_licence_has_an_identifier() -> None:
    for item in PUBLISHED.values():
        assert hub_fields(item.licence).keys() == {"license"}, item.name
        assert not consequence(item.licence).startswith("Read it"), item.name


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("apache-2.0", ["notice"]),
        ("cc-by-4.0", ["notice"]),
        ("cc-by-nc-4.0", ["commercial", "notice"]),
        ("cc-by-nc-sa-4.0", ["commercial", "same licence", "notice"]),
        ("cc-by-nd-4.0", ["keep them to yourself", "notice"]),
        ("agpl-3.0", ["same licence"]),
        ("cc0-1.0", ["nothing"]),
        ("openrail", ["Read it"]),
        ("my terms", ["Read it"]),
        ("my terms, apache-like", ["Read it"]),
    ],
)
def test_what_follows_from_a_licence(licence: str, said: list[str]) -> None:
    words = ["notice", "commercial", "same licence", "keep them to yourself", "nothing", "Read it"]
    assert {word for word in words if word in consequence(licence)} == set(said)


def test_licences_in_words() -> None:
    for licence, init, said in [
        ("", "scratch", "Trained from scratch, so that no other weights' licence binds these. None has been chosen"),
        (
            "",
            "mine.safetensors",
            "Their file says that they inherited no licence; what their own maker asks it does not say",
        ),
        ("unknown", "old.pth", "Their licence is unknown. These weights are derived from them: until you know it, do"),
        ("cc-by-nc-4.0", "timm:resnet50.fb_swsl_ig1b_ft_in1k", "It excludes commercial use, of these weights too"),
    ]:
        card = model_card(facts(licence=licence, init=init))
        assert said in prose(card)
        assert ("unknown" in card) == (licence == "unknown")
    assert "a" * 64 in card


# ------------------------------------------------------------------------------------------------------------- figures


def test_intervals_are_wilsons() -> None:
    table = {row[0]: row[1:] for row in rows(model_card(facts()), "Validation set")}
    low, high = proportion_confint(60, 80, method="wilson")
    assert table["Top-1 accuracy"] == ["75.0 %", f"{100 * low:.1f} % to {100 * high:.1f} %", "80"]
    low, high = proportion_confint(80, 80, method="wilson")
    assert table["Top-5 accuracy"] == ["100.0 %", f"{100 * low:.1f} % to {100 * high:.1f} %", "80"]
    assert table["mean per-class accuracy"] == ["70.0 %", "", "80"]
    assert table["cross-entropy, nats"] == ["0.812", "", "80"]


def test_weakest_classes() -> None:
    """The less is right the weaker; of equals the one with more images. Classes without images have no accuracy."""
    table = rows(model_card(facts()), "Weakest classes, on the validation set")
    low, high = proportion_confint(10, 20, method="wilson")
    assert table[0] == ["bee", "10 of 20", "50.0 %", f"{100 * low:.1f} % to {100 * high:.1f} %"]
    assert [row[0] for row in table] == ["bee", "cow", "dog", "ant"]
    many = dataclasses.replace(VALIDATION, class_images=(9,) * 7, class_correct=(3, 1, 4, 1, 5, 9, 2), confusions=())
    table = rows(model_card(facts(validation=many)), "Weakest classes, on the validation set")
    assert [row[0] for row in table] == ["bee", "dog", "gnu", "ant", "cow"]


def test_scores_count_as_a_loop_does() -> None:
    draw = np.random.default_rng(0)
    logits_NK, label_N = draw.normal(size=(200, 7)).astype(np.float32), draw.integers(0, 6, 200)
    found = scores({"top1": 0.5, "seed": 1, "loss": 2.0}, logits_NK, label_N)
    images, correct, wrong = [0] * 7, [0] * 7, dict[tuple[int, int], int]()
    for logits_K, label in zip(logits_NK, label_N, strict=True):
        guess = max(range(7), key=lambda k: logits_K[k])
        images[label] += 1
        correct[label] += guess == label
        if guess != label:
            wrong[label, guess] = wrong.get((label, guess), 0) + 1
    assert (found.class_images, found.class_correct) == (tuple(images), tuple(correct))
    assert found.images == 200
    assert [n for _, _, n in found.confusions] == sorted(wrong.values(), reverse=True)[:5]
    assert all(wrong[true, guess] == n for true, guess, n in found.confusions)
    assert found.measures == {"top1": 0.5, "loss": 2.0}
    right = scores({"top1": 1.0}, np.eye(3, dtype=np.float32), np.arange(3))
    assert (right.class_correct, right.confusions) == ((1, 1, 1), ())


def test_calibration() -> None:
    said = "temperature 1.250 before the softmax (Guo et al. 2017): the expected calibration error is 0.101 without and"
    assert said in prose(model_card(facts()))
    assert "0.032 with it" in prose(model_card(facts()))
    assert "on the same 80 images, which flatters it; so few fix it badly" in prose(model_card(facts()))
    assert "on the same 1,700 images, which flatters it; on images" in prose(model_card(facts(val_images=1700)))
    assert "No temperature was fitted" in model_card(facts(temperature=None, calibration_after=None))


def test_what_it_was_trained_and_is_measured_by() -> None:
    assert "(tweaks of He et al. 2019, arXiv:1812.01187), trained from" in prose(model_card(facts()))
    blurred = prose(model_card(facts(config=ModelConfig("BCF"), trained_size=96, size=128, mirrored=True)))
    assert "(tweaks of He et al. 2019, arXiv:1812.01187; BlurPool of Zhang 2019, arXiv:1904.11486)" in blurred
    assert "on images of 96 x 96 pixels, and evaluated on 128 x 128. Its logits are averaged with those of" in blurred
    assert "timm has no ResNet-50-BCF (of F it has a few combinations only)" in blurred
    assert "nor average with the mirror image" in prose(model_card(facts(mirrored=True)))


def test_the_teacher_and_its_licence() -> None:
    taught = {
        "init": "scratch",
        "licence": "",
        "teacher": "ResNet-152-BCD of run 0123",
        "knows": ("it may know",),
    }
    for licence, said in (("cc-by-nc-4.0", "weights under cc-by-nc-4.0"), ("unknown", "a licence that nobody knows")):
        card = prose(model_card(facts(**taught, teacher_licence=licence)))
        assert "from scratch and by the guesses of a teacher, ResNet-152-BCD of run 0123, on images" in card
        assert said in card.replace("\\", "")
        assert "Whether that licence reaches a network that learnt from their guesses is not settled" in card
        assert "Measures on the validation set may flatter it: it may know." in card
    assert "is not settled" not in model_card(facts(**taught, teacher_licence=""))


def test_the_test_set() -> None:
    assert "There is none: no images were locked away." in model_card(facts())
    assert "Not measured." in model_card(facts(test_images=40))
    measured = Scores({"top1": 0.6}, (40,) + (0,) * 6, (24,) + (0,) * 6, ())
    table = rows(model_card(facts(test_images=40, test=measured)), "Test set")
    low, high = proportion_confint(24, 40, method="wilson")
    assert table == [["Top-1 accuracy", "60.0 %", f"{100 * low:.1f} % to {100 * high:.1f} %", "40"]]


def test_the_recipe() -> None:
    card = model_card(facts())
    assert rows(card, "Recipe") == [
        ["epochs", "5", "10"],
        ["init", "timm:resnet50d.ra2_in1k", "scratch"],
        ["model.tweaks", "BCD", "B"],
    ]
    (whole,) = (token.content for token in tokens(card) if token.type == "fence" and token.info == "toml")
    assert Recipe.from_toml(whole) == CHANGED
    plain = Recipe()
    card = model_card(facts(recipe=plain.flat(), recipe_toml=plain.to_toml()))
    assert "Every field is at its default." in card


def test_limits_follow_from_the_facts() -> None:
    card = prose(model_card(facts()))
    assert "6 of 7 classes have fewer than 30 validation images (the least: 0)" in card
    assert "bee taken for ant (9), cow taken for dog (4)" in card
    assert "It has seen 320 images of one source" in card
    assert "reduced to 128 x 128 pixels" in card
    assert "The middle 87.5 % of the short side" in card
    assert "Not for decisions about people" in card
    full = Scores({"top1": 1.0}, (30,) * 7, (30,) * 7, ())
    card = prose(model_card(facts(crop="pad", validation=full, groups=12, init_warning="weights of B in BCD")))
    assert "fewer than" not in card
    assert "Confused" not in card
    assert "The middle" not in card
    assert "too narrow here" in card
    assert "At the start, weights of B in BCD." in card


@pytest.mark.parametrize("tweaks", ["A", "B", "BC", "BD", "BCD", "CD"])
def test_how_to_use_it(tweaks: str) -> None:
    card = model_card(facts(config=ModelConfig(tweaks)))
    blocks = [token for token in tokens(card) if token.type == "fence" and token.info == "python"]
    for block in blocks:
        compile(block.content, "card", "exec")
    assert any("import timm" in block.content for block in blocks) == ("B" in tweaks)
    assert ("refuses the folder" in card) == ("B" not in tweaks)
    assert "tricks predict MODEL photo.jpg" in card


def test_a_card_needs_no_torch() -> None:
    code = "import sys, bagoftricks.models.card\nassert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("init", "public"),
    [
        ("scratch", "scratch"),
        ("/home/somebody/w.pth", "w.pth"),
        ("../w.pth", "w.pth"),
        (r"C:\Users\somebody\w.pth", "w.pth"),
        ("adapt:/home/somebody/w.pth", "adapt:w.pth"),
        ("torchvision:IMAGENET1K_V2", "torchvision:IMAGENET1K_V2"),
        ("timm:resnet50d.ra2_in1k", "timm:resnet50d.ra2_in1k"),
    ],
)
def test_initial_weights_tell_no_folder(init: str, public: str) -> None:
    assert public_init(init) == public


# ------------------------------------------------------------------------------------------------- what others may say


def plain(name: str) -> str:
    """As a reader should see it: control characters spelled out, and nothing else changed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names(name: str) -> None:
    """Each is shown as it is wherever it stands, makes no markup, and changes nothing around it."""
    usual = facts(init_warning="w", init="i", data="d", fingerprint="f", classes=tuple("abcdefg"), command="c")
    hostile = dataclasses.replace(
        usual,
        init_warning=name,
        init=name,
        data=name,
        fingerprint=name,
        classes=(name, *"bcdefg"),
        command=name,
        run_id=name,
        licence=name,
        init_sha256=name,
        versions={name: name},
        recipe={**usual.recipe, "init": name},
        recipe_toml=Recipe(init=name.encode("utf-8", "backslashreplace").decode()).to_toml(),
    )
    card = model_card(hostile)
    card.encode("utf-8")
    assert "\x1b" not in card
    matter = front(card)
    assert matter["model-index"][0]["results"][0]["dataset"]["name"] == plain(name)
    assert set(matter) - {"license_name"} == set(front(model_card(usual))) - {"base_model"}
    assert matter["license"] == "other"
    ModelCard(card)

    allowed = {"<details>\n<summary>The whole recipe.toml</summary>\n", "</details>\n"}
    found = tokens(card)
    assert {token.content for token in found if token.type.startswith("html")} == allowed
    kinds = {token.type for token in found}
    assert not kinds & {"link_open", "image", "em_open", "strong_open", "s_open", "hr", "blockquote_open"}
    assert [t.tag for t in found if t.type == "heading_open"] == [
        t.tag for t in tokens(model_card(usual)) if t.type == "heading_open"
    ]
    seen = plain(name).strip()
    assert rows(card, "Data")[0] == ["data set", seen]
    assert rows(card, "Weakest classes, on the validation set")[-1][0] == seen
    assert rows(card, "Recipe")[1][1] == seen
    fences = {token.info: token.content for token in found if token.type == "fence"}
    assert tomllib.loads(fences["toml"])["epochs"] == 10
    assert [token.info for token in found if token.type == "fence"] == ["toml", "sh", "python", "python", "sh"]


def test_rendered_html_has_no_tags_of_others() -> None:
    """Through a renderer that lets HTML through, as most do for Markdown's authors."""
    card = model_card(facts(classes=("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", *"cdefg")))
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.partition("\n---\n")[2])
    tags = set(re.findall(r"</?([a-z0-9]+)", page))
    ours = "h1 h2 h3 p table thead tbody tr th td code pre ul li details summary"
    assert tags <= set(ours.split())
    assert "<script>alert(1)</script>" in html.unescape(page)


def test_identifiers_are_the_hubs() -> None:
    """Each is one word in small letters, and none is made up by way of a typing error that a longer one would hide."""
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in HUB_LICENCES)
    assert {"mit", "apache-2.0", "bsd-3-clause", "cc-by-nc-4.0", "unknown"} <= HUB_LICENCES
    assert "other" not in HUB_LICENCES
