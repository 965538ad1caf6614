"""A text of 2,000 tokens is encoded and drawn in half precision without NaN, and near to what float32 gives."""

import drawing
import numpy as np
import pytest
import torch
from drawing import draw
from drawing_xl import FAMILIES

from longclip_diffusers import bundled, encode_long_prompt, load_text_encoder, load_tokenizer
from longclip_diffusers.sidecar import PromptOptions

CHAPTER = "The old lamp hangs above the grey door, and a boat with a red sail lies in the bay below it. " * 90
FOLDER = bundled() / "longclip"


# Rounding is to 2^-11 and 2^-8, some 0.0005 and 0.004; the layers make up to some ten and fifteen times as much of it.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.1)])
def test_a_chapter_in_half_precision(dtype, tolerance):
    tokenizer = load_tokenizer()
    exact, half = (
        encode_long_prompt(CHAPTER, tokenizer, load_text_encoder(FOLDER, dtype=each)) for each in (torch.float32, dtype)
    )
    assert half.embeds.dtype == dtype
    assert exact.embeds.shape[1] >= 2000
    error = (half.embeds.float() - exact.embeds).norm(dim=-1) / exact.embeds.norm(dim=-1)
    assert torch.isfinite(half.embeds).all()
    assert error.max() < tolerance


# SDXL's own pipeline calls what diffusers deprecates, where its VAE is in float16.
@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated")
# Rounding as above, which a UNet's two steps make up to three times as much of, on average over the picture.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.002), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("syntax", ["plain", "a1111"])
@pytest.mark.parametrize("kind", FAMILIES.values(), ids=FAMILIES)
def test_a_chapter_drawn_in_half_precision(kind, syntax, dtype, tolerance):
    pipe = kind.long(**kind.components())
    pipe.prompt_options = PromptOptions(syntax=syntax)
    chapter = 4 * (drawing.CHAPTER if syntax == "plain" else drawing.CHAPTER.replace("grey", "(grey:1.4)"))
    plan = pipe.plan_prompt(chapter)
    assert plan.num_tokens > 2000
    assert all(window.context for window in plan.windows[1:])
    exact = draw(pipe, chapter, negative_prompt=drawing.CHAPTER)
    pipe.to(dtype)
    half = draw(pipe, chapter, negative_prompt=drawing.CHAPTER)
    pipe.enable_prompt_cache()
    cached = draw(pipe, chapter, negative_prompt=drawing.CHAPTER)
    assert np.isfinite(half).all()
    assert np.array_equal(cached, half)
    assert 0 < np.abs(half - exact).mean() < tolerance
