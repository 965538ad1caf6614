"""`longgen` as a user types it: every option has its effect, every mistake its one line."""

import io
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import toys
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline
from folders import GUIDANCE, STEPS, miniature, stock_model
from PIL import Image

from longclip_diffusers import StableDiffusionLongPipeline
from longclip_diffusers.cli import settings
from longclip_diffusers.errors import LongClipError

SHORT = "a red roof. "
LONG = SHORT * 40  # 360 byte tokens: two windows of 248, and stock diffusers cuts them off at 77
SEED = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return miniature(tmp_path_factory.mktemp("models") / "miniature")


@pytest.fixture
def run(model, monkeypatch, run_longgen):
    """Draws with the toy model."""
    monkeypatch.setenv("LONGGEN_MODEL", str(model))
    return run_longgen


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def metadata(path):
    with Image.open(path) as picture:
        return picture.text


def drawn(pipeline, model, prompt, *, seed=SEED, steps=STEPS, guidance=GUIDANCE, **options):
    """The picture that a pipeline draws without the command."""
    pipe = pipeline.from_pretrained(model, **options.pop("load", {}))
    noise = torch.Generator().manual_seed(seed)
    result = pipe(prompt, num_inference_steps=steps, guidance_scale=guidance, generator=noise, **options)
    return np.asarray(result.images[0]).astype(int)


# ---- pictures


def test_picture_is_the_pipelines_with_the_models_own_settings(run, model):
    code, out, _ = run(LONG, "--seed", SEED)
    assert (code, out) == (0, "longgen.png\n")
    assert np.array_equal(pixels("longgen.png"), drawn(StableDiffusionLongPipeline, model, LONG))


def test_options_reach_the_pipeline(run, model):
    options = ["--steps", 3, "--guidance", 1.5, "--size", "72x64", "--negative", "grey", "--seed", 9]
    code, *_ = run(LONG, *options, "--window", 70, "--context", "related", "--longclip", "none", "--out", "a.png")
    assert code == 0
    expected = drawn(
        StableDiffusionLongPipeline,
        model,
        LONG,
        seed=9,
        steps=3,
        guidance=1.5,
        width=72,
        height=64,
        negative_prompt="grey",
        load={"longclip": None, "window": 70, "context": "related"},
    )
    assert np.array_equal(pixels("a.png"), expected)
    assert pixels("a.png").shape == (64, 72, 3)


def test_file_standard_input_and_argument_draw_the_same(run, tmp_path, monkeypatch):
    (tmp_path / "chapter.txt").write_text(LONG, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LONG.encode())))
    for source, name in (((LONG,), "a"), (("--file", "chapter.txt"), "b"), (("-",), "c")):
        assert run(*source, "--seed", SEED, "--out", f"{name}.png")[0] == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    assert np.array_equal(pixels("a.png"), pixels("c.png"))


def test_file_says_how_to_draw_it_again(run, model):
    run(LONG, "--negative", "grey", "--out", "a.png")
    told = metadata("a.png")
    assert told["prompt"] == LONG
    assert told["negative"] == "grey"
    assert (told["steps"], told["guidance"], told["size"]) == (str(STEPS), str(GUIDANCE), "64x64")
    assert (told["model"], told["window"], told["context"]) == (str(model), "auto", "auto")
    assert "g_mode" not in told  # SDXL's
    run(told["prompt"], "--negative", told["negative"], "--seed", told["seed"], "--out", "b.png")
    assert np.array_equal(pixels("a.png"), pixels("b.png"))


def test_random_seed_is_printed_and_another_each_time(run):
    seeds = set()
    for _ in range(2):
        _, out, err = run(SHORT)
        assert f"longgen: seed {metadata(out.strip())['seed']}\n" in err
        seeds.add(metadata(out.strip())["seed"])
    assert len(seeds) == 2


def test_several_images_have_the_seeds_that_follow_and_equal_their_singles(run):
    code, out, _ = run(SHORT, "--seed", SEED, "--num-images", 2, "--out", "a.png")
    assert (code, out) == (0, "a-1.png\na-2.png\n")
    run(SHORT, "--seed", SEED + 1, "--out", "single.png")
    assert np.array_equal(pixels("a-2.png"), pixels("single.png"))
    assert not np.array_equal(pixels("a-1.png"), pixels("a-2.png"))


