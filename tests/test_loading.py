"""Which encoder a pipeline gets, by every way it can be loaded; and what it refuses."""

import json
import warnings

import numpy as np
import pytest
import torch
import toys
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline, UNet2DModel
from diffusers.models.attention_processor import AttnProcessor2_0
from drawing import CHAPTER, draw
from peft import LoraConfig

from longclip_diffusers import (
    StableDiffusionLongControlNetPipeline,
    StableDiffusionLongImg2ImgPipeline,
    StableDiffusionLongPipeline,
    load_text_encoder,
    load_tokenizer,
)
from longclip_diffusers.errors import CheckpointError, LongClipError, ModelError
from longclip_diffusers.sidecar import SIDECAR, PromptOptions, format_sidecar
from longclip_diffusers.text_encoder import num_positions, position_table, save_text_encoder, stretch_text_encoder

DTYPES = {"vae": torch.float32, "text_encoder": torch.float16, "unet": torch.float16}


@pytest.fixture
def stock_folder(tmp_path):
    folder = tmp_path / "model"
    StableDiffusionPipeline(**toys.stable_diffusion_components()).save_pretrained(folder)
    return folder


@pytest.fixture
def long_folder(tmp_path):
    """A trained long encoder: same width, other weights."""
    folder = tmp_path / "long"
    save_text_encoder(toys.text_encoder(248, seed=9), folder)
    return folder


@pytest.fixture
def bundled_folder(stock_folder):
    """The layout of the bundled model: stock tower in place, long one beside it, named in the sidecar."""
    save_text_encoder(toys.text_encoder(248, seed=9), stock_folder / "longclip" / "text_encoder")
    toys.tokenizer(248).save_pretrained(stock_folder / "longclip" / "tokenizer")
    (stock_folder / SIDECAR).write_text(format_sidecar(PromptOptions(), longclip="longclip"), encoding="utf-8")
    return stock_folder


def assert_reads_with(pipe, expected):
    """The pipeline's encoder has these weights, and its tokenizer the encoder's length."""
    assert torch.equal(position_table(pipe.text_encoder), position_table(expected))
    assert pipe.tokenizer.model_max_length == num_positions(expected)


# ---- longclip=


def test_source_replaces_encoder_and_limit(stock_folder, long_folder):
    pipe = StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip=long_folder)
    assert_reads_with(pipe, toys.text_encoder(248, seed=9))
    assert draw(pipe, CHAPTER).shape == (1, 64, 64, 3)


def test_stretch_is_the_models_own_stretched(stock_folder):
    pipe = StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip="stretch")
    assert_reads_with(pipe, stretch_text_encoder(toys.text_encoder()))


def test_keep_and_factor_reach_the_stretch(stock_folder):
    pipe = StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip="stretch", keep=30, factor=2)
    assert num_positions(pipe.text_encoder) == pipe.tokenizer.model_max_length == 30 + 2 * 47


def test_keep_and_factor_without_stretch_are_refused(stock_folder):
    with pytest.raises(ModelError, match=r"factor=2.*for longclip=\"stretch\""):
        StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip=None, factor=2)


def test_none_is_the_encoder_as_it_lies_there(bundled_folder):
    pipe = StableDiffusionLongPipeline.from_pretrained(bundled_folder, longclip=None)
    assert_reads_with(pipe, toys.text_encoder())
    assert encoded_rows(pipe, CHAPTER) % 77 == 0


def encoded_rows(pipe, prompt):
    with torch.no_grad():
        return pipe.encode_prompt(prompt, "cpu", 1, True)[0].shape[1]


def test_auto_is_the_encoder_that_the_sidecar_names(bundled_folder):
    pipe = StableDiffusionLongPipeline.from_pretrained(bundled_folder)
    assert_reads_with(pipe, toys.text_encoder(248, seed=9))


def test_auto_is_the_models_own_long_encoder(tmp_path):
    StableDiffusionPipeline(**toys.stable_diffusion_components(length=248)).save_pretrained(tmp_path)
    assert_reads_with(StableDiffusionLongPipeline.from_pretrained(tmp_path), toys.text_encoder(248))


def test_auto_is_a_given_encoder(bundled_folder):
    given = toys.text_encoder(248, seed=4)
    pipe = StableDiffusionLongPipeline.from_pretrained(bundled_folder, text_encoder=given)
    assert pipe.text_encoder is given
    assert pipe.tokenizer.model_max_length == 248


def test_auto_of_an_unknown_width_names_the_choices(stock_folder):
    with pytest.raises(ModelError, match=r"No Long-CLIP of width 32.*\"stretch\".*None"):
        StableDiffusionLongPipeline.from_pretrained(stock_folder)


def test_auto_of_a_known_width_is_the_catalogs(tmp_path):
    encoder = toys.text_encoder(hidden_size=768)
    StableDiffusionPipeline(**toys.stable_diffusion_components(text_encoder=encoder)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="BeichenZhang/LongCLIP-L"):  # empty cache, no network: but it was asked
        StableDiffusionLongPipeline.from_pretrained(tmp_path, local_files_only=True, cache_dir=tmp_path / "cache")


