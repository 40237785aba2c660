"""The scripts are run by the shells themselves, where they are installed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bagoftricks import cli, commands
from bagoftricks.commands.completion import whole_parser
from bagoftricks.flags import Parser


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is there, as `commands.COMMANDS` lists it or will."""
    names = tuple(dict.fromkeys((*commands.COMMANDS, "completion")))
    monkeypatch.setattr(commands, "COMMANDS", names)
    monkeypatch.setattr(cli, "COMMANDS", names)


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The script for the shell that the test is for, bash by default."""
    pytest.importorskip("shtab")
    shell = getattr(request, "param", "bash")
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert cli.main(["completion", shell]) == 0
    path = tmp_path / "scripts" / f"tricks.{shell}"
    path.parent.mkdir()
    path.write_text(capsys.readouterr().out)
    return path


def complete(script: Path, line: str) -> list[str]:
    """What bash offers for the last word of a line, in the script's parent folder's parent."""
    words = line.split(" ")
    driver = (
        f"source {shlex.quote(str(script))}\n"
        "function=$(complete -p tricks | sed 's/.*-F \\([^ ]*\\) .*/\\1/')\n"
        f"COMP_WORDS=({' '.join(shlex.quote(word) for word in words)})\n"
        f"COMP_CWORD={len(words) - 1}\n"
        '"$function"\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", driver], capture_output=True, text=True, check=True, cwd=script.parent.parent
    )
    return sorted(filter(None, done.stdout.split("\n")))


def choices(parser: Parser) -> dict[str, Parser]:
    (commands_action,) = [a for a in parser._actions if isinstance(a.choices, dict)]
    return dict(commands_action.choices)


def flags(parser: Parser) -> set[str]:
    return set(parser._option_string_actions)


def test_the_whole_parser_is_the_command_line() -> None:
    whole = whole_parser()
    assert flags(whole) == flags(cli.parser())
    assert list(choices(whole)) == list(choices(cli.parser()))
    for name, command in choices(whole).items():
        assert flags(command) == flags(choices(cli.parser([name]))[name]), name


def test_commands(script: Path) -> None:
    assert {"study", "status"} <= set(complete(script, "tricks st"))
    assert all(name.startswith("st") for name in complete(script, "tricks st"))
    assert {name.replace("_", "-") for name in commands.COMMANDS} <= set(complete(script, "tricks "))


def test_recipe_flags(script: Path) -> None:
    assert complete(script, "tricks train --mixup.") == ["--mixup.alpha"]
    assert complete(script, "tricks study paper --label-smoothing.") == ["--label-smoothing.amount"]
    assert complete(script, "tricks status --mixup.") == []
    assert complete(script, "tricks train --input.flip ") == ["false", "true"]


def test_choices(script: Path) -> None:
    assert complete(script, "tricks completion ") == ["bash", "tcsh", "zsh"]
    assert "all" in complete(script, "tricks study --keep ")


def test_paths(script: Path) -> None:
    here = script.parent.parent
    for folder in ("photos", "prints"):
        (here / folder).mkdir()
    for file in ("plain.toml", "pixels.txt", "weights.pth"):
        (here / file).write_text("")
    assert complete(script, "tricks status p") == ["photos", "prints"]
    assert complete(script, "tricks train --out p") == ["photos", "prints"]
    assert complete(script, "tricks train --data p") == ["photos", "prints"]
    assert complete(script, "tricks train --data d") == ["digits"]
    assert complete(script, "tricks train --init w") == ["weights.pth"]
    assert complete(script, "tricks train --recipe pl") == ["plain.toml"]
    assert complete(script, "tricks study p") == ["paper", "photos", "plain.toml", "prints"]


@pytest.mark.parametrize("script", ["bash", "zsh"], indirect=True)
def test_is_well_formed(script: Path) -> None:
    done = subprocess.run([script.suffix[1:], "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", ["tcsh"], indirect=True)
def test_tcsh_takes_it(script: Path) -> None:
    done = subprocess.run(
        ["tcsh", "-f", "-c", f"source {script}; complete tricks"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "mixup.alpha" in done.stdout
    assert "n/status/d/" in done.stdout


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh_completes(script: Path) -> None:
    """Installed as the help says, in a terminal of zsh's own, as there is no other way."""
    script.rename(script.parent / "_tricks")
    driver = f"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1="rea""dy>"; fpath=({script.parent} $fpath); autoload -Uz compinit && compinit -u -D'
zpty -r shell seen '*ready>*'
zpty -n -w shell $'tricks train --mixup.al\t0.5 X'
zpty -r shell seen '*X*'
print -r -- $seen
zpty -d shell
"""
    done = subprocess.run(["zsh", "-f", "-c", driver], capture_output=True, text=True, timeout=60)
    assert "--mixup.alpha" in done.stdout, done


def test_help_says_how_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["completion", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(file in out for file in ("~/.bashrc", "~/.zshrc", "~/.tcshrc"))


def test_names_the_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert "pip install" in error
    assert error.endswith("[completion]'\n")
    assert error.count("\n") == 1


def test_refuses_other_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "cmd"]) == 2
    assert "invalid choice: 'cmd'" in capsys.readouterr().err
