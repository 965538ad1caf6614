"""Every script in samples/ runs and does what it says."""

import runpy
import sys
from pathlib import Path

import pytest
from folders import miniature
from PIL import Image

SAMPLES = Path(__file__).parent.parent / "samples"
SCRIPTS = sorted(path.name for path in SAMPLES.glob("*.py"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return miniature(tmp_path_factory.mktemp("models") / "miniature")


def run(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(SAMPLES / script), run_name="__main__")


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "05_window_report.py"])
def test_script_draws(script, model, tmp_path, monkeypatch, capsys):
    output = tmp_path / "picture.png"
    run(monkeypatch, script, output, model)
    with Image.open(output) as picture:
        assert picture.size == ((128, 64) if "compare" in script else (64, 64))
        assert picture.convert("L").getextrema()[0] < picture.convert("L").getextrema()[1]
    assert str(output) in capsys.readouterr().out


def test_chapters_script_names_the_last_sentence(model, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "02_chapter.py", tmp_path / "picture.png", model)
    assert capsys.readouterr().out.endswith("which shows: The animal in the corner is a cat.\n")


def test_comparison_is_of_different_pictures(model, tmp_path, monkeypatch):
    output = tmp_path / "picture.png"
    run(monkeypatch, "03_compare_truncated.py", output, model)
    with Image.open(output) as pair:
        assert pair.crop((0, 0, 64, 64)).tobytes() != pair.crop((64, 0, 128, 64)).tobytes()


def test_report_script_prints_and_writes(tmp_path, monkeypatch, capsys):
    run(monkeypatch, "05_window_report.py", tmp_path / "report.txt")
    printed = capsys.readouterr().out
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == printed
    assert "window 4:" in printed
    assert "read behind:" in printed


def test_there_are_six_scripts():
    assert [name[:3] for name in SCRIPTS] == ["01_", "02_", "03_", "04_", "05_", "06_"]
