"""A text of 2,000 tokens is encoded in half precision without NaN, and near to what float32 gives."""

import pytest
import torch

from longclip_diffusers import bundled, encode_long_prompt, load_text_encoder, load_tokenizer

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