def test_source_of_77_rows_is_refused(stock_folder, tmp_path):
    save_text_encoder(toys.text_encoder(), tmp_path / "short")
    with pytest.raises(CheckpointError, match="77 position rows"):
        StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip=tmp_path / "short")


def test_source_of_another_width_is_refused(stock_folder, tmp_path):
    save_text_encoder(toys.text_encoder(248, hidden_size=48), tmp_path / "wide")
    with pytest.raises(ModelError, match=r"width 48, .* 32"):
        StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip=tmp_path / "wide")


def test_without_a_text_encoder(bundled_folder, long_folder):
    pipe = StableDiffusionLongPipeline.from_pretrained(bundled_folder, text_encoder=None)
    assert pipe.text_encoder is None
    with pytest.raises(ModelError, match="without a text encoder"):
        pipe.load_longclip(long_folder)


# ---- attention


def test_encoders_and_unet_attend_by_sdpa(stock_folder, long_folder):
    pipe = StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip=long_folder)
    for encoder in (load_text_encoder(long_folder), stretch_text_encoder(toys.text_encoder()), pipe.text_encoder):
        assert encoder.config._attn_implementation == "sdpa"
    assert {type(processor) for processor in pipe.unet.attn_processors.values()} == {AttnProcessor2_0}


# ---- encoder and tokenizer


def test_long_encoder_beside_a_short_tokenizer_raises_the_limit(tmp_path):
    components = toys.stable_diffusion_components(length=248, tokenizer=toys.tokenizer(77))
    StableDiffusionPipeline(**components).save_pretrained(tmp_path)
    assert StableDiffusionLongPipeline.from_pretrained(tmp_path).tokenizer.model_max_length == 248


def test_short_encoder_beside_a_long_tokenizer_is_refused(tmp_path):
    components = toys.stable_diffusion_components(tokenizer=toys.tokenizer(248))
    StableDiffusionPipeline(**components).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="set to 248 tokens, the text encoder has 77 positions"):
        StableDiffusionLongPipeline.from_pretrained(tmp_path, longclip=None)


def test_tokenizer_without_a_limit_gets_the_encoders(stock_folder):
    tokenizer = toys.tokenizer()
    tokenizer.model_max_length = int(1e30)
    pipe = StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip=None, tokenizer=tokenizer)
    assert pipe.tokenizer.model_max_length == 77
    assert tokenizer.model_max_length == int(1e30)  # it may be another pipeline's too


def test_tokenizer_with_more_tokens_than_the_encoder_is_refused(stock_folder):
    tokenizer = load_tokenizer(max_length=77)
    pipe = StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip=None, tokenizer=tokenizer)
    with pytest.raises(ModelError, match="49408 tokens"):
        draw(pipe)


# ---- load_longclip on a built pipeline


def test_load_longclip_leaves_shared_components_alone(long_folder):
    stock = StableDiffusionPipeline(**toys.stable_diffusion_components())
    pipe = StableDiffusionLongPipeline.from_pipe(stock)
    before = draw(stock)
    pipe.load_longclip(long_folder)
    assert_reads_with(pipe, toys.text_encoder(248, seed=9))
    assert stock.tokenizer.model_max_length == 77
    assert np.array_equal(draw(stock), before)


def test_load_longclip_keeps_the_dtype(long_folder):
    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components())
    pipe.text_encoder.to(torch.float16)
    pipe.load_longclip(long_folder)
    assert pipe.text_encoder.dtype == torch.float16


def test_load_longclip_auto_asks_the_sidecar(bundled_folder):
    pipe = StableDiffusionLongPipeline.from_pretrained(bundled_folder, longclip=None)
    pipe.load_longclip()
    assert_reads_with(pipe, toys.text_encoder(248, seed=9))


def test_lora_that_would_be_lost_is_refused_but_stretched(long_folder):
    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components())
    pipe.text_encoder.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="LoRA"):
        pipe.load_longclip(long_folder)
    pipe.load_longclip("stretch")
    assert pipe.text_encoder.peft_config


def test_textual_inversion_that_would_be_lost_is_refused_but_stretched(long_folder):
    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components())
    pipe.load_textual_inversion({"<x>": torch.randn(2, toys.WIDTH)}, token="<x>")
    with pytest.raises(ModelError, match="textual inversion"):
        pipe.load_longclip(long_folder)
    pipe.load_longclip("stretch")
    tokens = pipe.tokenizer.convert_tokens_to_ids(["<x>", "<x>_1"])
    assert pipe.plan_prompt("a <x>").windows[0].own_ids[-2:] == tuple(tokens)


# ---- options


