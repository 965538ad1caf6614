"""SDXL pictures: stock's where all fits, whole chapters where not; saved and opened as SDXL is, also by `longgen`."""

import json

import numpy as np
import pytest
import torch
import toys
import toys_xl
from diffusers import (
    DiffusionPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPAGPipeline,
    StableDiffusionXLPipeline,
)
from drawing import CHAPTER, SENTENCE, aligned, draw
from drawing_xl import XL_KINDS, animatediff_xl
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from longclip_diffusers import (
    AutoLongPipeline,
    FluxLongPipeline,
    StableDiffusion3LongPipeline,
    StableDiffusionLongInpaintPipeline,
    StableDiffusionLongPipeline,
    StableDiffusionXLLongControlNetPipeline,
    StableDiffusionXLLongImg2ImgPipeline,
    StableDiffusionXLLongInpaintPipeline,
    StableDiffusionXLLongPipeline,
)
from longclip_diffusers.cli.longgen import main
from longclip_diffusers.mixin import LongPromptXLMixin
from longclip_diffusers.sidecar import SIDECAR, PromptOptions
from longclip_diffusers.text_encoder import position_table, save_text_encoder

KIND = pytest.mark.parametrize("kind", XL_KINDS.values(), ids=XL_KINDS)
CALL = {"prompt": ["a cat", "a dog"], "prompt_2": ["in oil", "b"], "negative_prompt": ["x", "y z"], "clip_skip": 1}
LONG = SENTENCE * 4  # one window of 248


@KIND
def test_picture_is_stocks(kind):
    components, arguments = kind.components(), {**kind.arguments(), **CALL}
    if components["text_encoder"] is None:
        del arguments["prompt_2"]
    if "image" in arguments:
        arguments["image"] = [arguments["image"]] * 2
    stock, long = kind.stock(**components), kind.long(**components)
    assert np.array_equal(draw(long, **arguments), draw(stock, **arguments))


@KIND
def test_last_sentence_changes_the_picture(kind):
    pipe = kind.long(**kind.components(length=248))
    first, second = (draw(pipe, CHAPTER + end, **kind.arguments()) for end in ("the cat is red.", "the cat is blue."))
    assert np.abs(first - second).max() > 1e-3  # float noise between equal prompts is exactly zero
    first, second = (draw(pipe, "a cat", negative_prompt=CHAPTER + end, **kind.arguments()) for end in ("red", "blue"))
    assert np.abs(first - second).max() > 1e-3


def test_given_embeddings_draw_what_their_prompt_draws():
    pipe = StableDiffusionXLLongPipeline(**toys_xl.components(length=248))
    with torch.no_grad():
        positive, negative, pooled, negative_pooled = pipe.encode_prompt(CHAPTER, negative_prompt="dark", device="cpu")
    given = {"prompt_embeds": positive, "pooled_prompt_embeds": pooled}
    expected = draw(pipe, CHAPTER, negative_prompt="dark", num_images_per_prompt=2)
    other = {"negative_prompt_embeds": negative, "negative_pooled_prompt_embeds": negative_pooled}
    assert np.array_equal(draw(pipe, None, num_images_per_prompt=2, **given, **other), expected)
    ours = draw(pipe, None, num_images_per_prompt=2, negative_prompt="dark", **given)
    np.testing.assert_allclose(ours, expected, atol=1e-4)  # the negative in a batch of another size


# ---- saving


@KIND
def test_saved_it_is_the_stock_pipeline(kind, tmp_path):
    pipe = kind.long(**kind.components(length=248))
    pipe.prompt_options = PromptOptions(context="related", g_mode="first77")
    pipe.save_pretrained(tmp_path)
    assert type(DiffusionPipeline.from_pretrained(tmp_path)) is kind.stock
    again = aligned(AutoLongPipeline.from_pretrained(tmp_path))
    assert type(again) is kind.long
    assert again.prompt_options == pipe.prompt_options
    assert np.array_equal(draw(again, CHAPTER, **kind.arguments()), draw(pipe, CHAPTER, **kind.arguments()))


