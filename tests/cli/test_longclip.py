"""`longclip` finds its verbs, imports only the one that is used, and ends with the right code."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import toys

from longclip_diffusers.cli import longclip
from longclip_diffusers.errors import CheckpointError
from longclip_diffusers.text_encoder import save_text_encoder


def run(*arguments):
    try:
        return longclip.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def verb(monkeypatch):
    """A module of verbs in the place of a real one; returns what its verb was called with."""
    calls = []

    def greet(*, name: str = "you", loud: bool = False) -> None:
        """Greet somebody."""
        if name == "nobody":
            raise CheckpointError("nobody is no name.\nGive another.")
        if name == "bug":
            raise ZeroDivisionError("by zero")
        calls.append((name, loud))

    monkeypatch.setattr(longclip, "import_module", lambda name, package: SimpleNamespace(verbs={"greet": greet}))
    return calls


def test_verb_gets_its_options(verb):
    assert run("storybook", "greet", "--name", "Mara", "--loud") == 0
    assert verb == [("Mara", True)]


def test_error_is_one_line(verb, capsys):
    assert run("storybook", "greet", "--name", "nobody") == 1
    assert capsys.readouterr().err == "longclip: nobody is no name. Give another.\n"


def test_unforeseen_error_is_one_line_with_its_kind(verb, capsys):
    assert run("storybook", "greet", "--name", "bug") == 1
    assert capsys.readouterr().err == "longclip: ZeroDivisionError: by zero (--debug shows where)\n"


def test_debug_is_taken_anywhere_and_shows_the_traceback(verb, capsys):
    assert run("storybook", "greet", "--debug", "--name", "bug") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], f"longclip: expected a verb: {', '.join(longclip.VERBS)}."),
        (["draw"], "longclip: longclip has no verb 'draw'."),
        (["storybook", "draw"], "longclip: longclip storybook has no verb 'draw'. Known: greet."),
    ],
)
def test_unknown_verb_is_wrong_usage(verb, capsys, arguments, message):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith(message)


def test_wrong_option_is_wrong_usage(verb, capsys):
    for option in ("--volume", "--no-loud"):
        assert run("storybook", "greet", option) == 2
        assert option in capsys.readouterr().err
    assert not verb


def test_group_without_a_verb_lists_its_verbs(verb, capsys):
    assert run("storybook", "--help") == 0
    assert capsys.readouterr().out == "usage: longclip storybook {greet} [OPTIONS]\n"


def test_every_verb_of_the_help_is_there(capsys):
    for name in longclip.VERBS:
        assert run(name, "--help") == 0
        assert f"longclip {name}" in capsys.readouterr().out


def test_inspect_reaches_the_library(tmp_path, capsys):
    save_text_encoder(toys.text_encoder(248), tmp_path / "encoder")
    assert run("inspect", tmp_path / "encoder") == 0
    assert "248" in capsys.readouterr().out
    assert run("inspect", tmp_path / "nowhere") == 1
    assert "nowhere is neither a file" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from longclip_diffusers.cli.longclip import main\n"
        "main(['--help']); print(sorted({'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "convert" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
