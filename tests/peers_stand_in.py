"""Checkouts of peers, as small as can be: what `longclip bench peers` finds, imports and runs."""

from pathlib import Path

# Drops what does not fit one window; doubles the state of the first token. Asks for what transformers removed.
SD_EMBED = """
from sd_embed.limits import LIMIT


def get_weighted_text_embeddings_sd15(pipe, prompt="", neg_prompt=""):
    pipe.text_encoder.text_model
    options = {"padding": "max_length", "max_length": LIMIT, "truncation": True, "return_tensors": "pt"}
    embeds, negative = (
        pipe.text_encoder(pipe.tokenizer(text, **options).input_ids.to(pipe.device))[0] for text in (prompt, neg_prompt)
    )
    embeds[:, 1] *= 2
    return embeds, negative
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


def write_sd_embed(folder: Path, *, inside: str = "src") -> Path:
    """A checkout of sd_embed whose package lies in `inside`."""
    package = folder / inside / "sd_embed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "limits.py").write_text("LIMIT = 77\n")
    (package / "embedding_funcs.py").write_text(SD_EMBED)
    return folder


def write_lpw(folder: Path, *, inside: str = "examples/community") -> Path:
    """A checkout of diffusers with the community pipeline in `inside`."""
    (folder / inside).mkdir(parents=True, exist_ok=True)
    (folder / inside / "lpw_stable_diffusion.py").write_text(LPW)
    return folder
