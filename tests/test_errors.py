"""What errors say."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from bagoftricks import errors


@pytest.mark.parametrize("uv", [True, False])
def test_an_extra_is_installed_where_the_package_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uv: bool) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    if uv:
        (tmp_path / "uv").touch()
    words = shlex.split(errors.install("serve"))
    assert words[:3] == ([str(tmp_path / "uv"), "pip", "install"] if uv else [str(tmp_path / "python"), "-m", "pip"])
    assert words[-2:] == ["--editable", f"{Path(__file__).parent.parent}[serve]"]
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "bagoftricks" / "errors.py"))
    assert shlex.split(errors.install("serve"))[-1] == "bagoftricks[serve]"