def test_saved_with_one_long_stock_reads_77_of_both_and_we_all(tmp_path):
    pipe = StableDiffusionXLLongPipeline(**toys_xl.components())
    pipe.load_longclip("stretch")
    pipe.save_pretrained(tmp_path)
    stock = aligned(DiffusionPipeline.from_pretrained(tmp_path))  # which cannot join 248 rows with 77
    assert np.array_equal(draw(stock, SENTENCE * 5 + "red"), draw(stock, SENTENCE * 5 + "blue"))
    assert np.array_equal(draw(stock), draw(pipe))
    again = aligned(AutoLongPipeline.from_pretrained(tmp_path))
    assert np.array_equal(draw(again, CHAPTER), draw(pipe, CHAPTER))


def test_saved_with_both_long_stock_draws_the_same(tmp_path):
    pipe = StableDiffusionXLLongPipeline(**toys_xl.components(length=248, length_2=248))
    pipe.save_pretrained(tmp_path)
    stock = aligned(DiffusionPipeline.from_pretrained(tmp_path))
    assert (stock.tokenizer.model_max_length, stock.tokenizer_2.model_max_length) == (248, 248)
    assert np.array_equal(draw(stock, LONG), draw(pipe, LONG))
    for name in ("text_encoder", "text_encoder_2"):
        with safe_open(tmp_path / name / "model.safetensors", "pt") as tensors:
            assert all(key.startswith(("text_model.", "text_projection.")) for key in tensors.keys())  # noqa: SIM118
    assert json.loads((tmp_path / SIDECAR).read_text()).keys() == {
        "longclip",
        "window",
        "context",
        "syntax",
        "generation",
    }


# ---- AutoLongPipeline


def test_from_pretrained_with_a_controlnet(tmp_path):
    StableDiffusionXLPipeline(**toys_xl.components()).save_pretrained(tmp_path)
    pipe = AutoLongPipeline.from_pretrained(tmp_path, longclip="stretch", controlnet=toys_xl.controlnet())
    assert type(pipe) is StableDiffusionXLLongControlNetPipeline


@KIND
def test_from_pipe_is_the_twin_and_shares(kind):
    stock = kind.stock(**kind.components())
    twin = AutoLongPipeline.from_pipe(stock)
    assert type(twin) is kind.long
    assert all(twin.components[name] is each for name, each in stock.components.items())
    assert twin.config.force_zeros_for_empty_prompt == stock.config.force_zeros_for_empty_prompt
    assert np.array_equal(draw(twin, **kind.arguments()), draw(stock, **kind.arguments()))


def encoded_rows(pipe, prompt, **arguments):
    with torch.no_grad():
        positive, negative, *_ = pipe.encode_prompt(prompt, device="cpu", **arguments)
    assert positive.shape == negative.shape
    return positive.shape[1]


def test_from_pipe_of_pag_reads_a_chapter():
    stock = StableDiffusionXLPAGPipeline(**toys_xl.components(), pag_applied_layers=["mid"])
    twin = AutoLongPipeline.from_pipe(stock, longclip="stretch")
    assert isinstance(twin, LongPromptXLMixin)
    assert twin.unet is stock.unet
    assert np.array_equal(draw(AutoLongPipeline.from_pipe(stock)), draw(stock))
    assert not np.array_equal(draw(twin, CHAPTER + "red"), draw(twin, CHAPTER + "blue"))


def test_from_pipe_of_a_class_without_clip_skip():
    components = {**toys_xl.components(unet=toys_xl.unet(in_channels=8)), "is_cosxl_edit": False}
    twin = AutoLongPipeline.from_pipe(StableDiffusionXLInstructPix2PixPipeline(**components), longclip="stretch")
    assert encoded_rows(twin, CHAPTER) > 248


def test_from_pipe_of_animatediff_counts_videos():
    stock = animatediff_xl()
    twin = AutoLongPipeline.from_pipe(stock, longclip="stretch")
    assert twin.unet is stock.unet
    assert encoded_rows(twin, CHAPTER, num_videos_per_prompt=2) > 248
    assert twin.encode_prompt("a", device="cpu", num_videos_per_prompt=2)[0].shape[0] == 2


