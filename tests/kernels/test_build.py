"""The kernels are built once, loaded by who owns them only, and what is missing is said."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bagoftricks.errors import UserError
from bagoftricks.kernels import build
from bagoftricks.kernels.build import Library, load
from bagoftricks.training import hardware
from bagoftricks.training.hardware import detect

needs_kernels = pytest.mark.skipif(isinstance(load(), str), reason=f"no kernels: {load()}")


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and nothing remembered."""
    monkeypatch.setenv("BAGOFTRICKS_CACHE", str(tmp_path / "cache"))
    load.cache_clear()
    yield tmp_path / "cache" / "kernels"
    load.cache_clear()


@needs_kernels
def test_built_once_for_its_owner(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load(), Library)
    (built,) = fresh.iterdir()  # nothing half-made beside it
    assert built.suffix == ".so"
    assert stat.S_IMODE(fresh.stat().st_mode) & 0o022 == 0
    load.cache_clear()
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("built again"))
    assert isinstance(load(), Library)


@needs_kernels
def test_one_openmp_runtime_in_the_process(fresh: Path) -> None:
    """A second pool of threads would wait in busy loops beside the first."""
    before = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    load()
    after = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    assert after == before


@needs_kernels
def test_a_folder_that_others_may_write_to_is_not_trusted(fresh: Path) -> None:
    fresh.mkdir(parents=True)
    fresh.chmod(0o777)
    found = load()
    assert isinstance(found, str)
    assert "others may write to it" in found
    assert list(fresh.iterdir()) == []


@needs_kernels
def test_no_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    found = load()
    assert isinstance(found, str)
    assert "install gcc" in found
    assert detect("cpu", "bf16").kernels == "torch"
    with pytest.raises(UserError, match=r"^kernels 'native' are not here: there is no C compiler: install gcc$"):
        detect("cpu", "bf16", kernels="native")


def broken_compiler(folder: Path, says: str = "echo 'kernels.c:1: error: no' >&2; exit 1") -> Path:
    broken = folder / "broken-cc"
    broken.write_text(f"#!/bin/sh\n{says}\n", encoding="utf-8")
    broken.chmod(0o755)
    return broken


@needs_kernels
@pytest.mark.parametrize("says", ["echo 'kernels.c:1: error: no' >&2; exit 1", "exit 0"])
def test_a_compiler_that_fails(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str) -> None:
    """One that says it succeeded, too: training goes on without."""
    monkeypatch.setenv("CC", str(broken_compiler(tmp_path, says)))
    monkeypatch.setattr(build, "COMPILERS", ())
    found = load()
    assert isinstance(found, str)
    assert "\n" not in found
    assert detect("cpu", "bf16").kernels == "torch"
    assert not [path for path in fresh.iterdir() if path.suffix != ".so"]


@needs_kernels
def test_the_next_compiler_is_tried(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A clang without what OpenMP needs, named by CC, does not hide a gcc."""
    monkeypatch.setenv("CC", str(broken_compiler(tmp_path)))
    assert isinstance(load(), Library)
    assert len(list(fresh.iterdir())) == 1
    load.cache_clear()
    (tmp_path / "gcc").symlink_to(broken_compiler(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = load()
    assert isinstance(found, str)
    assert found.count("could not build them (kernels.c:1: error: no)") == 2


@needs_kernels
@pytest.mark.parametrize("says", ["exit 0", "#!/no/such/interpreter"])
def test_a_compiler_that_cannot_even_fail_hides_no_other(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str
) -> None:
    broken = broken_compiler(tmp_path, says)
    if says.startswith("#!"):
        broken.write_text(says, encoding="utf-8")
    monkeypatch.setenv("CC", str(broken))
    assert isinstance(load(), Library)


def test_the_users_own_choice_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("cc", "gcc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "gcc")
    assert [Path(found).name for found in build._compilers()] == ["gcc", "cc"]


@needs_kernels
def test_a_library_that_is_damaged(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "COMPILERS", ("gcc",))
    monkeypatch.delenv("CC", raising=False)
    load()
    (built,) = fresh.iterdir()
    other = tmp_path / "other" / "kernels"  # elsewhere: what was loaded once is not read again
    other.mkdir(parents=True, mode=0o700)
    (other / built.name).write_bytes(b"nothing")
    monkeypatch.setenv("BAGOFTRICKS_CACHE", str(other.parent))
    load.cache_clear()
    found = load()
    assert isinstance(found, str)
    assert ": they could not be built or loaded (" in found


def test_elsewhere(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert load() == "they are for x86 processors under Linux"


def test_a_processor_without_the_units(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert load() == "this processor has no AVX-512 units for bf16"


def test_chosen_by_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "load", lambda: object())
    assert detect("cpu", "bf16").kernels == "native"
    assert detect("cpu", "bf16", kernels="torch").kernels == "torch"
    assert detect("cpu", "fp32").kernels == "torch"
    with pytest.raises(UserError, match="they compute in bf16 on a CPU"):
        detect("cpu", "fp32", kernels="native")
    with pytest.raises(UserError, match="kernels 'fast' are unknown: choose from auto, torch, native"):
        detect("cpu", kernels="fast")
    monkeypatch.setattr(hardware, "load", lambda: "not here")
    assert detect("cpu", "bf16").kernels == "torch"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners here")
def test_the_source_is_installed() -> None:
    assert build.SOURCE.is_file()
