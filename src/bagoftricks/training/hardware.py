"""Which device, which precision, how many threads; and the settings that make torch fast there, or exact.

On a CPU the same seed gives the same bits, threads and precision being equal. On CUDA it gives them only where
`Hardware.deterministic` is set: by default cuDNN's algorithms are chosen by timing them, and may compute the gradients
of a convolution's weights and inputs by atomic additions, whose order changes from run to run; and cuBLAS may share one
workspace among streams. Of what else a training calls on a GPU (PyTorch's notes on reproducibility;
`torch.use_deterministic_algorithms`):

| operation                                       | on CUDA                                                            |
|-------------------------------------------------|--------------------------------------------------------------------|
| convolutions                                    | chosen by timing; backward may add atomically: the flag ends both  |
| matrix products (classifier)                    | the flag fixes the workspace, as cuBLAS asks                       |
| `index_add_` (the meter's counts)               | whole numbers: exact in any order                                  |
| scatter (`one_hot`), indexing (crops, mixup)    | each element written once, no gradient: exact                      |
| `grid_sample`                                   | forward only, exact; its backward, never called, is not            |
| max pool, average pools, batch-norm, losses     | each output summed by one thread or block, in a fixed order: exact |
| optimisers                                      | element by element: exact                                          |

What has no deterministic form then raises instead of running. Another GPU, driver, or version of torch or cuDNN gives
other last digits all the same.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import torch

from bagoftricks.errors import UserError
from bagoftricks.kernels.build import load
from bagoftricks.kernels.functional import native

KERNELS = ("torch", "native")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
WORKSPACES = (":4096:8", ":16:8")
"""Values of CUBLAS_WORKSPACE_CONFIG with which cuBLAS is deterministic; the first is the faster one, for 24 MiB."""


@dataclass(frozen=True)
class Hardware:
    """Where a run computes. Threads, precision and kernels change results in their last digits: they belong to its
    identity.
    """

    device: str
    """cpu, cuda or mps."""
    precision: str
    """fp32, or bf16 by autocast."""
    threads: int
    """Threads of one run on the CPU."""
    deterministic: bool = False
    """Whether a GPU must give the same bits twice, at a cost in speed; a CPU does so anyway."""
    kernels: str = "torch"
    """torch's own operations in training, or native: ours, for bf16 on x86 CPUs (`bagoftricks.kernels`)."""

    def prepare(self) -> None:
        """Applies the settings to this process; `deterministic` must come before its first computation on a GPU."""
        torch.set_num_threads(self.threads)
        if self.deterministic:
            only_deterministic()
        if self.device == "cpu":
            keep_memory()
        if self.device == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; bf16 is the fast one
            torch.backends.cudnn.benchmark = not self.deterministic  # shapes are few, and each is met often

    @property
    def dtype(self) -> torch.dtype:
        """What the precision is called by torch."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The context in which the network computes."""
        with ExitStack() as stack:
            if self.precision == "bf16":
                stack.enter_context(torch.autocast(self.device, self.dtype))
            if self.kernels == "native":
                stack.enter_context(native())
            yield


def detect(
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    *,
    deterministic: bool = False,
    kernels: str = "auto",
) -> Hardware:
    """Returns the hardware to use: the fastest device there is, bf16 where it computes in bf16.

    Args:
        device: auto, cpu, cuda or mps.
        precision: auto, fp32 or bf16.
        threads: of one run; by default as many as there are cores, or as OMP_NUM_THREADS says.
        deterministic: see `Hardware`.
        kernels: auto (ours where they can be had), torch or native.

    Raises:
        UserError: for a device, precision or kernels that are unknown or not there.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available.get(device, False):
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise UserError(f"device '{device}' is not here: choose from auto, {there}")
    if deterministic and device == "mps":
        raise UserError("--deterministic: max-pooling has no deterministic backward pass on mps; use --device cpu")
    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision '{precision}' is unknown: choose from auto, fp32, bf16")
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    if kernels not in ("auto", *KERNELS):
        raise UserError(f"kernels '{kernels}' are unknown: choose from auto, {', '.join(KERNELS)}")
    if kernels != "torch":
        missing = why_not_native(device, precision)
        if missing and kernels == "native":
            raise UserError(f"kernels 'native' are not here: {missing}")
        kernels = "torch" if missing else "native"
    return Hardware(device, precision, threads or thread_limit(1), deterministic, kernels)


def why_not_native(device: str, precision: str) -> str:
    """Returns why our own kernels cannot be used, or "" where they can; builds them where they are not yet."""
    if (device, precision) != ("cpu", "bf16"):
        return "they compute in bf16 on a CPU"
    found = load()
    return found if isinstance(found, str) else ""


def has_fast_bf16(device: str) -> bool:
    """Whether the device has bf16 units; without them bf16 on a CPU is emulated and many times slower."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    return False


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_limit(jobs: int) -> int:
    """Returns the threads of one run where `jobs` share the cores, at least one; OMP_NUM_THREADS lowers it."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    asked = int(limit) if limit.isdigit() and int(limit) > 0 else cores()
    return max(1, min(cores() // jobs, asked))


def only_deterministic() -> None:
    """Lets this process use deterministic algorithms alone; torch raises where an operation has none.

    It is not taken back: a caller may have asked for it too.
    """
    if os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in WORKSPACES:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACES[0]  # read when cuBLAS starts
    torch.backends.cudnn.benchmark = False  # its choice depends on timings
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)


def keep_memory() -> bool:
    """Keeps glibc's malloc from returning large blocks to the system: each step would fault them in again.

    Returns:
        Whether both settings were taken; False where there is no glibc.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    taken = [libc.mallopt(M_MMAP_THRESHOLD, 1 << 30), libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)]
    return all(answer == 1 for answer in taken)


def environment() -> dict[str, str]:
    """Returns versions and machine, for a run's `environment.json`."""
    packages = ("bagoftricks", "torch", "torchvision", "numpy", "pillow")
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }
