"""Sizes come from tensors; heads and activation from the config, or from what the width means."""

import checkpoint_makers as makers
import pytest
import torch
from torch import Tensor

from longclip_diffusers.checkpoints.configs import text_config, vision_config
from longclip_diffusers.checkpoints.formats import POSITION_TABLE, TOKEN_TABLE

FIRST_LAYER = "encoder.layers.0.mlp.fc1.weight"


def towers(text: int, vision: int, patch: int, image: int, projection: int) -> dict[str, Tensor]:
    """The tensors that tell the sizes, without memory."""
    shapes: dict[str, tuple[int, ...]] = {
        TOKEN_TABLE: (49408, text),
        POSITION_TABLE: (248, text),
        f"text_model.{FIRST_LAYER}": (4 * text, text),
        "text_projection.weight": (projection, text),
        "vision_model.embeddings.patch_embedding.weight": (vision, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": ((image // patch) ** 2 + 1, vision),
        f"vision_model.{FIRST_LAYER}": (4 * vision, vision),
        "visual_projection.weight": (projection, vision),
    }
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "sizes", "text_heads", "vision_heads", "activation"),
    [
        ("B/16", (512, 768, 16, 224, 512), 8, 12, "quick_gelu"),
        ("B/32", (512, 768, 32, 224, 512), 8, 12, "quick_gelu"),
        ("L/14", (768, 1024, 14, 224, 768), 12, 16, "quick_gelu"),
        ("L/14@336", (768, 1024, 14, 336, 768), 12, 16, "quick_gelu"),
        ("H/14", (1024, 1280, 14, 224, 1024), 16, 16, "gelu"),
        ("bigG/14", (1280, 1664, 14, 224, 1280), 20, 16, "gelu"),
    ],
)
def test_sizes_of_the_published_models(
    name: str, sizes: tuple[int, ...], text_heads: int, vision_heads: int, activation: str
) -> None:
    del name
    tensors = towers(*sizes)
    text, vision = text_config(tensors, {}), vision_config(tensors, {})
    assert (text.hidden_size, text.num_attention_heads, text.hidden_act) == (sizes[0], text_heads, activation)
    assert (text.max_position_embeddings, text.projection_dim, text.eos_token_id) == (248, sizes[4], 49407)
    assert (vision.hidden_size, vision.num_attention_heads, vision.hidden_act) == (sizes[1], vision_heads, activation)
    assert (vision.patch_size, vision.image_size, vision.projection_dim) == (sizes[2], sizes[3], sizes[4])


def test_a_config_tells_heads_and_activation_and_never_sizes() -> None:
    tensors = towers(512, 768, 32, 224, 512)
    told = {"hidden_act": "gelu", "num_attention_heads": 4, "hidden_size": 9, "max_position_embeddings": 77}
    recorded = {"model_type": "clip", "text_config": told, "vision_config": told}
    text, vision = text_config(tensors, recorded), vision_config(tensors, recorded)
    assert (text.hidden_act, text.num_attention_heads, text.hidden_size) == ("gelu", 4, 512)
    assert (vision.hidden_act, vision.num_attention_heads, vision.hidden_size) == ("gelu", 4, 768)
    assert text.max_position_embeddings == 248


def test_a_foreign_config_that_lies_beside_the_file_is_not_believed() -> None:
    config = {**makers.config_json(77, whole=False), "model_type": "t5", "num_attention_heads": 2}
    assert text_config(towers(512, 768, 32, 224, 512), config).num_attention_heads == 8