def test_options_come_from_the_call_else_the_sidecar(stock_folder):
    saved = PromptOptions(window=50, context="none")
    (stock_folder / SIDECAR).write_text(format_sidecar(saved), encoding="utf-8")
    load = StableDiffusionLongPipeline.from_pretrained
    assert load(stock_folder).prompt_options == saved
    assert load(stock_folder, window="auto").prompt_options == PromptOptions(context="none")
    assert load(stock_folder, context="auto").prompt_options == PromptOptions(window=50)


@pytest.mark.parametrize("option", [{"window": 1}, {"context": "far"}, {"syntax": "webui"}])
def test_options_out_of_range_are_refused(stock_folder, option):
    with pytest.raises(LongClipError, match=next(iter(option))):
        StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip=None, **option)


def test_unknown_sidecar_key_is_refused(stock_folder):
    (stock_folder / SIDECAR).write_text(json.dumps({"chapters": True}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="unknown 'chapters'"):
        StableDiffusionLongPipeline.from_pretrained(stock_folder, longclip=None)


# ---- from_pipe


def half_precision_pipeline():
    pipe = StableDiffusionPipeline(**toys.stable_diffusion_components())
    for name, dtype in DTYPES.items():
        getattr(pipe, name).to(dtype)
    return pipe


def test_from_pipe_shares_and_casts_nothing():
    stock = half_precision_pipeline()
    twin = StableDiffusionLongPipeline.from_pipe(stock)
    for name, dtype in DTYPES.items():
        assert getattr(twin, name) is getattr(stock, name)
        assert getattr(twin, name).dtype == dtype


def test_stock_from_pipe_casts():
    # Why ours is not stock's: were this fixed upstream, ours could go.
    stock = half_precision_pipeline()
    StableDiffusionImg2ImgPipeline.from_pipe(stock)
    assert stock.unet.dtype == torch.float32


def test_from_pipe_casts_when_asked():
    twin = StableDiffusionLongPipeline.from_pipe(half_precision_pipeline(), dtype=torch.float64)
    assert twin.unet.dtype == twin.vae.dtype == torch.float64


def test_from_pipe_draws_the_same():
    stock = StableDiffusionPipeline(**toys.stable_diffusion_components())
    assert np.array_equal(draw(StableDiffusionLongPipeline.from_pipe(stock)), draw(stock))


def test_from_pipe_keeps_options_and_where_the_model_came_from(bundled_folder):
    first = StableDiffusionLongPipeline.from_pretrained(bundled_folder, window=99)
    second = StableDiffusionLongImg2ImgPipeline.from_pipe(first)
    assert second.prompt_options == PromptOptions(window=99)
    assert second.text_encoder is first.text_encoder
    assert second.name_or_path == bundled_folder
    assert second.config.requires_safety_checker is False
    assert StableDiffusionLongImg2ImgPipeline.from_pipe(first, window=60).prompt_options.window == 60


def test_from_pipe_with_a_long_encoder(long_folder):
    stock = StableDiffusionPipeline(**toys.stable_diffusion_components())
    twin = StableDiffusionLongPipeline.from_pipe(stock, longclip=long_folder)
    assert_reads_with(twin, toys.text_encoder(248, seed=9))
    assert num_positions(stock.text_encoder) == 77


def test_from_pipe_names_what_is_missing():
    stock = StableDiffusionPipeline(**toys.stable_diffusion_components())
    with pytest.raises(ModelError, match="needs controlnet"):
        StableDiffusionLongControlNetPipeline.from_pipe(stock)
    twin = StableDiffusionLongControlNetPipeline.from_pipe(stock, controlnet=toys.controlnet())
    assert twin.unet is stock.unet


def test_from_pipe_refuses_a_component_of_another_kind():
    stock = StableDiffusionPipeline(**toys.stable_diffusion_components())
    stock.unet = UNet2DModel(
        norm_num_groups=4,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(ModelError, match="works with unet of UNet2DConditionModel"):
        StableDiffusionLongPipeline.from_pipe(stock)


def test_loading_warns_of_nothing(bundled_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StableDiffusionLongPipeline.from_pretrained(bundled_folder)


def test_the_long_tokenizer_writes_words_as_the_models_own():
    encoder = toys.text_encoder(vocab_size=toys.REAL_VOCABULARY_SIZE)
    components = toys.stable_diffusion_components(tokenizer=toys.real_tokenizer(), text_encoder=encoder)
    stock = StableDiffusionPipeline(**components)
    long = StableDiffusionLongPipeline.from_pipe(stock, longclip="stretch")
    assert (stock.tokenizer.model_max_length, long.tokenizer.model_max_length) == (77, 248)
    ids = stock.tokenizer("A red door. Nobody's cat!").input_ids
    words = stock.tokenizer.decode(ids, skip_special_tokens=True)
    assert words == "a red door . nobody 's cat !"
    assert long.tokenizer.decode(ids, skip_special_tokens=True) == words
    long.tokenizer.add_tokens("<cat-toy>")
    assert len(stock.tokenizer) == toys.REAL_VOCABULARY_SIZE
