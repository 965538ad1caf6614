"""What a long pipeline is made of: which encoder, which tokenizer with it, what it shares with another."""

import copy
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from .checkpoints import long_clip_for_width
from .checkpoints.checkpoint import Checkpoint, read_checkpoint
from .checkpoints.formats import POSITION_TABLE
from .checkpoints.load import long_only, projected_text_encoder_of, text_encoder_of
from .checkpoints.sources import find_second_encoder
from .errors import ModelError
from .positions import CLIP_LENGTH, KEPT_ROWS, STRETCH_FACTOR
from .sidecar import AUTO, named_encoder, read_sidecar
from .text_encoder import TextEncoder, num_positions, stretch_text_encoder

__all__ = [
    "FIRST",
    "NO_LIMIT",
    "SECOND",
    "STRETCH",
    "Source",
    "automatic_source",
    "carried_options",
    "limited",
    "long_encoders",
    "matching",
    "shared_arguments",
    "stretched",
]

FIRST, SECOND = "text_encoder", "text_encoder_2"  # components that may hold a CLIP text encoder

Source = str | Path
STRETCH = "stretch"  # in place of a source: the model's own encoder, stretched
NO_LIMIT = 10**20  # transformers marks a tokenizer without a limit with 1e30


def automatic_source(
    text_encoder: TextEncoder | None, model: Source | None, **hub: Any
) -> tuple[Source | None, dict[str, Any]]:
    """Where "auto" finds the long encoder of a pipeline, and the hub arguments to load it; None is its own encoder.

    Args:
        text_encoder: its first one. Taken if it is long and no sidecar names another; None (SDXL's refiner) leaves
            only a sidecar to name one.
        model: folder or hub id that the pipeline came from, whose sidecar is asked first; None if from elsewhere.
        **hub: revision (the model's), token, cache_dir, local_files_only.

    Raises:
        ModelError: nothing is known that fits; the message names the choices.
    """
    named = read_sidecar(model, **hub)[0] if model else AUTO
    if model and named not in (None, AUTO):
        return named_encoder(model, named, **hub)
    if named is None or text_encoder is None or num_positions(text_encoder) > CLIP_LENGTH:
        return None, {}
    width = text_encoder.config.hidden_size
    known = long_clip_for_width(width)
    if known is None:
        raise ModelError(
            f"No Long-CLIP of width {width} is known for {model or 'this model'}. Give longclip= a file, folder or hub "
            'id; "stretch" for its own encoder, stretched but untrained; None for its own as it is.'
        )
    hub.pop("revision", None)  # the model's, not the encoder's
    return known, hub


def long_encoders(
    source: Source,
    old: dict[str, TextEncoder],
    tokenizers: dict[str, CLIPTokenizer],
    *,
    keep: int = KEPT_ROWS,
    factor: int = STRETCH_FACTOR,
    **hub: Any,
) -> dict[str, TextEncoder]:
    """The encoders that `source` holds, each in the dtype and on the device of the one in `old` that it replaces.

    Args:
        source: "stretch" for the first of `old`, stretched; else a Long-CLIP. A folder or repository with
            `text_encoder_2/` beside it holds SDXL's second too, which may have any length; a source of one encoder
            replaces the one that has its width.
        old, tokenizers: a pipeline's encoders by component name, in order, and the tokenizer of each.

    Raises:
        LongClipError: it cannot be read, has 77 rows or another width, or one in `old` carries what would be lost
            (LoRA, textual inversion, CPU offload).
    """
    first = next(iter(old))
    if source == STRETCH:
        return {first: stretched(old[first], keep=keep, factor=factor)}
    second = find_second_encoder(source, **hub) if SECOND in old and "weight_name" not in hub else None
    new: dict[str, TextEncoder] = {}
    if second is not None:
        checkpoint = read_checkpoint(source, warn=False, **{**hub, "subfolder": second})
        new[SECOND] = _fitted(checkpoint, old[SECOND], tokenizers[SECOND])
    if second is None or first != SECOND:
        checkpoint = read_checkpoint(source, **hub)
        name = SECOND if SECOND in old and _width_of(checkpoint) == _width(old[SECOND]) != _width(old[first]) else first
        if name == FIRST:
            checkpoint = _with_projection_of(old[name], checkpoint)
        if name not in new:
            new[name] = long_only(_fitted(checkpoint, old[name], tokenizers[name]), source)
    return new


def stretched(old: TextEncoder, *, keep: int, factor: int) -> TextEncoder:
    """`old` stretched; ModelError if it is offloaded."""
    _refuse_offloaded(old)
    return _placed_like(old, stretch_text_encoder(old, keep=keep, factor=factor))


def _with_projection_of(old: TextEncoder, checkpoint: Checkpoint) -> Checkpoint:
    # SD3 alone has a first encoder that projects, by the identity (diffusers: loaders/single_file_utils.py), not as
    # CLIP does; what it was trained with stays.
    if not isinstance(old, CLIPTextModelWithProjection):
        return checkpoint
    own = {"text_projection.weight": old.text_projection.weight.detach().cpu()}
    return replace(checkpoint, tensors={**checkpoint.tensors, **own})


