"""What a contender is asked to do, and the list of contenders. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CROP_MIN, CROP_RATIO, CROP_PCT = 0.35, 4 / 3, 0.875
"""Random resized crops and centre crops of every contender: ours by default."""
WARM_SECONDS = 20.0
"""A warm-up this long may end before all that workers prepared is used up: steps so slow never wait for a loader."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Job:
    """One measurement; JSON both ways."""

    task: str
    """train, data, evaluate, step, loop, matmul or accuracy."""
    contender: str
    size: int
    """Pixels of a side."""
    batch: int
    tree: str
    """Folder with train/, val/, eval/ and eval-small/, each <label>/<image>."""
    data: str
    """What was given as --data."""
    work: str
    """Folder for caches."""
    classes: int
    device: str
    threads: int
    warmup: int
    """Least steps before the clock starts; more with workers, see `warm_steps`."""
    steps: int
    seconds: float
    side: str = "eval"
    """Of the tree, to evaluate on."""
    members: list[int] = field(default_factory=list)
    """The same images as indices of the data set."""
    images: int = 0
    """Images of `side`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The contender's flags."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))

    @property
    def workers(self) -> int:
        return int(self.options.get("workers", 0))

    @property
    def warm_steps(self) -> int:
        """Steps before the clock starts: enough to use up what workers prepared while the first step compiled.

        A DataLoader keeps two batches a worker ready; one more a worker is under way.
        """
        return max(self.warmup, 3 * self.workers + 2)

    def folder(self, side: str) -> Path:
        return Path(self.tree) / side


@dataclass(frozen=True)
class Contender:
    """A way to train a ResNet-50."""

    name: str
    module: str
    """In this package."""
    needs: tuple[str, ...]
    """Modules that must be installed."""
    about: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Flags that make it what it is."""
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Flags that are tried, one after another, and the faster kept; the first value is the starting point."""
    tasks: tuple[str, ...] = ("train", "data", "eval")
    evaluation: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """More flags that are tried for evaluation, such as a model wholly in half precision."""

    def missing(self, installed: Any) -> list[str]:
        """Returns what it needs and is not there."""
        return [module for module in self.needs if not installed(module)]


def contenders(cores: int, device: str) -> dict[str, Contender]:
    """Returns every contender, with the values that its flags may take on this machine."""
    workers = list(dict.fromkeys((cores, 1)))
    dtypes = ["bfloat16", "float16"] if device == "cuda" else ["bfloat16"]
    layouts, both = [True, False], [False, True]
    half = {"half": [True, False]}
    malloc = {"malloc": layouts} if device == "cpu" else {}  # which ours sets by itself
    vision = ("torch", "torchvision")
    listed = [
        Contender("ours", "ours", vision, "bagoftricks.train, Recipe() as it is"),
        Contender(
            "torch-fp32", "plain_torch", vision,
            "torchvision's reference recipe: ImageFolder, DataLoader, resnet50, SGD",
            {"amp": "", "channels_last": False}, {"workers": workers},
        ),
        Contender(
            "torch-amp", "plain_torch", vision, "the same with --amp",
            {"channels_last": False}, {"amp": dtypes, "workers": workers},
        ),
        Contender(
            "torch-tuned", "plain_torch", vision,
            "the same with what PyTorch's tuning guide names: channels last, fused SGD, torch.compile, malloc",
            {"fused": True},
            {"amp": dtypes, "channels_last": layouts, "workers": workers, **malloc, "compile": both},
            evaluation=half,
        ),
        Contender(
            "timm", "timm_peer", (*vision, "timm"), "timm's create_loader and resnet50, --amp, --channels-last",
            {"amp": "bfloat16"}, {"channels_last": layouts, "prefetcher": layouts, "workers": workers, **malloc},
            evaluation=half,
        ),
        Contender(
            "timm-compile", "timm_peer", (*vision, "timm"), "the same with --torchcompile",
            {"amp": "bfloat16", "compile": True},
            {"channels_last": layouts, "prefetcher": layouts, "workers": workers, **malloc},
            evaluation=half,
        ),
        Contender(
            "fastai", "fastai_peer", (*vision, "fastai"), "vision_learner by default",
            {"amp": "", "channels_last": False, "workers": min(16, cores)},
        ),
        Contender(
            "fastai-tuned", "fastai_peer", (*vision, "fastai"), "the same in mixed precision, ChannelsLast",
            {}, {"amp": dtypes, "channels_last": layouts, "workers": workers, **malloc},
        ),
        Contender(
            "transformers", "transformers_peer", (*vision, "transformers", "accelerate"),
            "Hugging Face's Trainer with its ResNet-50, bf16",
            {"amp": "bfloat16"}, {"channels_last": layouts, "workers": workers, **malloc},
            evaluation=half,
        ),
        Contender(
            "lightning", "lightning_peer", (*vision, "lightning"), "Lightning's Trainer, bf16-mixed",
            {"amp": "bfloat16"}, {"channels_last": layouts, "workers": workers, **malloc},
            ("train", "eval"), half,
        ),
    ]  # fmt: skip
    return {contender.name: contender for contender in listed}


def environment(options: Mapping[str, Any]) -> dict[str, str]:
    """Returns the variables that a contender's flags ask for.

    PyTorch's tuning guide advises another malloc; glibc's own, kept from returning memory, does the same and is there
    everywhere. Ours sets it by itself.
    """
    if not options.get("malloc"):
        return {}
    return {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}
