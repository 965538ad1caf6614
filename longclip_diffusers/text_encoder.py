"""The long text tower is transformers' own CLIP text encoder: stretch it, look inside it, save it for all readers."""

import copy
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedModel

from .errors import ModelError
from .positions import KEPT_ROWS, STRETCH_FACTOR, stretch_positions

__all__ = [
    "CLIP_EOS",
    "CLIP_VOCABULARY",
    "TextEncoder",
    "inner_text_model",
    "keep_text_model_prefix",
    "num_positions",
    "position_table",
    "save_text_encoder",
    "set_position_table",
    "stretch_text_encoder",
]

CLIP_VOCABULARY = 49408  # tokens of OpenAI's BPE; textual inversion adds more behind them
CLIP_EOS = 49407

TextEncoder = CLIPTextModel | CLIPTextModelWithProjection
Model = TypeVar("Model", bound=PreTrainedModel)


def inner_text_model(text_encoder: nn.Module) -> nn.Module:
    """The module that holds `embeddings`, `encoder` and `final_layer_norm`, whatever the transformers version.

    transformers 5.6 dropped `CLIPTextModel.text_model`. An alias on the encoder would look simpler, but diffusers
    then mistakes it for an old encoder and old LoRA files fail to load (loaders/lora_base.py).
    """
    return getattr(text_encoder, "text_model", text_encoder)


def position_table(text_encoder: nn.Module) -> nn.Parameter:
    """The encoder's position table itself (not a copy), (positions, D)."""
    return inner_text_model(text_encoder).embeddings.position_embedding.weight  # type: ignore[union-attr,return-value]


def num_positions(text_encoder: nn.Module) -> int:
    """How many tokens the encoder reads at once, BOS and EOS included: the rows of its table."""
    return len(position_table(text_encoder))


def stretch_text_encoder(
    text_encoder: TextEncoder, *, keep: int = KEPT_ROWS, factor: int = STRETCH_FACTOR
) -> TextEncoder:
    """A new encoder with a KPS-stretched table (20 rows kept, factor 4: 77 -> 248); the given one is untouched.

    The copy has the same weights, dtype, device and adapters, no accelerate hooks, `eos_token_id=49407` where the
    vocabulary is CLIP's, and saves with the old `text_model.` keys. An encoder that is long already is copied as
    it is. The stretched rows are untrained: fine-tune them before the pictures are judged.

    Raises:
        ModelError: not a CLIP text encoder, its weights are offloaded, or `keep`/`factor` out of range.
    """
    if not isinstance(text_encoder, TextEncoder):
        raise ModelError(f"Only a CLIP text encoder can be stretched, not a {type(text_encoder).__name__}.")
    if position_table(text_encoder).is_meta:
        raise ModelError("The text encoder's weights are offloaded (meta device); stretch it before offloading.")
    table = stretch_positions(position_table(text_encoder).detach(), keep=keep, factor=factor)
    twin = copy.deepcopy(text_encoder)
    if hasattr(twin, "_hf_hook"):
        from accelerate.hooks import remove_hook_from_module

        remove_hook_from_module(twin, recurse=True)
    return keep_text_model_prefix(set_position_table(twin, table))


def set_position_table(model: Model, table: Tensor) -> Model:
    """The same model, changed in place: table (N, D), `position_ids` buffer and configs of its text tower.

    `model` is a CLIP text encoder or a whole CLIPModel. Where the vocabulary is CLIP's, pooling is set to the first
    49407: the 2 of older configs means "the largest id", which a textual-inversion token takes from EOS.
    """
    inner = inner_text_model(model)
    embeddings: nn.Module = inner.embeddings  # type: ignore[assignment]
    old: nn.Parameter = embeddings.position_embedding.weight  # type: ignore[union-attr,assignment]
    positions = nn.Embedding.from_pretrained(table.detach().clone().to(old), freeze=not old.requires_grad)
    embeddings.position_embedding = positions
    # Without this the encoder still fails, but only on texts longer than the old table.
    embeddings.position_ids = torch.arange(len(table), device=old.device).expand((1, -1))
    for config in (inner.config, model.config.text_config if isinstance(model, CLIPModel) else model.config):
        config.max_position_embeddings = len(table)  # type: ignore[union-attr]
        if config.vocab_size >= CLIP_VOCABULARY:  # type: ignore[union-attr,operator]
            config.eos_token_id = inner.eos_token_id = CLIP_EOS  # type: ignore[union-attr,assignment]
    return model


def keep_text_model_prefix(text_encoder: Model) -> Model:
    """The same encoder, marked so that `save_pretrained`, its own or a pipeline's, writes `text_model.` keys.

    Made in memory, transformers >= 5.6 would write flat keys, which transformers < 5.6 reads as random weights with
    a mere log line, and which ComfyUI does not recognise. `_weight_conversions` is what `from_pretrained` leaves on
    an encoder that came from such a file; it is private, so a test watches the keys.
    """
    if not hasattr(text_encoder, "text_model"):
        from transformers.core_model_loading import PrefixChange

        text_encoder._weight_conversions = [PrefixChange(prefix_to_remove="text_model")]  # type: ignore[assignment]
    return text_encoder


def save_text_encoder(text_encoder: TextEncoder, folder: str | Path) -> None:
    """Write `config.json` and `model.safetensors` with `text_model.` keys, which every reader knows."""
    keep_text_model_prefix(text_encoder).save_pretrained(folder)
