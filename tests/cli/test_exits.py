"""How a command ends: codes, one line for an error or a warning, nothing for what is the libraries' business."""

import io
import warnings

import pytest
import toys

from longclip_diffusers.checkpoints import load_long_text_encoder
from longclip_diffusers.cli.exits import UsageError, exit_code
from longclip_diffusers.errors import PromptError
from longclip_diffusers.text_encoder import save_text_encoder, stretch_text_encoder


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "code", "line"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (raising(PromptError("no\n  text")), 1, "prog: no text\n"),
        (raising(OSError("no disk")), 1, "prog: OSError: no disk (--debug shows where)\n"),
        (raising(UsageError("two prompts.")), 2, "prog: two prompts. See prog --help.\n"),
        (raising(KeyboardInterrupt()), 130, "prog: interrupted.\n"),
    ],
)
def test_codes_and_lines(work, code, line, capsys):
    assert exit_code("prog", work) == code
    assert capsys.readouterr().err == line


def test_a_stream_of_few_letters_takes_every_path(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", write_through=True)
    monkeypatch.setattr("sys.stdout", stream)
    assert exit_code("prog", lambda: print("海.png")) == 0
    assert stream.buffer.getvalue().decode().strip() == r"\u6d77.png"


def test_our_warnings_are_a_line_and_others_nothing(tmp_path, capsys):
    save_text_encoder(stretch_text_encoder(toys.text_encoder()), tmp_path)
    capsys.readouterr()

    def work():
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("a library's", UserWarning, stacklevel=1)
        load_long_text_encoder(tmp_path)  # warns that its rows are untrained

    assert exit_code("prog", work) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("prog: warning: ")
    assert "untrained interpolation" in lines[0]
    with pytest.warns(UserWarning, match="untrained"):  # and afterwards warnings are as they were
        load_long_text_encoder(tmp_path)
