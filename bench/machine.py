"""What the machine can do: its matrix products per second, and the operations that a ResNet-50 asks of it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = (
    "bagoftricks", "torch", "torchvision", "numpy", "pillow", "timm", "fastai", "transformers", "accelerate",
    "lightning",
)  # fmt: skip


def describe(threads: int, device: str) -> dict[str, Any]:
    """Returns processor, cores, device and the versions of every contender's packages."""
    import torch

    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "device": device,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": found,
    }


def same(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what has to be equal in all measurements of one file, of what `describe` says."""
    return {name: machine[name] for name in ("cpu", "capability", "cores", "gpu", "versions")}


def load() -> float:
    """Returns the system's load average of the last minute: what else is at work."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def matmul_rate(dtype: str, size: int, device: str, tries: int = 7) -> float:
    """Returns GFLOP/s of the best of several products of two `size` x `size` matrices; a product is 2 size^3."""
    import torch

    kind = getattr(torch, dtype)
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    best = float("inf")
    for _ in range(tries + 1):  # the first warms up
        settle(device)
        started = time.perf_counter()
        a @ b
        settle(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def settle(device: str) -> None:
    """Waits until a GPU has done what it was told."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def training_flops(size: int, classes: int, depth: int = 50) -> int:
    """Returns the floating-point operations of one image's forward and backward pass, by torch's own counter.

    Multiplications and additions count one each; convolutions and the classifier are counted, norms are not.
    """
    import torch
    import torch.nn.functional as F
    from torch.utils.flop_counter import FlopCounterMode

    from bagoftricks.models.build import build
    from bagoftricks.models.config import ModelConfig

    images = 2  # a batch norm at 32 pixels has one value a channel otherwise
    model = build(ModelConfig("B" if depth >= 50 else "A", depth), classes).train()
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(torch.randn(images, 3, size, size)), torch.zeros(images, dtype=torch.long)).backward()
    return int(counter.get_total_flops()) // images


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    import importlib.util

    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
