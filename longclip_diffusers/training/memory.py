"""How much memory a step takes, and so how many samples are encoded at once: an estimate, from the sizes alone."""

import os
from typing import Any

import torch
from torch import nn
from transformers import CLIPModel

from ..positions import CLIP_LENGTH
from .distributed import num_processes
from .recipe import Recipe

__all__ = ["auto_micro_batch", "step_memory"]

# Floats that a transformer layer keeps for its gradient, per token and unit of width: the inputs and outputs of two
# norms, queries, keys, values and the attention's result; and per unit of the MLP's width its input, the sigmoid and
# the product of quick_gelu. Counted with saved_tensors_hooks: 20.0 at a ratio of 4, for both towers.
FLOATS_PER_WIDTH, FLOATS_PER_MLP = 8, 3
BF16_SHARE = 0.6  # counted too: 48 bytes instead of 80, since norms stay in fp32
# What may be used: on a GPU the allocator needs some air; on a CPU data, cache and other programs live there too.
DEVICE_SHARE, HOST_SHARE = 0.8, 0.5
HOST_BYTES = 8 * 2**30  # where the system does not say (Windows)


def auto_micro_batch(module: nn.Module, recipe: Recipe, local_batch: int) -> int:
    """How many of the `local_batch` samples are encoded at once: the recipe's number, else what fits into memory.

    That is all of them if they fit together, else the largest power of two that does, 1 at least. It counts with the
    whole memory of the device, not with what is free now, so that a resumed run decides alike.

    Args:
        module: a CLIPModel, or text encoders in a ModuleDict, on the device where they are trained.
    """
    if recipe.micro_batch != "auto":
        return min(recipe.micro_batch, local_batch)
    device = next(module.parameters()).device
    usable = _usable_memory(device)
    if step_memory(module, recipe, local_batch, local_batch) <= usable:
        return local_batch
    size = 1
    while 2 * size < local_batch and step_memory(module, recipe, 2 * size, local_batch) <= usable:
        size *= 2
    return size


def step_memory(module: nn.Module, recipe: Recipe, micro_batch: int, local_batch: int | None = None) -> int:
    """Bytes of one process at the height of a step: weights, gradients, AdamW's moments, activations and logits.

    Args:
        local_batch: this process's samples, an even share of the recipe's batch if not given.
    """
    local_batch = local_batch or -(-recipe.batch_size // num_processes())
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    weights = sum(parameter.numel() for parameter in module.parameters()) + 3 * trained
    samples = [0]
    if recipe.uses_anchor:
        # One encoder after the other; a sample is a long text and a short one. Teachers are as large as students.
        texts = _text_configs(module)
        rows = min(micro_batch, -(-recipe.anchor_samples // num_processes()))
        samples.append(rows * max(_activations(c, c.max_position_embeddings + CLIP_LENGTH) for c in texts))
        weights += sum(12 * c.num_hidden_layers * c.hidden_size**2 + c.vocab_size * c.hidden_size for c in texts)
    if isinstance(module, CLIPModel) and recipe.uses_images:
        samples.append(_contrastive_activations(module, recipe, micro_batch, local_batch))
    # Two losses, two directions; logits, their softmax and its gradient.
    logits = 12 * local_batch * recipe.batch_size if recipe.uses_images else 0
    share = BF16_SHARE if recipe.precision == "bf16" else 1.0
    return round(torch.float32.itemsize * (weights + share * max(samples) + logits))


def _contrastive_activations(clip: CLIPModel, recipe: Recipe, micro_batch: int, local_batch: int) -> int:
    """Floats kept: one chunk's; or in one graph the pictures' and both captions', short ones counted as 77 tokens."""
    vision, text = clip.vision_model, clip.text_model.config
    patches: int = vision.embeddings.num_positions
    picture = 0 if recipe.freeze_vision else _activations(vision.config, patches)
    caption = _activations(text, text.max_position_embeddings)
    if micro_batch < local_batch:
        return micro_batch * max(picture, caption)
    return local_batch * (picture + caption + _activations(text, min(CLIP_LENGTH, text.max_position_embeddings)))


def _activations(config: Any, tokens: int) -> int:
    """Floats that one row of so many tokens keeps in a CLIP tower."""
    width = FLOATS_PER_WIDTH * config.hidden_size + FLOATS_PER_MLP * config.intermediate_size
    return config.num_hidden_layers * tokens * width


def _text_configs(module: nn.Module) -> list[Any]:
    encoders = [module.text_model] if isinstance(module, CLIPModel) else module.children()
    return [encoder.config for encoder in encoders]


def _usable_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return DEVICE_SHARE * torch.cuda.mem_get_info(device)[1]
    try:  # a CPU's memory, which Apple's GPUs share
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        total = HOST_BYTES
    return HOST_SHARE * total / num_processes()