def _fitted(checkpoint: Checkpoint, old: TextEncoder, tokenizer: CLIPTokenizer) -> TextEncoder:
    """The text tower of a checkpoint as a replacement of `old`."""
    source = checkpoint.source.name
    _refuse_offloaded(old)
    if getattr(old, "peft_config", None):
        raise ModelError("A LoRA is loaded on the text encoder and would be lost. Call load_longclip before it.")
    if (width := _width_of(checkpoint)) != _width(old):
        raise ModelError(
            f"{source} has width {width}, the UNet was trained with {_width(old)}. "
            "Give a Long-CLIP of that width (longclip-L is 768)."
        )
    build = projected_text_encoder_of if isinstance(old, CLIPTextModelWithProjection) else text_encoder_of
    new = build(checkpoint, dtype=old.dtype)
    if isinstance(old, CLIPTextModelWithProjection) and new.config.projection_dim != old.config.projection_dim:
        raise ModelError(
            f"{source} projects to {new.config.projection_dim}, the UNet was trained with {old.config.projection_dim}."
        )
    if len(tokenizer) > new.config.vocab_size:
        raise ModelError(
            f"The tokenizer has {len(tokenizer)} tokens, {source} knows {new.config.vocab_size}. Was a textual "
            "inversion loaded? Call load_longclip before it."
        )
    return _placed_like(old, new)


def _refuse_offloaded(old: TextEncoder) -> None:
    if hasattr(old, "_hf_hook") and not _is_mapped(old):
        raise ModelError("The text encoder is offloaded. Call load_longclip before enable_model_cpu_offload.")


def _is_mapped(encoder: TextEncoder) -> bool:
    # Whether `from_pretrained(device_map=...)` put it on a device, where a hook brings its inputs; not offloaded.
    from accelerate.hooks import AlignDevicesHook

    here = not any(parameter.is_meta for parameter in encoder.parameters())
    return here and isinstance(getattr(encoder, "_hf_hook", None), AlignDevicesHook)


def _placed_like(old: TextEncoder, new: TextEncoder) -> TextEncoder:
    new.to(old.device)  # type: ignore[arg-type]
    if _is_mapped(old):
        from accelerate import dispatch_model

        dispatch_model(new, {"": old.device}, force_hooks=True)
    return new


def _width_of(checkpoint: Checkpoint) -> int:
    return checkpoint.tensors[POSITION_TABLE].shape[1]


def _width(encoder: TextEncoder) -> int:
    return encoder.config.hidden_size


def limited(tokenizer: CLIPTokenizer, length: int) -> CLIPTokenizer:
    """The tokenizer with `model_max_length=length`: itself if it is so, else a copy, since pipelines share theirs."""
    if tokenizer.model_max_length == length:
        return tokenizer
    twin = copy.deepcopy(tokenizer)
    twin.model_max_length = length
    # A copy loses the method that transformers put on CLIP's backend: `decode` then writes "a</w>red</w>door</w>".
    # Its name is private, so a test watches the text.
    getattr(twin, "_wrap_decode_method_backend_tokenizer", lambda: None)()
    return twin


def matching(tokenizer: CLIPTokenizer, text_encoder: TextEncoder) -> CLIPTokenizer:
    """The tokenizer with the encoder's length as its limit, where it had a lower one or none.

    Raises:
        ModelError: it has a higher one: somebody meant this encoder to be long, and it is not.
    """
    length = num_positions(text_encoder)
    if length < tokenizer.model_max_length < NO_LIMIT:
        raise ModelError(
            f"The tokenizer is set to {tokenizer.model_max_length} tokens, the text encoder has {length} positions. "
            f"Give a long encoder (longclip=), or the tokenizer's limit as it is: model_max_length={length}."
        )
    return limited(tokenizer, length)


def carried_options(pipeline: Any) -> dict[str, Any]:
    """What a pipeline was configured with beside its components, and what one before it left there (stock: `_name`)."""
    own = {name.removeprefix("_"): value for name, value in pipeline.config.items()}
    return {name: own[name] for name in own.keys() - {*pipeline.components, "class_name", "diffusers_version"}}


def shared_arguments(cls: type, pipeline: Any, replaced: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `cls`, a pipeline class: from `replaced`, else the components and options of `pipeline`."""
    parameters = inspect.signature(cls).parameters
    inherited = {**carried_options(pipeline), **pipeline.components, **replaced}
    missing = [name for name, each in parameters.items() if each.default is each.empty and name not in inherited]
    if missing:
        raise ModelError(
            f"{cls.__name__} needs {', '.join(missing)}, which {type(pipeline).__name__} has not. Give "
            f"{missing[0]}= beside it."
        )
    for name, each in parameters.items():
        kind, component = each.annotation, inherited.get(name)
        if isinstance(kind, type) and isinstance(component, ModelMixin) and not isinstance(component, kind):
            raise ModelError(
                f"{cls.__name__} works with {name} of {kind.__name__}, {type(pipeline).__name__} has "
                f"{type(component).__name__}. Use AutoLongPipeline.from_pipe, or give {name}= beside it."
            )
    return {name: value for name, value in inherited.items() if name in parameters} | replaced