def write_checkpoint(folder, components, stock):
    """The first text tower in the layout of an original SDXL checkpoint, beside the folder with its configs."""
    stock(**components).save_pretrained(folder / "config")
    weights = components["text_encoder"].state_dict()
    prefix = "conditioner.embedders.0.transformer.text_model."
    tensors = {prefix + key: value.contiguous() for key, value in weights.items()}
    tensors["conditioner.embedders.1.model.positional_embedding"] = torch.zeros(77, toys_xl.WIDTH_2)  # marks SDXL
    save_file(tensors, folder / "model.safetensors")
    # The rest is given: its conversion is diffusers' own business, and that of UNet and bigG has no way back in it.
    given = {name: components[name] for name in ("unet", "vae", "text_encoder_2")}
    return folder / "model.safetensors", {"config": str(folder / "config"), **given}


@pytest.mark.parametrize("length", [77, 248])
def test_single_file(tmp_path, length):
    file, arguments = write_checkpoint(tmp_path, toys_xl.components(length=length), StableDiffusionXLPipeline)
    stock = StableDiffusionXLPipeline.from_single_file(str(file), **arguments)
    longclip = None if length == 77 else "auto"
    pipe = AutoLongPipeline.from_single_file(file, longclip=longclip, context="related", **arguments)
    assert type(pipe) is StableDiffusionXLLongPipeline
    assert pipe.prompt_options.context == "related"
    assert len(position_table(pipe.text_encoder)) == length
    if length == 77:  # with 248 stock cannot join the two at all
        assert np.array_equal(draw(pipe), draw(stock))
    assert not np.array_equal(draw(pipe, CHAPTER + "red"), draw(pipe, CHAPTER + "blue"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", StableDiffusionLongPipeline),
        ("conditioner.embedders.1.model.logit_scale", StableDiffusionXLLongPipeline),
        ("conditioner.embedders.0.model.logit_scale", StableDiffusionXLLongImg2ImgPipeline),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.proj.bias", StableDiffusion3LongPipeline),
        ("double_blocks.0.img_attn.proj.bias", FluxLongPipeline),
    ],
)
def test_single_files_family_is_read_from_its_weights(monkeypatch, tmp_path, name, expected):
    save_file({name: torch.ones(1)}, tmp_path / "model.safetensors")
    seen = []
    monkeypatch.setattr(expected, "from_single_file", lambda *_, **__: seen.append(expected))
    AutoLongPipeline.from_single_file(tmp_path / "model.safetensors")
    assert seen == [expected]


@pytest.mark.parametrize(
    ("names", "channels", "expected"),
    [
        ((), 4, StableDiffusionLongPipeline),
        ((), 9, StableDiffusionLongInpaintPipeline),
        (("conditioner.embedders.1.model.logit_scale",), 4, StableDiffusionXLLongPipeline),
        (("conditioner.embedders.1.model.logit_scale",), 9, StableDiffusionXLLongInpaintPipeline),
    ],
)
def test_single_file_for_inpainting_is_told_by_its_first_layer(monkeypatch, tmp_path, names, channels, expected):
    weights = {name: torch.ones(1) for name in names}
    weights["model.diffusion_model.input_blocks.0.0.weight"] = torch.ones(8, channels, 3, 3)
    save_file(weights, tmp_path / "model.safetensors")
    seen = []
    monkeypatch.setattr(expected, "from_single_file", lambda *_, **__: seen.append(expected))
    monkeypatch.setattr("longclip_diffusers.checkpoints.files._read_safetensors", None)  # the header tells all
    AutoLongPipeline.from_single_file(tmp_path / "model.safetensors")
    assert seen == [expected]


# ---- longgen


def test_longgen_draws_with_an_sdxl_folder(tmp_path, capsys):
    StableDiffusionXLPipeline(**toys_xl.components()).save_pretrained(tmp_path / "xl")
    save_text_encoder(toys.text_encoder(248, seed=9), tmp_path / "run" / "text_encoder")
    save_text_encoder(toys_xl.text_encoder_2(248, seed=8), tmp_path / "run" / "text_encoder_2")
    common = ["--model", str(tmp_path / "xl"), "--longclip", str(tmp_path / "run")]
    assert main([LONG, *common, "--tokens"]) == 0
    assert "128 tokens in 1 window of at most 246" in capsys.readouterr().out
    out = tmp_path / "pair.png"
    drawing = ["--out", str(out), "--steps", "1", "--seed", "1", "--device", "cpu", "--compare"]
    assert main([LONG, *common, *drawing]) == 0, capsys.readouterr().err
    with Image.open(out) as picture:
        assert picture.width > 2 * toys.PICTURE_SIZE
        assert picture.text["g_mode"] == "chunk"
