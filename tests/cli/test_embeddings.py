"""`longgen --embeddings` and `--embeddings-from`: the same picture later, elsewhere, without text encoder or us."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import toys_xl
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from folders import GUIDANCE, STEPS, miniature
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SHORT = "a red roof. "
LONG = SHORT * 40  # 360 byte tokens: two windows of 248
SEED = 5
FAMILIES = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
NAMES = {
    "sd": {"prompt_embeds", "negative_prompt_embeds"},
    "sdxl": {"prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    StableDiffusionXLPipeline(**toys_xl.components()).save_pretrained(folder / "sdxl")
    return {"sd": miniature(folder / "sd"), "sdxl": folder / "sdxl"}


@pytest.fixture
def run(run_longgen):
    return run_longgen


def options_of(models, family):
    """The model, few steps, and what SDXL's toy, of which no Long-CLIP is known, needs to be read at all."""
    reading = ["--longclip", "stretch"] if family == "sdxl" else []
    return ["--model", models[family], "--steps", STEPS, "--guidance", GUIDANCE], reading


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def stock_picture(family, model, file, *, seed=SEED, **settings):
    """What stock diffusers draws from a file, without a text encoder."""
    without = dict.fromkeys(name for name in ("text_encoder", "tokenizer") if family == "sd")
    if family == "sdxl":
        without = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = FAMILIES[family].from_pretrained(model, **without)
    given = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, **settings}
    result = pipe(**load_file(file), generator=torch.Generator().manual_seed(seed), **given)
    return np.asarray(result.images[0])


# ---- one prompt


@pytest.mark.parametrize("negative", ["", "grey. " * 90])
@pytest.mark.parametrize("family", FAMILIES)
def test_stock_diffusers_and_longgen_draw_the_same_picture_from_the_file(run, models, family, negative):
    drawing, reading = options_of(models, family)
    reading += ["--negative", negative] if negative else []
    assert run(LONG, *drawing, *reading, "--seed", SEED, "--out", "direct.png")[0] == 0
    code, out, _ = run(LONG, *drawing, *reading, "--embeddings", "page.safetensors")
    assert (code, out) == (0, "page.safetensors\n")
    code, out, _ = run("--embeddings-from", "page.safetensors", *drawing, "--seed", SEED)
    assert (code, out) == (0, "longgen.png\n")
    assert load_file("page.safetensors").keys() == NAMES[family]
    assert np.array_equal(pixels("longgen.png"), pixels("direct.png"))
    assert np.array_equal(stock_picture(family, models[family], "page.safetensors"), pixels("direct.png"))


def test_file_says_what_a_picture_says_and_nothing_is_drawn(run, models, tmp_path):
    options = ["--model", models["sd"], "--negative", "grey", "--seed", SEED, "--context", "related"]
    run(LONG, *options, "--embeddings", "page.safetensors")
    assert not list(tmp_path.glob("*.png"))
    run(LONG, *options, "--out", "direct.png")
    with Image.open("direct.png") as picture:
        told = picture.text
    drawn_only = {"size", "compare"}
    assert metadata("page.safetensors") == {name: text for name, text in told.items() if name not in drawn_only}


def test_saved_settings_hold_until_others_are_given(run, models):
    given = ["--seed", SEED, "--steps", 3, "--guidance", 1.5, "--size", "72x64"]
    run(LONG, "--model", models["sd"], *given, "--embeddings", "page.safetensors")
    run(LONG, "--model", models["sd"], *given, "--out", "direct.png")
    run("--embeddings-from", "page.safetensors", "--model", models["sd"])
    assert np.array_equal(pixels("longgen.png"), pixels("direct.png"))
    with Image.open("longgen.png") as picture:
        told = picture.text
    assert (told["prompt"], told["steps"], told["embeddings"]) == (LONG, "3", "page.safetensors")
    others = ["--seed", 6, "--steps", 2, "--guidance", 3, "--size", "64"]
    run("--embeddings-from", "page.safetensors", "--model", models["sd"], *others)
    run(LONG, "--model", models["sd"], *others, "--out", "other.png")
    assert np.array_equal(pixels("longgen-2.png"), pixels("other.png"))


