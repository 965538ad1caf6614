"""The towers' configs, read from the tensors; a `config.json` adds only what no tensor tells (heads, activation)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import CLIPTextConfig, CLIPVisionConfig

from ..errors import CheckpointError
from ..positions import KEPT_ROWS
from ..text_encoder import CLIP_EOS, CLIP_VOCABULARY
from .formats import POSITION_TABLE, TOKEN_TABLE, layer_count

__all__ = ["kept_rows", "text_config", "vision_config"]

_CLIP_TYPES = ("clip", "clip_text_model", "longclip", "longclip_text_model")
_TOLD = ("hidden_act", "layer_norm_eps", "num_attention_heads", "attention_dropout")
_TOLD_OF_TEXT = (*_TOLD, "bos_token_id", "eos_token_id", "pad_token_id", "projection_dim")
# Width of a head where no config tells: 64 in every OpenAI model; open_clip's ViT-H, -g and -bigG image towers differ.
_HEAD_WIDTH = 64
_HEAD_WIDTHS_OF_VISION = {1280: 80, 1408: 88, 1664: 104}
# OpenAI's and Long-CLIP's text towers (512 to 768 wide) use QuickGELU; LAION's wider ViT-H and -bigG plain GELU.
_WIDEST_QUICK_GELU = 768


def text_config(
    tensors: Mapping[str, Tensor], recorded: Mapping[str, Any], *, hidden_act: str | None = None
) -> CLIPTextConfig:
    """Config of the text tower: sizes from the tensors (our names), the rest from `recorded`, a config.json or {}.

    `hidden_act` overrides the activation, which a bare state dict does not tell: by width then, quick_gelu up to 768.
    `eos_token_id` is 49407 where the vocabulary is CLIP's; older configs say 2.
    """
    told = _told(recorded, "text_config", _TOLD_OF_TEXT)
    vocabulary, width = _shape(tensors, TOKEN_TABLE, 2)
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_position_embeddings": _shape(tensors, POSITION_TABLE, 2)[0],
        "intermediate_size": _shape(tensors, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": layer_count(tensors, "text_model"),
    }
    if "text_projection.weight" in tensors:
        sizes["projection_dim"] = _shape(tensors, "text_projection.weight", 2)[0]
    if vocabulary >= CLIP_VOCABULARY:
        sizes["eos_token_id"] = CLIP_EOS
    specials = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}  # the last two in CLIP's vocabulary
    assumed = {"projection_dim": width, **specials, **_assumed(width, _HEAD_WIDTH, width, recorded)}
    return CLIPTextConfig(**{**assumed, **told, **sizes, **({"hidden_act": hidden_act} if hidden_act else {})})


def vision_config(
    tensors: Mapping[str, Tensor], recorded: Mapping[str, Any], *, hidden_act: str | None = None
) -> CLIPVisionConfig:
    """Config of the image tower, as `text_config` does it; the image size follows from its position table."""
    width, channels, patch, _ = _shape(tensors, "vision_model.embeddings.patch_embedding.weight", 4)
    rows = _shape(tensors, "vision_model.embeddings.position_embedding.weight", 2)[0]
    sizes = {
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch,
        "image_size": patch * round((rows - 1) ** 0.5),
        "intermediate_size": _shape(tensors, "vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": layer_count(tensors, "vision_model"),
        "projection_dim": _shape(tensors, "visual_projection.weight", 2)[0],
    }
    text_width = _shape(tensors, TOKEN_TABLE, 2)[1]
    assumed = _assumed(width, _HEAD_WIDTHS_OF_VISION.get(width, _HEAD_WIDTH), text_width, recorded)
    told = _told(recorded, "vision_config", _TOLD)
    return CLIPVisionConfig(**{**assumed, **told, **sizes, **({"hidden_act": hidden_act} if hidden_act else {})})


def kept_rows(recorded: Mapping[str, Any]) -> int:
    """Rows that a two-table file takes from its first table: longclip-transformers records it, the official is 20."""
    return _told(recorded, "text_config", ("interpolation_keep_length",)).get("interpolation_keep_length", KEPT_ROWS)


def _told(recorded: Mapping[str, Any], tower: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Fields that a CLIP's config.json states; one of another kind of model, that merely lies there, states none."""
    if recorded.get("model_type") not in _CLIP_TYPES:
        return {}
    # `text_config_dict` is an older spelling that wins where both are present, as in transformers.
    fields = {**recorded, **(recorded.get(tower) or {}), **(recorded.get(f"{tower}_dict") or {})}
    return {name: fields[name] for name in names if fields.get(name) is not None}


def _assumed(width: int, head_width: int, text_width: int, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What a bare state dict leaves open; transformers' own defaults hold where there is a config."""
    if recorded.get("model_type") in _CLIP_TYPES:
        return {}
    if width % head_width:
        raise CheckpointError(
            f"its tower is {width} wide, no multiple of {head_width}, so its number of attention heads is unknown. "
            "Put the model's config.json beside the weights."
        )
    activation = "quick_gelu" if text_width <= _WIDEST_QUICK_GELU else "gelu"
    return {"num_attention_heads": width // head_width, "hidden_act": activation}


def _shape(tensors: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"it lacks {name}, without which no CLIP can be built.")
    if tensors[name].ndim != axes:
        raise CheckpointError(f"{name} has shape {tuple(tensors[name].shape)}; a CLIP has {axes} axes there.")
    return tuple(tensors[name].shape)
