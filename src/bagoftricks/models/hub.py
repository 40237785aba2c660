"""Where published weights are kept: torch hub's cache and the HF hub's, which other tools fill and read too.

What a cache holds is used; what none holds is downloaded into the cache where its own tool looks, unless HF_HUB_OFFLINE
or TRANSFORMERS_OFFLINE forbid it. Only download.pytorch.org and the HF hub (HF_ENDPOINT) are asked. Checksums are
compared after a download and when a file is found in a cache, once for each version of a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from bagoftricks.data.names import shown
from bagoftricks.errors import RunError, UserError, first_line, install
from bagoftricks.files import expanded, file_digest
from bagoftricks.models.published import (
    HUB_FILES,
    Published,
    find,
    hub_digest,
    hub_folder_name,
    identify,
    is_name,
    sha1_of,
)

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the length, None where the server does not tell it."""
TRUE = ("1", "ON", "YES", "TRUE")
"""Values of a switch that huggingface_hub takes for on, in any case."""
LARGEST = 2**29
"""Bytes that are taken of a file: twice those of a ResNet-152."""
HUB_COMMIT = re.compile(r"[0-9a-f]{5,64}")
ENDPOINT = "https://huggingface.co"


def quiet(*_: object) -> None:
    """Reports to nobody."""