def test_without_guidance_there_are_no_negatives(run, models):
    options = ["--model", models["sd"], "--guidance", 1, "--seed", SEED]
    run(LONG, *options, "--embeddings", "page.safetensors")
    run(LONG, *options, "--out", "direct.png")
    assert load_file("page.safetensors").keys() == {"prompt_embeds"}
    stock = stock_picture("sd", models["sd"], "page.safetensors", guidance_scale=1.0)
    assert np.array_equal(stock, pixels("direct.png"))
    assert run("--embeddings-from", "page.safetensors", "--model", models["sd"])[0] == 0
    assert np.array_equal(pixels("longgen.png"), pixels("direct.png"))
    code, _, err = run("--embeddings-from", "page.safetensors", "--model", models["sd"], "--guidance", 3)
    assert code == 1
    assert "lack negative_prompt_embeds, which this model reads. Draw with a guidance of 1 or less" in err


def test_half_precision_draws_the_same(run, models):
    options = ["--model", models["sd"], "--dtype", "bfloat16", "--seed", SEED]
    run(LONG, *options, "--embeddings", "page.safetensors")
    run(LONG, *options, "--out", "direct.png")
    run("--embeddings-from", "page.safetensors", *options)
    assert load_file("page.safetensors")["prompt_embeds"].dtype == torch.bfloat16
    assert np.array_equal(pixels("longgen.png"), pixels("direct.png"))


def test_neither_side_loads_what_it_does_not_use(run, models, monkeypatch):
    from transformers import CLIPTextModel

    run(LONG, "--model", models["sd"], "--embeddings", "page.safetensors")

    def refused(*_, **__):
        raise AssertionError("loaded")

    with monkeypatch.context() as patched:
        patched.setattr(CLIPTextModel, "from_pretrained", refused)
        assert run(LONG, "--model", models["sd"])[0] == 1
        assert run("--embeddings-from", "page.safetensors", "--model", models["sd"])[:2] == (0, "longgen.png\n")
    monkeypatch.setattr(UNet2DConditionModel, "from_pretrained", refused)
    assert run(LONG, "--model", models["sd"], "--embeddings", "again.safetensors")[:2] == (0, "again.safetensors\n")


# ---- a batch


def test_batch_is_saved_and_drawn_from_its_folder(run, models, tmp_path):
    lines = [{"prompt": LONG, "seed": 3, "negative": "grey", "name": "roof"}, {"prompt": SHORT, "seed": 4}]
    (tmp_path / "book.jsonl").write_text("\n".join(map(json.dumps, lines)))
    model = ["--model", models["sd"]]
    code, out, err = run("--batch", "book.jsonl", *model, "--embeddings", "book")
    assert (code, out) == (0, "book/roof.safetensors\nbook/2.safetensors\n")
    assert "embeddings saved: 2; lines that could not be saved: 0; processes: 1." in err
    code, out, err = run("--embeddings-from", "book", *model)
    assert (code, out) == (0, "book/2.png\nbook/roof.png\n")
    assert "pictures drawn: 2; files that could not be drawn: 0; processes: 1." in err
    run("--batch", "book.jsonl", *model, "--out", "direct")
    for name in ("2.png", "roof.png"):
        assert np.array_equal(pixels(tmp_path / "book" / name), pixels(tmp_path / "direct" / name))


def test_batch_goes_on_where_it_was_interrupted(run, models, tmp_path):
    (tmp_path / "book.txt").write_text("one\ntwo\nthree")
    options = ["--batch", "book.txt", "--model", models["sd"], "--embeddings", "book"]
    run(*options)
    kept = (tmp_path / "book" / "2.safetensors").read_bytes()
    for name in ("1", "3"):
        (tmp_path / "book" / f"{name}.safetensors").unlink()
    code, out, err = run(*options)
    assert (code, out) == (0, "book/1.safetensors\nbook/3.safetensors\n")
    assert "1 of 3 prompts are saved already, in book" in err
    assert (tmp_path / "book" / "2.safetensors").read_bytes() == kept
    drawing = ["--embeddings-from", "book", "--model", models["sd"], "--seed", SEED, "--out", "pictures"]
    run(*drawing)
    (tmp_path / "pictures" / "2.png").unlink()
    assert run(*drawing)[:2] == (0, "pictures/2.png\n")


