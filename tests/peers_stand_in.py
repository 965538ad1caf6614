"""Checkouts of peers, as small as can be: what `longclip bench peers` finds, imports and runs."""

from pathlib import Path

# Drops what does not fit one window; doubles the state of the first token. Asks for what transformers removed, but for
# SDXL, whose pooled vector it takes of the text's last word.
SD_EMBED = """
import torch
from sd_embed.limits import LIMIT


def get_weighted_text_embeddings_sd15(pipe, prompt="", neg_prompt=""):
    pipe.text_encoder.text_model
    options = {"padding": "max_length", "max_length": LIMIT, "truncation": True, "return_tensors": "pt"}
    embeds, negative = (
        pipe.text_encoder(pipe.tokenizer(text, **options).input_ids.to(pipe.device))[0] for text in (prompt, neg_prompt)
    )
    embeds[:, 1] *= 2
    return embeds, negative


def get_weighted_text_embeddings_sdxl(pipe, prompt="", neg_prompt="", pad_last_block=True):
    options = {"padding": "max_length", "max_length": LIMIT, "truncation": True, "return_tensors": "pt"}

    def encode(text):
        ids = [each(text, **options).input_ids for each in (pipe.tokenizer, pipe.tokenizer_2)]
        read = [
            encoder(each, output_hidden_states=True)
            for encoder, each in zip((pipe.text_encoder, pipe.text_encoder_2), ids)
        ]
        last = pipe.tokenizer_2(text.split()[-1] if text else "", **options).input_ids
        return torch.cat([each.hidden_states[-2] for each in read], dim=-1), pipe.text_encoder_2(last).text_embeds

    (embeds, pooled), (negative, negative_pooled) = encode(prompt), encode(neg_prompt)
    return embeds, negative, pooled, negative_pooled
"""
# Reads the text from the right to the left.
LPW = """
def get_weighted_text_embeddings(pipe, prompt, uncond_prompt=None):
    def encode(text):
        ids = pipe.tokenizer(text, add_special_tokens=False).input_ids[::-1]
        return pipe.text_encoder(pipe.tokenizer.pad(
            {"input_ids": [[pipe.tokenizer.bos_token_id, *ids, pipe.tokenizer.eos_token_id]]},
            padding="max_length", max_length=77, return_tensors="pt",
        ).input_ids)[0]

    return encode(prompt), encode(uncond_prompt)
"""
# Its third argument is not the negative. Its second encoder reads from the right to the left.
LPW_XL = """
import torch


def get_weighted_text_embeddings_sdxl(pipe, prompt="", prompt_2=None, neg_prompt=""):
    def encode(text):
        ids = pipe.tokenizer(
            text, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        turned = torch.cat([ids[:, :1], ids[:, 1:].flip(1)], dim=1)
        first = pipe.text_encoder(ids, output_hidden_states=True)
        second = pipe.text_encoder_2(turned, output_hidden_states=True)
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds

    (embeds, pooled), (negative, negative_pooled) = encode(prompt), encode(neg_prompt)
    return embeds, negative, pooled, negative_pooled
"""


def write_sd_embed(folder: Path, *, inside: str = "src") -> Path:
    """A checkout of sd_embed whose package lies in `inside`."""
    package = folder / inside / "sd_embed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "limits.py").write_text("LIMIT = 77\n")
    (package / "embedding_funcs.py").write_text(SD_EMBED)
    return folder


def write_lpw(folder: Path, *, inside: str = "examples/community") -> Path:
    """A checkout of diffusers with the community pipelines in `inside`."""
    (folder / inside).mkdir(parents=True, exist_ok=True)
    (folder / inside / "lpw_stable_diffusion.py").write_text(LPW)
    (folder / inside / "lpw_stable_diffusion_xl.py").write_text(LPW_XL)
    return folder
