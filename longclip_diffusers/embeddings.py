"""What a pipeline reads of a prompt, in a file: to be drawn from later, without text encoder or this package.

A safetensors file whose tensors have the names of the pipeline's own arguments, so that stock diffusers draws with
`pipe(**load_file(FILE))`; prompt and settings are its metadata. Reading one executes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import CheckpointError, ModelError
from .mixin import LongMixin, LongPromptMixin, LongPromptXLMixin
from .pictures import metadata_text, whole_file

__all__ = ["Embeddings", "check_embeddings", "encode_embeddings", "read_embeddings", "save_embeddings"]

# In the order in which each family's `encode_prompt` gives them.
_ARGUMENTS: dict[type[LongMixin], tuple[str, ...]] = {
    LongPromptMixin: ("prompt_embeds", "negative_prompt_embeds"),
    LongPromptXLMixin: (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ),
}
_NEGATIVE = "negative_"
_NUM_SIZES = 6  # numbers that SDXL tells its UNet beside the text: original size, crop, target size


@dataclass(frozen=True)
class Embeddings:
    """A file's content. tensors: by the pipeline's argument names, embeddings (1, L, D) and SDXL's pooled (1, P)."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


@torch.no_grad()
def encode_embeddings(pipe: LongMixin, prompt: str, *, negative: str = "", guided: bool = True) -> dict[str, Tensor]:
    """What `pipe(prompt, negative_prompt=negative)` would read, by its own argument names, on the CPU, in its dtype.

    Args:
        pipe: of Stable Diffusion 1.x, 2.x or XL; it needs neither UNet nor autoencoder.
        guided: whether it is to be drawn with guidance (above 1), without which there are no negatives.

    Raises:
        LongClipError: a prompt that cannot be read, or a pipeline of another family.
    """
    names = _arguments(pipe)
    encoded = pipe.encode_prompt(
        prompt=prompt,
        device=pipe._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
        negative_prompt=negative or None,  # as `Painter` has it: SDXL makes zeros of an absent one
    )
    given = zip(names, encoded, strict=True)
    return {name: tensor.cpu().contiguous() for name, tensor in given if tensor is not None}


def save_embeddings(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, object]) -> None:
    """Write a safetensors file; the name appears only when the file is whole.

    Raises:
        LongClipError: the file cannot be written.
    """
    content = save(dict(tensors), {key: metadata_text(value) for key, value in metadata.items()})
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content)


def read_embeddings(path: Path) -> Embeddings:
    """The content of a file that `save_embeddings`, or safetensors itself, wrote.

    Raises:
        CheckpointError: no such file, cut off, no safetensors file, or one that holds something else than embeddings.
    """
    known = dict.fromkeys(name for names in _ARGUMENTS.values() for name in names)
    try:
        with safe_open(path, framework="pt") as file:
            names, metadata = set(file.keys()), file.metadata() or {}
            if not names or names - known.keys():
                raise CheckpointError(
                    f"{path} holds {', '.join(sorted(names)[:3]) or 'nothing'}{' ...' * (len(names) > 3)}, expected "
                    f"{', '.join(known)} or some of them. Give a file that longgen --embeddings wrote."
                )
            return Embeddings({name: file.get_tensor(name) for name in known if name in names}, metadata)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as embeddings ({error}): expected a whole safetensors file, not one that was cut "
            "off or is something else, such as a web page. Save it again with longgen --embeddings, or copy it again."
        ) from error


def check_embeddings(tensors: Mapping[str, Tensor], pipe: LongMixin, *, guided: bool) -> None:
    """Refuse what `pipe(**tensors)` would not draw one picture from.

    Args:
        guided: whether it is to be drawn with guidance (above 1), which needs the negatives.

    Raises:
        ModelError: tensors are missing or too many, have another shape or width than this model reads, or hold NaN.
    """
    names = _arguments(pipe)
    needed = {name for name in names if guided or not name.startswith(_NEGATIVE)}
    if missing := sorted(needed - tensors.keys()):
        advice = " Draw with a guidance of 1 or less, or save them with more." if _are_negatives(missing) else ""
        raise ModelError(f"The embeddings lack {', '.join(missing)}, which this model reads.{advice}")
    if unread := sorted(tensors.keys() - set(names)):
        raise ModelError(f"The embeddings hold {', '.join(unread)}, which this model does not read; SDXL does.")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, pipe)
    shapes = {tuple(tensor.shape) for name, tensor in tensors.items() if "pooled" not in name}
    if len(shapes) > 1:
        raise ModelError(
            f"The embeddings of prompt and negative have the shapes {sorted(shapes)}, expected one. Save them together."
        )


def _arguments(pipe: LongMixin) -> tuple[str, ...]:
    for family, names in _ARGUMENTS.items():
        if isinstance(pipe, family):
            return names
    raise ModelError(f"{type(pipe).__name__}: embeddings are for Stable Diffusion 1.x, 2.x and XL only.")


def _are_negatives(names: list[str]) -> bool:
    return all(name.startswith(_NEGATIVE) for name in names)


def _check_tensor(name: str, tensor: Tensor, pipe: LongMixin) -> None:
    config, dtype = pipe.unet.config, pipe.unet.dtype
    if "pooled" in name:
        width = config.projection_class_embeddings_input_dim - _NUM_SIZES * config.addition_time_embed_dim
        fits, expected = tensor.shape == (1, width), f"(1, {width})"
    else:
        width = config.cross_attention_dim
        fits, expected = tensor.ndim == 3 and tensor.shape[::2] == (1, width), f"(1, rows, {width})"
        fits = fits and tensor.shape[1] > 0
    if not fits or not tensor.is_floating_point():
        raise ModelError(
            f"{name} has shape {tuple(tensor.shape)} and dtype {tensor.dtype}, this model reads {expected} and floats. "
            "Save the embeddings with the model, or of the family, that draws them."
        )
    if not torch.isfinite(tensor.to(dtype)).all():
        raise ModelError(f"{name} holds NaN or infinity (in {dtype}). Save the embeddings again, in float32 or so.")
