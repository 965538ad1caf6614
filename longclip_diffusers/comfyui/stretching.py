"""A ComfyUI CLIP with longer position tables; the given CLIP, its weights and its tokenizer stay as they are."""

import copy
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..positions import KEPT_ROWS, LONG_LENGTH, stretch_to

__all__ = ["ALL_TOWERS", "clip_towers", "set_max_length", "stretch_clip"]

_TOWERS = ("l", "g", "h")  # ComfyUI's names of CLIP ViT-L, bigG and H, in tokens and, behind `clip_`, in modules
ALL_TOWERS = "all"


def clip_towers(clip: Any) -> tuple[str, ...]:
    """Which of "l", "g" and "h" a ComfyUI CLIP reads text with; T5 and language models are not among them."""
    return tuple(tower for tower in _TOWERS if getattr(clip.cond_stage_model, f"clip_{tower}", None) is not None)


def stretch_clip(
    clip: Any, *, max_tokens: int = LONG_LENGTH, keep: int = KEPT_ROWS, encoders: str = ALL_TOWERS
) -> tuple[Any, str]:
    """(a clone of the CLIP that reads `max_tokens` at once, a report such as "L 77 -> 248, G 77 -> 248").

    Always starts from the table that the model was loaded with, so that stretching a stretched clone is the same as
    stretching the original. A table that was loaded long, of a trained Long-CLIP, stays as it is.

    Args:
        max_tokens: rows of the new tables, BOS and EOS included.
        keep: first rows that stay as they are.
        encoders: "l", "g" or "h", or "all" that the CLIP has.

    Raises:
        ModelError: no such tower in this CLIP, or `keep` out of range.
    """
    towers = clip_towers(clip)
    chosen = [tower for tower in towers if encoders in (ALL_TOWERS, tower)]
    if not chosen:
        has = f"only {' and '.join(tower.upper() for tower in towers)}" if towers else "no CLIP tower"
        wanted = "CLIP tower" if encoders == ALL_TOWERS else f"tower {encoders.upper()}"
        raise ModelError(
            f"There is no {wanted} to stretch: this CLIP has {has}. Plug in the CLIP of a Stable Diffusion 1.x, 2.x, "
            'XL or 3 model, or choose encoders="all".'
        )
    twin = clip.clone()
    report = ", ".join(_stretch_tower(twin, tower, max_tokens, keep) for tower in chosen)
    lengths = {tower.upper(): getattr(twin.tokenizer, f"clip_{tower}").max_length for tower in towers}
    if len(set(lengths.values())) > 1:
        unequal = ", ".join(f"{tower} {length}" for tower, length in lengths.items())
        report += f"\nThe encoders differ in length ({unequal}): Encode Long Text and SDXL want them equal."
    return twin, report


def set_max_length(clip: Any, lengths: dict[str, int]) -> None:
    """Have the CLIP make windows of so many tokens for each tower; a tokenizer shared with others is not changed."""
    tokenizer = copy.copy(clip.tokenizer)
    for tower, length in lengths.items():
        inner = copy.copy(getattr(tokenizer, f"clip_{tower}"))
        inner.max_length = length
        setattr(tokenizer, f"clip_{tower}", inner)
    clip.tokenizer = tokenizer


def _stretch_tower(twin: Any, tower: str, max_tokens: int, keep: int) -> str:
    path = f"clip_{tower}.transformer.text_model.embeddings.position_embedding"
    twin.patcher.object_patches.pop(path, None)  # what an earlier Stretch node put there
    module = twin.patcher.get_model_object(path)
    table = _unstretched_table(twin.patcher, f"{path}.weight", module)
    long = stretch_to(table, max_tokens, keep=keep)
    set_max_length(twin, {tower: len(long)})
    if len(long) == len(table):
        return f"{tower.upper()} {len(table)}, {'long already' if len(table) > max_tokens else 'as it was'}"
    # An object patch, not weight patches: with little memory core applies those inside the module's forward, which a
    # position table never goes through. Of the module's own class, since core's memory management asks for its kind.
    patch = type(module)(*long.shape, dtype=long.dtype, device="cpu")
    patch.weight = torch.nn.Parameter(long, requires_grad=False)
    twin.patcher.add_object_patch(path, patch)
    return f"{tower.upper()} {len(table)} -> {len(long)}"


def _unstretched_table(patcher: Any, key: str, module: torch.nn.Module) -> Tensor:
    # `model.state_dict()` would show the table of whichever clone is loaded just now; weights that some clone patched
    # in place lie in the backup.
    backup = patcher.backup.get(key)
    weight = module.weight if backup is None else backup.weight
    table: Tensor = weight.detach().to("cpu", copy=True)  # type: ignore[operator]
    # Two CLIPs merged: the patches have the old table's shape, so they are applied here and not to the long one.
    patches = patcher.patches.pop(key, None)
    if patches:
        from comfy.lora import calculate_weight

        table = calculate_weight(patches, table.float(), key).to(table.dtype)
    return table