def test_nothing_is_overwritten_but_a_file_that_is_named(run, tmp_path):
    assert [run(SHORT)[1] for _ in range(2)] == ["longgen.png\n", "longgen-2.png\n"]
    assert run(SHORT, "--out", "folder")[1] == "folder/longgen.png\n"
    run(SHORT, "--seed", 1, "--out", "longgen.png")
    assert metadata("longgen.png")["seed"] == "1"


def test_compare_puts_stock_diffusers_beside(run, model, monkeypatch):
    monkeypatch.setattr("longclip_diffusers.pictures.SMALLEST_COMPARED", 1)  # pixels as they were drawn
    code, *_ = run(LONG, "--seed", SEED, "--compare", "--out", "a.png")
    assert code == 0
    pair = pixels("a.png")
    stock = drawn(StableDiffusionPipeline, model, LONG)
    whole = drawn(StableDiffusionLongPipeline, model, LONG)
    left, right = pair[-70:-6, 6:70], pair[-70:-6, -70:-6]
    if pair.shape[1] > 3 * 6 + 2 * 64:  # columns as wide as their labels, pictures at their left
        right = pair[-70:-6, pair.shape[1] // 2 :]
        start = next(x for x in range(right.shape[1] - 63) if np.array_equal(right[:, x : x + 64], whole))
        right = right[:, start : start + 64]
    assert np.array_equal(left, stock)
    assert np.array_equal(right, whole)
    assert not np.array_equal(stock, whole)


def test_compare_without_a_77_row_encoder_is_refused(run, tmp_path):
    long = stock_model(tmp_path / "long", length=248)
    code, _, err = run(LONG, "--model", long, "--compare")
    assert code == 1
    assert "text encoder of 77 rows" in err
    assert "has one of 248" in err


def test_tokens_prints_the_windows_and_draws_nothing(run, model, tmp_path):
    reader = tmp_path / "reader"
    for part in ("text_encoder", "tokenizer", "longclip"):
        (reader / part).parent.mkdir(exist_ok=True)
        (reader / part).symlink_to(model / part)
    for file in ("model_index.json", "longclip_config.json"):
        (reader / file).symlink_to(model / file)
    asked = ("--tokens", "--negative", "grey", "--model", reader, "--context", "none")  # it has no UNet, no VAE
    code, out, _ = run(LONG, *asked)
    assert code == 0
    assert out.splitlines()[0] == "360 tokens in 2 windows of at most 246"
    assert out.splitlines()[-2:] == ["4 tokens in 1 window of at most 246", 'window 1: 4 tokens; the text ends: "grey"']
    assert not list(tmp_path.glob("*.png"))


def test_bundled_model_is_used_and_said(run, model, monkeypatch):
    monkeypatch.delenv("LONGGEN_MODEL")
    monkeypatch.setattr(settings, "bundled", lambda: model)
    _, _, err = run(SHORT)
    told = [line for line in err.splitlines() if "bundled" in line]
    assert len(told) == 1
    assert "--model ID_OR_FOLDER or LONGGEN_MODEL=" in told[0]
    monkeypatch.setenv("LONGGEN_MODEL", str(model))
    assert "bundled" not in run(SHORT)[2]


# ---- batches


def write_batch(tmp_path, *lines, name="prompts.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_batch_draws_every_line_as_it_would_be_drawn_alone(run, tmp_path):
    line = json.dumps({"prompt": LONG, "negative": "grey", "seed": SEED, "name": "roof"})
    path = write_batch(tmp_path, line, json.dumps(SHORT))
    code, out, _ = run("--batch", path, "--seed", 8)
    assert (code, out) == (0, "prompts/roof.png\nprompts/2.png\n")
    run(LONG, "--negative", "grey", "--seed", SEED, "--out", "a.png")
    run(SHORT, "--seed", 8, "--out", "b.png")
    assert np.array_equal(pixels("prompts/roof.png"), pixels("a.png"))
    assert np.array_equal(pixels("prompts/2.png"), pixels("b.png"))


def test_batch_goes_on_where_it_was_interrupted(run, tmp_path, monkeypatch):
    from longclip_diffusers import pictures

    path = write_batch(tmp_path, "one", "two", "three", name="prompts.txt")
    save, saved = pictures.save_picture, []

    def interrupted(picture, file, told):
        if len(saved) == 1:
            raise KeyboardInterrupt
        saved.append(file)
        save(picture, file, told)

    monkeypatch.setattr(pictures, "save_picture", interrupted)
    assert run("--batch", path, "--out", "out")[0] == 130
    monkeypatch.setattr(pictures, "save_picture", save)
    first = (tmp_path / "out" / "1.png").read_bytes()
    code, out, err = run("--batch", path, "--out", "out")
    assert (code, out) == (0, "out/2.png\nout/3.png\n")
    assert "1 of 3 prompts are drawn already, in out" in err
    assert (tmp_path / "out" / "1.png").read_bytes() == first
    assert run("--batch", path, "--out", "out")[:2] == (0, "")


def test_batch_reports_a_bad_line_and_draws_the_others(run, tmp_path):
    path = write_batch(tmp_path, json.dumps(SHORT), '{"prompt": ', json.dumps("end"))
    code, out, err = run("--batch", path)
    assert (code, out) == (1, "prompts/1.png\nprompts/3.png\n")
    assert "prompts.jsonl, line 2: not JSON" in err


def test_batch_draws_only_the_pictures_that_are_missing_of_a_line(run, tmp_path):
    path = write_batch(tmp_path, SHORT, name="prompts.txt")
    run("--batch", path, "--num-images", 2, "--seed", SEED)
    whole = pixels("prompts/1-2.png")
    (tmp_path / "prompts" / "1-2.png").unlink()
    assert run("--batch", path, "--num-images", 2, "--seed", SEED)[:2] == (0, "prompts/1-2.png\n")
    assert np.array_equal(pixels("prompts/1-2.png"), whole)


def test_batch_goes_on_behind_a_line_that_fails(run, tmp_path, monkeypatch):
    from longclip_diffusers import pictures

    save = pictures.save_picture

    def failing(picture, file, told):
        if told["prompt"] == "one":
            raise LongClipError("no room.")
        save(picture, file, told)

    monkeypatch.setattr(pictures, "save_picture", failing)
    code, out, err = run("--batch", write_batch(tmp_path, "one", "two", name="prompts.txt"))
    assert (code, out) == (1, "prompts/2.png\n")
    assert "prompts.txt, 1: no room. Skipped." in err


def test_half_a_surrogate_pair_does_not_stop_a_batch(run, tmp_path):
    path = write_batch(tmp_path, json.dumps("a boat \ud83d"), json.dumps(SHORT))
    assert run("--batch", path)[:2] == (0, "prompts/1.png\nprompts/2.png\n")
    assert metadata("prompts/1.png")["prompt"] == "a boat ?"
    embeddings = run("--batch", path, "--embeddings", "read")
    assert embeddings[:2] == (0, "read/1.safetensors\nread/2.safetensors\n")


# ---- mistakes


def test_a_model_that_needs_a_picture_is_refused(run, tmp_path):
    parts = toys.stable_diffusion_components(length=toys.STOCK_LENGTH)
    StableDiffusionInpaintPipeline(**parts).save_pretrained(tmp_path / "inpainting")
    code, out, err = run("a", "--model", tmp_path / "inpainting", "--longclip", "none")
    assert (code, out) == (1, "")
    assert "This model is for StableDiffusionInpaintPipeline, which draws from a picture too" in err
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([""], 2, "no prompt, or an empty one"),
        ([], 2, "no prompt, or an empty one"),
        (["  "], 1, "The prompt is empty"),
        (["a", "--file", "b"], 2, "several prompts"),
        (["--file", "nowhere.txt"], 1, "nowhere.txt cannot be read: No such file"),
        (["--file", "binary.txt"], 1, "binary.txt is not UTF-8 text"),
        (["a", "--model", "./nowhere"], 1, "'./nowhere' is no model that can be opened"),
        (["a", "--model", "nobody/nothing"], 1, "'nobody/nothing' is no model that can be opened"),
        (["a", "--model", "binary.txt"], 1, "binary.txt is not a checkpoint"),
        (["a", "--longclip", "nowhere"], 1, "nowhere is neither a file"),
        (["a", "--size", "70"], 1, "size 70x70: this model's sides are multiples of 8"),
        (["a", "--size", "0"], 1, "size 0x0"),
        (["a", "--size", "big"], 2, "--size big: expected pixels"),
        (["a", "--guidance", "nan"], 1, "guidance=nan: expected a number, 0 or more"),
        (["a", "--guidance", "-1"], 1, "guidance=-1.0"),
        (["a", "--steps", "-3"], 1, "steps=-3: expected a whole number, 1 or more"),
        (["a", "--steps", "0", "--model", "./nowhere"], 1, "steps=0"),  # before a model is loaded
        (["a", "--seed", "-1"], 2, "--seed -1 is out of range"),
        (["--batch", "lines.txt", "--seed", "99999999999999999999"], 2, "--seed 99999999999999999999 is out of range"),
        (["a", "--num-images", "0"], 2, "--num-images 0"),
        (["a", "--window", "2"], 1, "window=2"),
        (["a", "--window", "many"], 2, "--window many"),
        (["a", "--out", "picture.jpg"], 2, "picture.jpg: expected a name that ends in .png"),
        (["a", "--out", "binary.txt/below/a.png"], 1, "below cannot be written"),
        (["--batch", "nowhere.txt"], 1, "nowhere.txt cannot be read"),
        (["--batch", "lines.txt", "--out", "a.png"], 2, "a batch is drawn into a folder"),
        (["a", "--offload", "--device", "cpu"], 1, "offload needs a GPU"),
        (["a", "--attention", "xformers", "--device", "cpu"], 1, "attention xformers needs a GPU"),
    ],
)
def test_mistake_is_one_line(run, tmp_path, arguments, code, message):
    (tmp_path / "binary.txt").write_bytes(b"\x89PNG\0")
    got, out, err = run(*arguments)
    lines = [line for line in err.splitlines() if "seed" not in line or "range" in line]
    assert (got, out) == (code, "")
    assert len(lines) == 1
    assert lines[0].startswith("longgen: ")
    assert message in lines[0]
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with CUDA cannot show its absence")
def test_missing_device_is_one_line(run):
    assert run("a", "--device", "cuda")[::2] == (
        1,
        f"longgen: No cuda device here (PyTorch {torch.__version__}). Use device auto or cpu.\n",
    )


