"""SDXL's `encode_prompt` with what is loaded or hooked into its encoders: LoRA, textual inversion, offload."""

import pytest
import torch
import toys
import toys_xl
from accelerate import cpu_offload
from diffusers import StableDiffusionXLPipeline
from encoding_xl import LONG, ROUNDING, assert_equal, encode, halves, ids_of_rows, long_pipeline, without_depth
from peft import LoraConfig
from torch.testing import assert_close

from longclip_diffusers import StableDiffusionXLLongPipeline
from longclip_diffusers.errors import ModelError


def with_inversion(pipe):
    """Three vectors for `<place>` in both encoders."""
    generator = torch.Generator().manual_seed(6)
    for end, width in (("", toys.WIDTH), ("_2", toys_xl.WIDTH_2)):
        pipe.load_textual_inversion(
            {"<place>": torch.randn(3, width, generator=generator)},
            token="<place>",
            text_encoder=getattr(pipe, f"text_encoder{end}"),
            tokenizer=getattr(pipe, f"tokenizer{end}"),
        )
    return pipe


def test_lora_scale_is_stocks_and_taken_back():
    pipe = long_pipeline(77)
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        torch.manual_seed(5)
        encoder.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "v_proj"]))
    stock = StableDiffusionXLPipeline(**pipe.components)
    whole = encode(pipe, "a cat")
    for scale in (0.5, 1.0):
        expected = encode(stock, "a cat", negative_prompt="dark", lora_scale=scale)
        assert_equal(encode(pipe, "a cat", negative_prompt="dark", lora_scale=scale), expected)
        changed = zip(halves(expected[0]), halves(whole[0]), strict=True)
        assert [torch.equal(*each) for each in changed] == [scale == 1.0] * 2
    assert_equal(encode(pipe, "a cat"), whole)


def test_textual_inversion_is_stocks():
    stock = with_inversion(StableDiffusionXLPipeline(**toys_xl.components()))
    long = StableDiffusionXLLongPipeline(**stock.components)
    call = {"prompt": "a cat at <place>", "negative_prompt": "<place>"}
    assert_equal(encode(long, **call), encode(stock, **call))


@pytest.mark.parametrize("context", ["none", "related"])
def test_textual_inversion_stays_in_step_and_whole_where_only_pieces_end(context):
    pipe = with_inversion(long_pipeline(context=context))
    without_depth(pipe.text_encoder)
    without_depth(pipe.text_encoder_2)
    read = []  # by the second encoder, each row a window or a piece
    pipe.text_encoder_2.register_forward_pre_hook(lambda _, arguments: read.extend(arguments[0].tolist()))
    for shift in range(4):  # one of them would cut the group at the edge of a piece of 77
        embeds, *_ = encode(pipe, "a " * (72 + shift) + "<place> " + "b " * 20)
        first, second = ids_of_rows(pipe, embeds)
        assert torch.equal(first, second)
        assert [token for token in second[0].tolist() if token >= 514] == [514, 515, 516]
    assert all([token for token in row if token >= 514] in ([], [514, 515, 516]) for row in read)


def test_pooled_stays_at_the_end_where_an_old_config_would_take_the_inversion():
    pipe = with_inversion(long_pipeline(77))
    expected = encode(pipe, "a <place> cat")[2]
    pipe.text_encoder_2.config.eos_token_id = pipe.text_encoder_2.text_model.eos_token_id = 2
    assert_close(encode(pipe, "a <place> cat")[2], expected, **ROUNDING)
    stock = StableDiffusionXLPipeline(**pipe.components)
    assert not torch.allclose(encode(stock, "a <place> cat")[2], expected, **ROUNDING)  # why this is ours to do


def test_encoders_whose_weights_accelerate_keeps_elsewhere():
    pipe = with_inversion(long_pipeline())
    call = {"prompt": LONG + "<place>", "negative_prompt": "dark", "clip_skip": 1}
    pipe.text_encoder_2.config.eos_token_id = pipe.text_encoder_2.text_model.eos_token_id = 2
    expected = encode(pipe, **call)
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        cpu_offload(encoder, execution_device="cpu")
        assert encoder.device.type == "meta"
    assert_equal(encode(pipe, **call), expected)
    with pytest.raises(ModelError, match="before enable_model_cpu_offload"):
        pipe.load_longclip(g_mode="stretch")