def test_file_of_a_folder_that_is_damaged_is_told_and_the_others_are_drawn(run, models, tmp_path):
    (tmp_path / "book.txt").write_text("one\ntwo")
    run("--batch", "book.txt", "--model", models["sd"], "--embeddings", "book")
    whole = (tmp_path / "book" / "1.safetensors").read_bytes()
    (tmp_path / "book" / "1.safetensors").write_bytes(whole[:-100])
    code, out, err = run("--embeddings-from", "book", "--model", models["sd"])
    assert (code, out) == (1, "book/2.png\n")
    assert "longgen: book, 1: book/1.safetensors cannot be read as embeddings" in err


def test_two_processes_share_the_lines_and_save_what_one_does(models, tmp_path):
    (tmp_path / "book.txt").write_text("\n".join(SHORT * (1 + 30 * (page % 2)) for page in range(6)))
    options = ["--batch", "book.txt", "--model", models["sd"], "--device", "cpu"]
    program = "import sys; from longclip_diffusers.cli.longgen import main; sys.exit(main())"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python", sys.executable]
    for start, folder in (([], "alone"), (launcher, "together")):
        command = [sys.executable, *start, "-c", program, *map(str, options), "--embeddings", folder]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    assert "processes: 2." in done.stderr
    for number in range(1, 7):
        alone, together = (tmp_path / folder / f"{number}.safetensors" for folder in ("alone", "together"))
        assert metadata(alone) == metadata(together)
        torch.testing.assert_close(load_file(alone), load_file(together), rtol=0, atol=0)


