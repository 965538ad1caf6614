"""What a long pipeline is made of: which encoder, which tokenizer with it, what it shares with another."""

import copy
import inspect
from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from transformers import CLIPTextModel, CLIPTokenizer

from .checkpoints import load_long_text_encoder, long_clip_for_width
from .errors import ModelError
from .positions import CLIP_LENGTH, KEPT_ROWS, STRETCH_FACTOR
from .sidecar import AUTO, named_encoder, read_sidecar
from .text_encoder import num_positions, stretch_text_encoder

__all__ = [
    "NO_LIMIT",
    "STRETCH",
    "Source",
    "automatic_source",
    "carried_options",
    "limited",
    "long_encoder",
    "matching",
    "shared_arguments",
]

Source = str | Path
STRETCH = "stretch"  # in place of a source: the model's own encoder, stretched
NO_LIMIT = 10**20  # transformers marks a tokenizer without a limit with 1e30


def automatic_source(
    text_encoder: CLIPTextModel, model: Source | None, **hub: Any
) -> tuple[Source | None, dict[str, Any]]:
    """Where "auto" finds the long encoder of a pipeline, and the hub arguments to load it; None is its own encoder.

    Args:
        text_encoder: the one it has. Taken if it is long and no sidecar names another.
        model: folder or hub id that the pipeline came from, whose sidecar is asked first; None if from elsewhere.
        **hub: revision (the model's), token, cache_dir, local_files_only.

    Raises:
        ModelError: nothing is known that fits; the message names the choices.
    """
    named = read_sidecar(model, **hub)[0] if model else AUTO
    if named is None or (named == AUTO and num_positions(text_encoder) > CLIP_LENGTH):
        return None, {}
    if model and named != AUTO:
        return named_encoder(model, named, **hub)
    width = text_encoder.config.hidden_size
    known = long_clip_for_width(width)
    if known is None:
        raise ModelError(
            f"No Long-CLIP of width {width} is known for {model or 'this model'}. Give longclip= a file, folder or hub "
            'id; "stretch" for its own encoder, stretched but untrained; None for its own as it is.'
        )
    hub.pop("revision", None)  # the model's, not the encoder's
    return known, hub


def long_encoder(
    source: Source,
    old: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    *,
    keep: int = KEPT_ROWS,
    factor: int = STRETCH_FACTOR,
    **hub: Any,
) -> CLIPTextModel:
    """The encoder that `source` names, in the dtype and on the device of `old`, which it can replace.

    Raises:
        LongClipError: it cannot be read, has 77 rows or another width than `old`, or `old` carries what would be lost
            (LoRA, textual inversion, CPU offload).
    """
    if hasattr(old, "_hf_hook"):
        raise ModelError("The text encoder is offloaded. Call load_longclip before enable_model_cpu_offload.")
    if source == STRETCH:
        return stretch_text_encoder(old, keep=keep, factor=factor)  # type: ignore[return-value]
    if getattr(old, "peft_config", None):
        raise ModelError("A LoRA is loaded on the text encoder and would be lost. Call load_longclip before it.")
    new = load_long_text_encoder(source, dtype=old.dtype, **hub)
    if new.config.hidden_size != old.config.hidden_size:
        raise ModelError(
            f"{source} has width {new.config.hidden_size}, the UNet was trained with {old.config.hidden_size}. "
            "Give a Long-CLIP of that width (longclip-L is 768)."
        )
    if len(tokenizer) > new.config.vocab_size:
        raise ModelError(
            f"The tokenizer has {len(tokenizer)} tokens, {source} knows {new.config.vocab_size}. Was a textual "
            "inversion loaded? Call load_longclip before it."
        )
    return new.to(old.device)  # type: ignore[arg-type]


def limited(tokenizer: CLIPTokenizer, length: int) -> CLIPTokenizer:
    """The tokenizer with `model_max_length=length`: itself if it is so, else a copy, since pipelines share theirs."""
    if tokenizer.model_max_length == length:
        return tokenizer
    twin = copy.deepcopy(tokenizer)
    twin.model_max_length = length
    return twin


def matching(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> CLIPTokenizer:
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
