"""`longclip storybook` and `longclip evaluate`: what they print and leave behind."""

import gzip
import json
import random
import zipfile

import pytest
from PIL import Image

from longclip_diffusers import bundled, load_tokenizer
from longclip_diffusers.cli.longclip import main
from longclip_diffusers.storybook.captions import chapter
from longclip_diffusers.storybook.checker import read_picture
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.storybook.slots import SLOTS
from longclip_diffusers.storybook.vocabulary import MERGES_IN_WHEEL


def test_scene_prints_what_its_picture_shows(tmp_path, capsys):
    path = tmp_path / "scene.png"
    assert main(["storybook", "scene", "7", "--output", str(path), "--text", "chapter"]) == 0
    text = capsys.readouterr().out
    with Image.open(path) as picture:
        shown = read_picture(picture)
    assert len(text.split()) > 400
    rng = random.Random("7/scene")
    scene = draw_scene(rng)
    assert text == f"{chapter(scene, rng)}\n"
    assert shown == {slot.name: scene[slot.name] for slot in SLOTS}


def test_an_unknown_kind_of_text_is_one_line(tmp_path, capsys):
    assert main(["storybook", "scene", "--text", "poem", "--output", str(tmp_path / "x.png")]) == 1
    assert capsys.readouterr().err == "longclip: --text is 'poem'; choose from short, long, chapter.\n"


def test_the_bundled_tokenizer_is_built_from_the_merges_of_a_wheel(tmp_path):
    merges = json.loads((bundled() / "tokenizer" / "tokenizer.json").read_text())["model"]["merges"]
    lines = ["#version", *(pair if isinstance(pair, str) else " ".join(pair) for pair in merges), "not used"]
    with zipfile.ZipFile(tmp_path / "open_clip_torch.whl", "w") as wheel:
        wheel.writestr(MERGES_IN_WHEEL, gzip.compress("\n".join(lines).encode()))
    out = tmp_path / "tokenizer"
    assert main(["storybook", "tokenizer", str(tmp_path / "open_clip_torch.whl"), str(out)]) == 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((out / name).read_text()) == json.loads((bundled() / "tokenizer" / name).read_text())
    text = "It’s a café — naïve, 3.5 & fine 🎈"
    assert load_tokenizer(out)(text).input_ids == load_tokenizer()(text).input_ids


def test_a_file_that_is_no_wheel_is_named(tmp_path, capsys):
    (tmp_path / "x.whl").write_text("<html>")
    assert main(["storybook", "tokenizer", str(tmp_path / "x.whl"), str(tmp_path / "out")]) == 1
    assert "x.whl is not a wheel of open_clip_torch" in capsys.readouterr().err


def test_evaluate_detail_writes_rows_hashes_and_a_plot(tmp_path, capsys):
    json_file, plot = tmp_path / "detail.json", tmp_path / "detail.png"
    arguments = ["--num-scenes", "2", "--json", str(json_file), "--plot", str(plot)]
    assert main(["evaluate", "detail", *arguments]) == 0
    content = json.loads(json_file.read_text())
    assert {row["encoder"] for row in content["rows"]} == {"truncated", "windows_sentence", "long", "chance"}
    assert {"0-77", "77-150", "150-248", "chapter_1", "short"} <= {row["column"] for row in content["rows"]}
    assert content["sha256"]["unet/diffusion_pytorch_model.safetensors"] in capsys.readouterr().out
    with Image.open(plot) as drawn:
        assert drawn.width > 500


@pytest.mark.parametrize("arguments", [["--encoders", "best"], ["--model", "nowhere"], ["--num-scenes", "1"]])
def test_evaluate_detail_complains_in_one_line(arguments, tmp_path, capsys):
    given = [*arguments, "--json", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.png")]
    assert main(["evaluate", "detail", *given]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("longclip: "), lines