def test_debug_shows_the_traceback(run):
    code, _, err = run("a", "--steps", "0", "--debug")
    assert code == 1
    assert "Traceback" in err
    assert "steps=0" in err


def test_syntax_reaches_the_pipeline_and_the_file(run, model):
    text = "a (red:1.5) bay BREAK a [gull]"
    assert run(text, "--syntax", "a1111", "--negative", "(grey:1.2)", "--seed", SEED, "--out", "a.png")[0] == 0
    options = {"load": {"syntax": "a1111"}, "negative_prompt": "(grey:1.2)"}
    assert np.array_equal(pixels("a.png"), drawn(StableDiffusionLongPipeline, model, text, **options))
    assert not np.array_equal(pixels("a.png"), drawn(StableDiffusionLongPipeline, model, text))
    assert metadata("a.png")["syntax"] == "a1111"
    _, out, _ = run(text, "--syntax", "a1111", "--tokens")
    assert out.startswith("12 tokens in 2 windows")
    assert "3 weighted 1.5" in out


def test_mistake_of_syntax_shows_the_place(run):
    code, _, err = run("a (red cat", "--syntax", "a1111", "--tokens")
    assert code == 1
    assert err.splitlines()[-2:] == ["    a (red cat", "      ^"]


def test_unknown_syntax_is_wrong_usage(run):
    code, _, err = run("a", "--syntax", "webui")
    assert code == 2
    assert "a1111-mean" in err


def test_unknown_option_is_wrong_usage(run):
    code, _, err = run("a", "--no-such-option")
    assert code == 2
    assert "no-such-option" in err


# ---- in a process of its own


def longgen_process(*arguments, cwd):
    command = [sys.executable, "-c", "import sys; from longclip_diffusers.cli.longgen import main; sys.exit(main())"]
    start = time.monotonic()
    done = subprocess.run([*command, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    return done, time.monotonic() - start


def test_help_is_quick_and_imports_nothing_heavy(tmp_path):
    done, seconds = longgen_process("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--compare" in done.stdout
    assert seconds < 5  # under 1 s on an idle machine; this guards against torch, whose import takes several
    code = (
        "import sys; from longclip_diffusers.cli import longgen, longclip\n"
        "try: longgen.main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_terminal_shows_our_lines_and_the_progress_bar_only(model, tmp_path):
    done, _ = longgen_process(SHORT, "--model", model, "--seed", SEED, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "longgen.png\n")
    told = [line for line in done.stderr.replace("\r", "\n").splitlines() if line]
    assert all(line.startswith("longgen: ") or f"/{STEPS} [" in line for line in told)
    assert any("100%" in line for line in told)
