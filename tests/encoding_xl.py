"""SDXL's two encoders as the tests call them: pipelines of toys, `encode_prompt`, and which token each row is."""

import torch
import toys
import toys_xl
from drawing import SENTENCE

from longclip_diffusers import StableDiffusionXLLongPipeline
from longclip_diffusers.sidecar import PromptOptions

ROUNDING = {"rtol": 1e-5, "atol": 1e-5}  # the same window in a batch of another size
LONG = SENTENCE * 5  # 160 byte tokens: one window of 248, three of 77


def long_pipeline(length=248, length_2=77, **options):
    pipe = StableDiffusionXLLongPipeline(**toys_xl.components(length=length, length_2=length_2))
    pipe.prompt_options = PromptOptions(**{"context": "none", **options})
    return pipe


def encode(pipe, prompt, **arguments):
    with torch.no_grad():
        return pipe.encode_prompt(prompt, device="cpu", **arguments)


def assert_equal(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        assert one is other is None or torch.equal(one, other)


def halves(embeds):
    return embeds[..., : toys.WIDTH], embeds[..., toys.WIDTH :]


def without_depth(encoder):
    """The encoder whose every layer, and position, adds nothing: a row's state is its token's embedding."""
    inner = getattr(encoder, "text_model", encoder)
    with torch.no_grad():
        inner.embeddings.position_embedding.weight.zero_()
        for layer in inner.encoder.layers:
            for linear in (layer.self_attn.out_proj, layer.mlp.fc2):
                linear.weight.zero_()
                linear.bias.zero_()
    return encoder


def ids_of_rows(pipe, embeds):
    """For each encoder the token ids (B, L) that the rows come from, padding named alike (-1)."""
    found = []
    for states, tokenizer, encoder in zip(
        halves(embeds), (pipe.tokenizer, pipe.tokenizer_2), (pipe.text_encoder, pipe.text_encoder_2), strict=True
    ):
        table = encoder.get_input_embeddings().weight.detach()
        distances = torch.cdist(states, table, compute_mode="donot_use_mm_for_euclid_dist")
        assert distances.amin(-1).max() < 1e-3
        ids = distances.argmin(-1)
        # The first EOS of each window ends it; where EOS is the padding too, those behind it are padding.
        behind = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], 1)
        is_padding = ids == tokenizer.pad_token_id
        if tokenizer.pad_token_id == tokenizer.eos_token_id:
            is_padding &= behind == tokenizer.eos_token_id
        found.append(ids.masked_fill(is_padding, -1))
    return found