def torch_folder() -> Path:
    """Returns where torch hub keeps files of weights: as `torch.hub.get_dir()`, without importing torch."""
    home = os.environ.get("TORCH_HOME", str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"))
    return expanded(home) / "hub" / "checkpoints"


def hf_folder() -> Path:
    """Returns the HF hub's cache: as `huggingface_hub.constants.HF_HUB_CACHE`, without importing that."""
    home = os.environ.get("HF_HOME", str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"))
    usual = os.environ.get("HUGGINGFACE_HUB_CACHE", str(Path(home) / "hub"))
    named = os.environ.get("HF_HUB_CACHE", usual)
    return Path(os.path.expandvars(expanded(named)))


def pytorchcv_folder() -> Path:
    """Returns where pytorchcv keeps its files."""
    return expanded("~/.torch/models")


def offline() -> bool:
    """Whether downloads are switched off: by HF_HUB_OFFLINE or, where that is not set, TRANSFORMERS_OFFLINE."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in TRUE


def cached(item: Published) -> tuple[str, Path] | None:
    """Returns the cache ("HF hub", "torch hub", "pytorchcv") that holds a file of these weights, and the file."""
    if item.hub_id:
        repository = hf_folder() / hub_folder_name(item.hub_id)
        try:
            commit = (repository / "refs" / "main").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            commit = ""
        for name in HUB_FILES if HUB_COMMIT.fullmatch(commit) else ():
            if (path := repository / "snapshots" / commit / name).is_file():
                return "HF hub", path
    label, folder = ("pytorchcv", pytorchcv_folder()) if item.sha1 else ("torch hub", torch_folder())
    return (label, folder / item.file) if (folder / item.file).is_file() else None


def resolve(init: str, *, progress: Progress = quiet) -> Path:
    """Returns the file of initial weights that a recipe's `init` stands for: a name of `PUBLISHED`, or a local path.

    Args:
        init: "torchvision:IMAGENET1K_V2", "timm:resnet50d.ra2_in1k", or a path.
        progress: told of a download.

    Raises:
        UserError: for an unknown name, a path where there is no file, or a name whose file is in no cache while
            downloads are switched off or need a library that is not installed.
        RunError: if a download fails, or a file is not what was published.
    """
    if not is_name(init):
        path = expanded(init)
        if not path.is_file():
            raise UserError(
                f"initial weights {init}: no such file; pass a .safetensors or .pth, 'scratch', or a name that "
                "tricks weights lists"
            )
        return path
    item = find(init)
    if found := cached(item):
        check(item, found[1])
        return found[1]
    if offline():
        raise UserError(
            f"initial weights {init}: neither in {' nor in '.join(map(str, _folders(item)))}, and HF_HUB_OFFLINE or "
            "TRANSFORMERS_OFFLINE forbids downloading; unset it, or pass a file"
        )
    if item.sha1:
        model = item.name.partition(":")[2]
        get = f"from pytorchcv.models.common.model_store import get_model_file; get_model_file('{model}')"
        raise UserError(
            f"initial weights {init}: not in {pytorchcv_folder()}; pytorchcv fetches it: pip install pytorchcv && "
            f'python -c "{get}"'
        )
    return _from_hf(item, progress) if item.hub_id else _from_torchvision(item, progress)


def _folders(item: Published) -> list[Path]:
    folders = [hf_folder()] if item.hub_id else []
    return [*folders, pytorchcv_folder() if item.sha1 else torch_folder()]


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file's bytes, in hexadecimal; one version of a file is read once in a process."""
    return _digest("sha256", *version_of(path))


def version_of(path: Path) -> tuple[Path, int, int]:
    """Returns what tells one version of a file from another: its place, time and size.

    Links are not followed: a hub's cache tells by them what a file is.
    """
    stat = path.stat()
    return path.absolute(), stat.st_mtime_ns, stat.st_size


@cache
def _digest(kind: str, path: Path, mtime_ns: int, size: int) -> str:
    return sha1_of(path) if kind == "sha1" else file_digest(path)


def check(item: Published, path: Path) -> None:
    """Refuses a file that is not what was published.

    Of a file in the HF hub's cache whose checksum nobody has published, that of its name in the cache is compared: what
    the hub said when it was downloaded.

    Raises:
        RunError: if its checksum is another one.
    """
    if fault := _fault(item, path):
        content = path.resolve() if path.is_symlink() else "it"
        raise RunError(f"{path}: is not {item.name}, or is damaged ({fault}); remove {content} and run again")


def known_checksum(item: Published, path: Path) -> tuple[str, str]:
    """Returns the kind of a file's checksum, sha256 or sha1, and what it has to begin with.

    That is "" where nobody has published it and the cache does not tell it: the HF hub's does by a link, which it has
    not under Windows, nor after a copy that follows links.
    """
    if path.name in HUB_FILES:
        known = item.hub_sha256 if path.name == HUB_FILES[0] else ""
        return "sha256", known or hub_digest(path)
    return ("sha1", item.sha1) if item.sha1 else ("sha256", item.sha256)


def _fault(item: Published, path: Path) -> str:
    """Returns in what a file's checksum differs from the published one; "" if it does not, or if none is known."""
    kind, wanted = known_checksum(item, path)
    found = _digest(kind, *version_of(path))
    return "" if found.startswith(wanted) else f"its {kind} begins with {found[:12]}, not {wanted[:12]}"


@dataclass(frozen=True)
class WeightsFile:
    """One version of a file of weights."""

    path: Path
    mtime_ns: int
    bytes: int
    item: Published | None
    """Which published weights it is; None if it is none that is known."""


def weights_file(init: str, *, progress: Progress = quiet) -> WeightsFile:
    """Returns the file that a recipe's `init` stands for, and what it is; arguments and errors are those of `resolve`.

    Those asked for by name are what they are called: `resolve` has compared them where there is what to compare with.
    """
    path = resolve(init, progress=progress)
    return WeightsFile(*version_of(path), find(init) if is_name(init) else identify(path, sha256_of(path)))


def _from_torchvision(item: Published, progress: Progress) -> Path:
    """Downloads into torch hub's cache, under a name of ours until its checksum is compared."""
    from bagoftricks.data.download import download

    target = torch_folder() / item.file
    unchecked = target.with_name(f"{item.file}.unchecked")
    try:
        download(item.url, unchecked, max_bytes=LARGEST, on_bytes=progress)
    except RunError as error:
        raise RunError(str(error).replace(f"put it at {unchecked}", f"put it at {target}")) from error
    if fault := _fault(item, unchecked):
        unchecked.unlink()
        raise RunError(f"{item.url}: is not {item.name}, or the connection alters it ({fault}); nothing was kept")
    unchecked.replace(target)
    return target


def _from_hf(item: Published, progress: Progress) -> Path:
    """Downloads into the HF hub's cache, by its own library."""
    from bagoftricks.data.addresses import check_url, public

    endpoint = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    check_url(endpoint, f"HF_ENDPOINT {public(endpoint)!r}")
    address = f"{public(endpoint)}/{item.hub_id}/resolve/main/{HUB_FILES[0]}"
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise UserError(
            f"initial weights {item.name}: downloading it needs huggingface_hub; run: {install('hub')}, "
            f"or download {address} and pass the file"
        ) from error
    reports = "tqdm_class" in signature(hf_hub_download).parameters  # before its version 1, it shows a bar of its own
    bar = {"tqdm_class": _reporting(progress)} if reports else {}
    try:
        path = Path(hf_hub_download(item.hub_id, HUB_FILES[0], cache_dir=hf_folder(), endpoint=endpoint, **bar))
    except Exception as error:  # its own errors, httpx's and the disk's have no common kind
        reason = shown(first_line(error))[:300].rstrip(".")
        raise RunError(
            f"{address}: cannot be downloaded ({reason}); check the connection and run again, or download it by hand "
            "and pass the file"
        ) from error
    check(item, path)
    return path


def _reporting(progress: Progress) -> Any:
    """Returns what huggingface_hub takes for a progress bar: it shows nothing, and passes on how far a download is."""
    from io import StringIO

    from tqdm import tqdm  # type: ignore[import-untyped]

    class Reporting(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread that redraws

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "file": StringIO()})

        def update(self, n: float | None = 1) -> Any:
            displayed = super().update(n)
            progress(int(self.n), int(self.total) if self.total else None)
            return displayed

    return Reporting
