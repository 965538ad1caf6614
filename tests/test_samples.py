"""Every script in samples/ runs and does what it says; every chapter is one that the storybook can draw."""

import re
import runpy
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from folders import miniature
from PIL import Image

from longclip_diffusers import load_tokenizer, plan_windows
from longclip_diffusers.sentences import sentence_ends
from longclip_diffusers.storybook.slots import OPENING_SLOTS, SLOTS

SAMPLES = Path(__file__).parent.parent / "samples"
SCRIPTS = sorted(path.name for path in SAMPLES.glob("*.py"))
CHAPTERS = sorted((SAMPLES / "chapters").glob("*.txt"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return miniature(tmp_path_factory.mktemp("models") / "miniature")


def run(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(SAMPLES / script), run_name="__main__")


def told_slots(sentence):
    """The slots whose noun, place and a colour a sentence holds."""
    words = set(re.findall(r"[a-z]+", sentence.lower()))
    return {
        slot.name
        for slot in SLOTS
        if slot.name not in OPENING_SLOTS
        and slot.place in sentence.lower()
        and any(noun in sentence for noun in slot.nouns)
        and len(words & set(slot.words)) == 1
    }


def sentences(text):
    cuts = [0, *sentence_ends(text), len(text)]
    return [text[start:stop].strip() for start, stop in pairwise(cuts) if text[start:stop].strip()]


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
    assert capsys.readouterr().out.endswith("which shows: The cat near the blanket is black.\n")


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


def test_there_are_six_scripts_and_three_chapters():
    assert [name[:3] for name in SCRIPTS] == ["01_", "02_", "03_", "04_", "05_", "06_"]
    assert len(CHAPTERS) >= 3


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_tells_every_slot_once_and_one_at_its_end(chapter):
    text = chapter.read_text(encoding="utf-8")
    assert 600 <= plan_windows(text, load_tokenizer()).num_tokens <= 1500
    told = [slot for sentence in sentences(text) for slot in told_slots(sentence)]
    assert sorted(told) == sorted(slot.name for slot in SLOTS if slot.name not in OPENING_SLOTS)
    assert told_slots(sentences(text)[-1])
    first = sentences(text)[0]
    assert all(re.search(rf"\b{slot.name}\b", first) for slot in SLOTS if slot.name in OPENING_SLOTS)
