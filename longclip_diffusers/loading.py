"""How a long pipeline is loaded, built from another and saved, whatever its family: the model's folder stays plain."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from diffusers import DiffusionPipeline

from .components import (
    STRETCH,
    Source,
    automatic_source,
    carried_options,
    limited,
    long_encoder,
    matching,
    shared_arguments,
)
from .errors import ModelError
from .positions import KEPT_ROWS, STRETCH_FACTOR
from .sidecar import AUTO, SIDECAR, Generation, PromptOptions, format_sidecar, read_generation, read_sidecar
from .text_encoder import keep_text_model_prefix, num_positions

__all__ = ["LongLoadingMixin", "stock_class"]

# A mixin to Python, so that it goes before any stock pipeline, whose attributes it uses.
if TYPE_CHECKING:
    _Pipeline = Any  # diffusers' lazy names carry no types
else:
    _Pipeline = object
Long = TypeVar("Long", bound="LongLoadingMixin")

_HUB_ARGUMENTS = ("cache_dir", "local_files_only", "token")


class LongLoadingMixin(_Pipeline):
    """The part of a long pipeline that is not about prompts. No `__init__`: diffusers reads a pipeline's own."""

    prompt_options: PromptOptions = PromptOptions()
    generation: Generation = Generation()  # what suits the model; kept on saving, and read by `longgen`

    # ---- loading

    @classmethod
    def from_pretrained(
        cls: type[Long],
        pretrained_model_name_or_path: Source,
        *,
        longclip: Source | None = AUTO,
        keep: int = KEPT_ROWS,
        factor: int = STRETCH_FACTOR,
        window: int | str | None = None,
        context: str | None = None,
        syntax: str | None = None,
        **kwargs: Any,
    ) -> Long:
        """A pipeline of a model folder or hub id, with a long text encoder; every other argument is diffusers'.

        Args:
            longclip: as in `load_longclip`; with "auto" a given `text_encoder=` is taken as it is.
            keep, factor: of "stretch", see `stretch_positions`.
            window, context, syntax: see `PromptOptions`; None is the sidecar's, else "auto", "none", "plain".

        Raises:
            LongClipError: no Long-CLIP fits, `longclip` has 77 rows or another width, or an option is unknown.
        """
        pipe = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        model_hub = {**hub, "revision": kwargs.get("revision")}
        _, saved = read_sidecar(pretrained_model_name_or_path, **model_hub)
        pipe.generation = read_generation(pretrained_model_name_or_path, **model_hub)
        pipe.prompt_options = _chosen(saved, window=window, context=context, syntax=syntax)
        if longclip == AUTO:
            longclip, hub = (None, {}) if "text_encoder" in kwargs else (AUTO, model_hub)
        pipe.load_longclip(longclip, keep=keep, factor=factor, **hub)
        return pipe

    @classmethod
    def from_single_file(
        cls: type[Long],
        pretrained_model_link_or_path: Source,
        *,
        longclip: Source | None = AUTO,
        keep: int = KEPT_ROWS,
        factor: int = STRETCH_FACTOR,
        window: int | str | None = None,
        context: str | None = None,
        syntax: str | None = None,
        **kwargs: Any,
    ) -> Long:
        """The same of a single checkpoint file, which has no sidecar. See `from_pretrained`."""
        pipe = super().from_single_file(str(pretrained_model_link_or_path), **kwargs)
        pipe.prompt_options = _chosen(PromptOptions(), window=window, context=context, syntax=syntax)
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        given = longclip == AUTO and "text_encoder" in kwargs
        pipe.load_longclip(None if given else longclip, keep=keep, factor=factor, **hub)
        return pipe

    @classmethod
    def from_pipe(
        cls: type[Long],
        pipeline: DiffusionPipeline,
        *,
        longclip: Source | None = None,
        keep: int = KEPT_ROWS,
        factor: int = STRETCH_FACTOR,
        window: int | str | None = None,
        context: str | None = None,
        syntax: str | None = None,
        dtype: torch.dtype | None = None,
        **replaced: Any,
    ) -> Long:
        """A long pipeline that shares a built one's components; `replaced` gives others, or missing ones.

        Diffusers' own casts what is shared to float32 here, the given pipeline's too; this casts only to a `dtype`
        that was asked for. The text encoder is shared as well unless `longclip` names another (see `load_longclip`).

        Raises:
            ModelError: a component is missing, or is of another kind than this pipeline works with.
        """
        pipe = cls(**shared_arguments(cls, pipeline, replaced))
        kept = {f"_{name}": value for name, value in carried_options(pipeline).items() if name not in pipe.config}
        pipe.register_to_config(**kept)
        if dtype is not None:
            pipe.to(dtype=dtype)
        options = pipeline.prompt_options if isinstance(pipeline, LongLoadingMixin) else PromptOptions()
        pipe.prompt_options = _chosen(options, window=window, context=context, syntax=syntax)
        pipe.generation = getattr(pipeline, "generation", cls.generation)
        pipe.load_longclip(longclip, keep=keep, factor=factor)
        return pipe

    def load_longclip(
        self, source: Source | None = AUTO, *, keep: int = KEPT_ROWS, factor: int = STRETCH_FACTOR, **hub: Any
    ) -> None:
        """Read prompts with another text encoder from now on; its tokenizer is this one with a longer limit.

        Args:
            source: a Long-CLIP file, folder or hub id. "auto" is the encoder that the model's sidecar names, else the
                pipeline's own if it is long, else the known Long-CLIP of its width. "stretch" stretches the
                pipeline's own (KPS, untrained). None takes it as it is, in windows of its own length.
            keep, factor: of "stretch", see `stretch_positions`.
            **hub: subfolder, weight_name, revision, token, cache_dir, local_files_only.

        Raises:
            LongClipError: no Long-CLIP fits, `source` has 77 rows or another width, or something was put on the old
                encoder (LoRA, textual inversion, CPU offload) that would be lost.
        """
        if self.text_encoder is None:
            if source not in (None, AUTO):
                raise ModelError(f"longclip={str(source)!r}: this pipeline was built without a text encoder.")
            return
        if source == AUTO:
            source, hub = automatic_source(self.text_encoder, self.name_or_path, **hub)
        if source != STRETCH and (keep, factor) != (KEPT_ROWS, STRETCH_FACTOR):
            raise ModelError(f'keep={keep}, factor={factor}: they are for longclip="stretch", not for {source!r}.')
        if source is None:
            self.register_modules(tokenizer=matching(self.tokenizer, self.text_encoder))
            return
        new = long_encoder(source, self.text_encoder, self.tokenizer, keep=keep, factor=factor, **hub)
        self.register_modules(text_encoder=new, tokenizer=limited(self.tokenizer, num_positions(new)))

    # ---- saving

    def to_json_string(self) -> str:
        """The content of `model_index.json`, with the stock class's name: any diffusers loader opens the folder."""
        config = json.loads(super().to_json_string())
        config["_class_name"] = stock_class(type(self)).__name__
        return json.dumps(config, indent=2, sort_keys=True) + "\n"

    def save_config(self, save_directory: Source, *args: Any, **kwargs: Any) -> None:
        """Write `model_index.json` and the sidecar with our options."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SIDECAR).write_text(format_sidecar(self.prompt_options, generation=self.generation), encoding="utf-8")
        super().save_config(save_directory, *args, **kwargs)

    def save_pretrained(self, save_directory: Source, *args: Any, **kwargs: Any) -> None:
        """Write a plain diffusers folder (the encoder in use in `text_encoder/`) that opens without this package."""
        if self.text_encoder is not None:
            keep_text_model_prefix(self.text_encoder)
        super().save_pretrained(save_directory, *args, **kwargs)


def stock_class(pipeline: type) -> type[DiffusionPipeline]:
    """The pipeline class that a long one stands for: the first in its ancestry that is not ours."""
    return next(each for each in pipeline.__mro__ if not issubclass(each, LongLoadingMixin))


def _chosen(options: PromptOptions, **choices: Any) -> PromptOptions:
    return replace(options, **{name: value for name, value in choices.items() if value is not None})