# ---- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--embeddings", "a.png"], "expected a name that ends in .safetensors"),
        (["a", "--embeddings", "folder"], "expected a name that ends in .safetensors"),
        (["--batch", "b.txt", "--embeddings", "a.safetensors"], "a batch is saved into a folder"),
        (["a", "--embeddings", "a.safetensors", "--out", "b.png"], "nothing is drawn, so leave out --out"),
        (["a", "--embeddings", "a.safetensors", "--compare"], "so leave out --compare"),
        (["a", "--embeddings", "a.safetensors", "--num-images", "2"], "so leave out --num-images"),
        (["a", "--embeddings-from", "a.safetensors"], "several prompts"),
        (["--embeddings-from", "a.safetensors", "--embeddings", "b.safetensors"], "so leave out --embeddings"),
        (["--embeddings-from", "a.safetensors", "--negative", "grey"], "read before, so leave out --negative"),
        (["--embeddings-from", "a.safetensors", "--longclip", "none"], "so leave out --longclip"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def damaged(name, whole):
    """The bytes of a file that is not what it should be, made from one that is."""
    return {
        "page": b"<!doctype html><html><body>404</body></html>",
        "empty": b"",
        "cut": whole[:-100],
        "pickle": b"\x80\x02cos\nsystem\n(S'touch run'\ntR.",
    }[name]


@pytest.mark.parametrize("name", ["page", "empty", "cut", "pickle", "nowhere"])
def test_damaged_file_is_one_line_and_executes_nothing(run, models, tmp_path, name):
    run(SHORT, "--model", models["sd"], "--embeddings", "a.safetensors")
    if name != "nowhere":
        (tmp_path / "b.safetensors").write_bytes(damaged(name, (tmp_path / "a.safetensors").read_bytes()))
    code, out, err = run("--embeddings-from", "b.safetensors", "--model", "./never-opened")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "b.safetensors cannot be read as embeddings" in err
    assert not (tmp_path / "run").exists()


def changed(name, tensors):
    """A file's tensors with a fault; each is one that a drawing pipeline would choke on, or not notice."""
    wide = {key: tensor.repeat(1, 1, 2) for key, tensor in tensors.items()}
    return {
        "width": wide,
        "batch": {key: tensor.repeat(2, 1, 1) for key, tensor in tensors.items()},
        "whole numbers": {key: tensor.int() for key, tensor in tensors.items()},
        "nan": tensors | {"prompt_embeds": tensors["prompt_embeds"] * float("nan")},
        "rows": tensors | {"prompt_embeds": tensors["prompt_embeds"][:, :70].contiguous()},
        "missing": {"negative_prompt_embeds": tensors["negative_prompt_embeds"]},
        "sdxl": tensors | {"pooled_prompt_embeds": torch.zeros(1, 24)},
        "weights": {"text_model.embeddings.weight": torch.zeros(1)},
    }[name]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("width", "prompt_embeds has shape (1, 77, 64) and dtype torch.float32, this model reads (1, rows, 32)"),
        ("batch", "prompt_embeds has shape (2, 77, 32)"),
        ("whole numbers", "dtype torch.int32"),
        ("nan", "prompt_embeds holds NaN or infinity"),
        ("rows", "have the shapes [(1, 70, 32), (1, 77, 32)], expected one"),
        ("missing", "lack prompt_embeds, which this model reads"),
        ("sdxl", "hold pooled_prompt_embeds, which this model does not read"),
        ("weights", "b.safetensors holds text_model.embeddings.weight, expected prompt_embeds"),
    ],
)
def test_tensors_that_do_not_fit_are_one_line(run, models, fault, message):
    run(SHORT, "--model", models["sd"], "--embeddings", "a.safetensors")
    save_file(changed(fault, load_file("a.safetensors")), "b.safetensors")
    code, out, err = run("--embeddings-from", "b.safetensors", "--model", models["sd"], "--seed", SEED)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_embeddings_of_another_family_are_one_line(run, models):
    drawing, reading = options_of(models, "sdxl")
    run(SHORT, *drawing, *reading, "--embeddings", "xl.safetensors")
    code, _, err = run("--embeddings-from", "xl.safetensors", "--model", models["sd"], "--seed", SEED)
    assert code == 1
    assert "hold negative_pooled_prompt_embeds, pooled_prompt_embeds, which this model does not read; SDXL does" in err
    pooled = load_file("xl.safetensors") | {"pooled_prompt_embeds": torch.zeros(1, 20)}
    save_file(pooled, "xl.safetensors")
    code, _, err = run("--embeddings-from", "xl.safetensors", *drawing, "--seed", SEED)
    assert code == 1
    assert "pooled_prompt_embeds has shape (1, 20) and dtype torch.float32, this model reads (1, 24)" in err


@pytest.mark.parametrize(
    "told", [{"steps": "many"}, {"guidance": "nan"}, {"seed": "-1"}, {"size": "big"}, {"size": "70x70"}]
)
def test_settings_that_make_no_sense_are_one_line(run, models, told):
    run(SHORT, "--model", models["sd"], "--embeddings", "a.safetensors")
    save_file(load_file("a.safetensors"), "b.safetensors", told)
    code, _, err = run("--embeddings-from", "b.safetensors", "--model", models["sd"])
    assert (code, err.count("\n")) == (1, 1)
    assert "metadata cannot be used" in err or "size 70x70" in err


def test_full_disk_is_one_line_and_leaves_the_old_file(run, models, tmp_path, monkeypatch):
    from pathlib import Path

    run(SHORT, "--model", models["sd"], "--embeddings", "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    write = Path.write_bytes

    def full(self, data):
        write(self, data[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    code, out, err = run(LONG, "--model", models["sd"], "--embeddings", "a.safetensors")
    assert (code, out) == (1, "")
    assert "a.safetensors cannot be written: No space left on device. Name another place." in err
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a.safetensors": before}


def test_empty_folder_is_one_line(run, models, tmp_path):
    (tmp_path / "book").mkdir()
    code, _, err = run("--embeddings-from", "book", "--model", models["sd"])
    assert code == 1
    assert "book holds no .safetensors file" in err
