"""Compiles `kernels.c` for this CPU with the first of the machine's C compilers that can, once, and loads it.

The library lies in the user's cache folder, under a name that hashes source, compiler, processor and OpenMP runtime. It
is linked to the OpenMP runtime that torch has loaded: with a second one, two pools of threads would wait for each other
in busy loops.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch

from bagoftricks.errors import first_line
from bagoftricks.files import cache_folder, replacing

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno")
COMPILERS = ("cc", "gcc")
BUILD_S = 120
"""Longest that a compiler may take; about two seconds are usual."""
MACHINES = ("x86_64", "AMD64")


class Library:
    """The kernels, loaded."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, number, size, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
        self.norm_forward = library.bot_norm_forward
        self.norm_forward.argtypes = [*[pointer] * 6, real, real, number, *[pointer] * 3, size, number, number]
        self.norm_backward = library.bot_norm_backward
        self.norm_backward.argtypes = [*[pointer] * 7, number, *[pointer] * 4, size, number, number]
        self.has_tiles = bool(library.bot_tiles_allowed())
        """Whether there are AMX units, and the system lets this process use them."""
        if self.has_tiles:
            self.weight_gradient = library.bot_weight_gradient
            self.weight_gradient.argtypes = [pointer, pointer, pointer, size, *[number] * 12]


@cache
def load() -> Library | str:
    """Returns the kernels, compiled now where they are not yet, or why there are none here."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return "they are for x86 processors under Linux"
    supports = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    if not supports():
        return "this processor has no AVX-512 units for bf16"
    compilers = _compilers()
    if not compilers:
        return "there is no C compiler: install gcc"
    try:
        runtime = _openmp()
        if runtime is None:
            return "torch uses no OpenMP here"
        folder, refused = _folder(), list[str]()
    except OSError as error:
        return f"they could not be built or loaded ({first_line(error)[:200]})"
    for compiler in compilers:
        try:
            return _built(compiler, runtime, folder)
        except subprocess.SubprocessError as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            refused.append(f"{compiler} could not build them ({said[0][:200] if said else type(error).__name__})")
        except (OSError, AttributeError) as error:
            refused.append(f"{compiler}: they could not be built or loaded ({first_line(error)[:200]})")
    return "; ".join(refused)


def _built(compiler: str, runtime: str, folder: Path) -> Library:
    """Returns the library that a compiler makes; it is in the folder already where it was made before."""
    path = folder / f"{_key(compiler, runtime)}.so"
    if not path.exists():
        _compile(compiler, runtime, path)
    return Library(ctypes.CDLL(str(path)))


def _compilers() -> list[str]:
    """Returns the C compilers of the machine, the user's own choice first, each once."""
    found = [which for name in (os.environ.get("CC"), *COMPILERS) if name and (which := shutil.which(name))]
    return list(dict.fromkeys(found))


def _folder() -> Path:
    """Returns the folder of built libraries, which is made where it is lacking.

    Raises:
        PermissionError: if others may write there: what is loaded from it runs as the user.
    """
    folder = cache_folder() / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to another user, or others may write to it")
    return folder


def _openmp() -> str | None:
    """Returns the file of the OpenMP runtime that torch has loaded; other packages may have brought their own."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    loaded = {Path(line.split(maxsplit=5)[-1]) for line in maps if "/lib" in line}
    found = sorted(path for path in loaded if path.name.startswith(("libgomp", "libiomp5")))
    home = Path(torch.__file__).resolve().parent
    of_torch = [path for path in found if home in path.parents or home.with_name("torch.libs") in path.parents]
    of_system = [path for path in found if not path.parent.name.endswith(".libs")]
    return next((str(path) for path in (*of_torch, *of_system)), None)


def _key(compiler: str, runtime: str) -> str:
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    told = [line for line in cpu.splitlines() if line.startswith(("model", "flags"))]
    status = Path(compiler).resolve().stat()
    parts = [SOURCE.read_text(encoding="utf-8"), *FLAGS, compiler, status.st_size, status.st_mtime_ns, runtime, *told]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


def _compile(compiler: str, runtime: str, path: Path) -> None:
    """Builds the library at `path`, which appears whole.

    Raises:
        SubprocessError: if the compiler fails, or hangs.
        OSError: if the folder cannot be written to.
    """
    with replacing(path) as temporary:
        piece = temporary.with_suffix(".o")
        linking = ("-shared", "-Wl,--no-undefined", str(piece), runtime, "-lm", "-lc", "-o", str(temporary))
        try:
            for step in ((*FLAGS, "-c", str(SOURCE), "-o", str(piece)), linking):
                subprocess.run(
                    (compiler, *step), check=True, capture_output=True, text=True, errors="replace", timeout=BUILD_S
                )
        finally:
            piece.unlink(missing_ok=True)
