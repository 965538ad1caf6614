"""How a long pipeline is loaded, built from another and saved, whatever its family: the model's folder stays plain."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import diffusers
import torch
from diffusers import DiffusionPipeline
from packaging.version import Version

from .checkpoints.checkpoint import read_checkpoint
from .checkpoints.files import read_shapes
from .checkpoints.formats import POSITION_TABLE
from .checkpoints.load import text_encoder_of
from .components import (
    FIRST,
    SECOND,
    STRETCH,
    Source,
    automatic_source,
    carried_options,
    limited,
    long_encoders,
    matching,
    shared_arguments,
    stretched,
)
from .errors import ModelError
from .positions import CLIP_LENGTH, KEPT_ROWS, STRETCH_FACTOR, is_interpolated
from .sidecar import AUTO, SIDECAR, Generation, PromptOptions, format_sidecar, read_generation, read_sidecar
from .text_encoder import TextEncoder, keep_text_model_prefix, num_positions, position_table

__all__ = ["LongLoadingMixin", "stock_class", "with_dtype"]

# A mixin to Python, so that it goes before any stock pipeline, whose attributes it uses.
if TYPE_CHECKING:
    _Pipeline = Any  # diffusers' lazy names carry no types
else:
    _Pipeline = object
Long = TypeVar("Long", bound="LongLoadingMixin")

_HUB_ARGUMENTS = ("cache_dir", "local_files_only", "token")
# Where a file of Stable Diffusion's original layout keeps its first encoder: 1.x, XL.
_FIRST_ENCODER = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
# diffusers 0.39 knows `torch_dtype` alone, and drops `dtype` without a word.
_KNOWS_DTYPE = Version(diffusers.__version__) >= Version("0.40.0.dev0")


def with_dtype(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a loader, `dtype` under the name that the installed diffusers reads."""
    if _KNOWS_DTYPE or "dtype" not in arguments:
        return arguments
    return {("torch_dtype" if name == "dtype" else name): value for name, value in arguments.items()}


class LongLoadingMixin(_Pipeline):
    """The part of a long pipeline that is not about prompts. No `__init__`: diffusers reads a pipeline's own."""

    clip_encoders: tuple[str, ...] = (FIRST,)  # the components that read prompts, in the family's order
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
        g_mode: str | None = None,
        **kwargs: Any,
    ) -> Long:
        """A pipeline of a model folder or hub id, with a long text encoder; every other argument is diffusers'.

        Args:
            longclip: as in `load_longclip`; with "auto" a given `text_encoder=` is taken as it is.
            keep, factor: of "stretch", see `stretch_positions`.
            window, context, syntax: see `PromptOptions`; None is the sidecar's, else "auto", "auto", "plain".
            g_mode: SDXL's, see `LongPromptXLMixin`; None is the sidecar's, else "chunk".

        Raises:
            LongClipError: no Long-CLIP fits, `longclip` has 77 rows or another width, or an option is unknown.
        """
        pipe = super().from_pretrained(pretrained_model_name_or_path, **with_dtype(kwargs))
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        model_hub = {**hub, "revision": kwargs.get("revision")}
        _, saved = read_sidecar(pretrained_model_name_or_path, **model_hub)
        pipe.generation = read_generation(pretrained_model_name_or_path, **model_hub)
        pipe.prompt_options = saved
        pipe._choose(window=window, context=context, syntax=syntax, g_mode=g_mode)
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
        g_mode: str | None = None,
        **kwargs: Any,
    ) -> Long:
        """The same of a single checkpoint file, which has no sidecar. See `from_pretrained`.

        A first encoder that is long in a safetensors file on this machine is opened as long as it is.

        Raises:
            ModelError: besides, another encoder in the file is long, and no `config=` says so.
        """
        file, load = str(pretrained_model_link_or_path), super().from_single_file
        try:
            pipe = load(file, **with_dtype(kwargs))
        except ValueError as error:
            if "position_embedding" not in str(error):
                raise
            # It builds the encoder by the stock model's config, of 77 rows, whatever the file holds.
            dtype = kwargs.get("dtype", kwargs.get("torch_dtype")) or torch.float32
            if FIRST in kwargs or (encoder := _long_encoder_in(file, dtype)) is None:
                raise ModelError(
                    f"{file} holds a text encoder that is long already, which diffusers builds by the stock model's "
                    "config. Give config= a folder of the model whose text_encoder/config.json has as many "
                    "max_position_embeddings, or a file with the stock encoder, and the long one as longclip=."
                ) from error
            pipe = load(file, **with_dtype({**kwargs, FIRST: encoder}))
        pipe._choose(window=window, context=context, syntax=syntax, g_mode=g_mode)
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
        g_mode: str | None = None,
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
        if isinstance(pipeline, LongLoadingMixin):
            pipe.prompt_options = pipeline.prompt_options
        pipe._choose(window=window, context=context, syntax=syntax, g_mode=g_mode)
        pipe.generation = getattr(pipeline, "generation", cls.generation)
        pipe.load_longclip(longclip, keep=keep, factor=factor)
        return pipe

    def load_longclip(
        self,
        source: Source | None = AUTO,
        *,
        keep: int = KEPT_ROWS,
        factor: int = STRETCH_FACTOR,
        g_mode: str | None = None,
        **hub: Any,
    ) -> None:
        """Read prompts with another text encoder from now on; its tokenizer is this one with a longer limit.

        The limit is stock's business only: that of the shortest encoder, so that a saved model works there too.

        Args:
            source: a Long-CLIP file, folder or hub id. "auto" is the encoder that the model's sidecar names, else the
                pipeline's own if it is long, else the known Long-CLIP of its width. "stretch" stretches the
                pipeline's own (KPS, untrained). None takes it as it is, in windows of its own length. All of them
                mean SDXL's first encoder; a folder that holds `text_encoder_2/` brings its second too.
            keep, factor: of "stretch", see `stretch_positions`.
            g_mode: SDXL's, see `LongPromptXLMixin`; None leaves it as it is. "stretch" brings the second encoder to
                the first one's length, unless it is long.
            **hub: subfolder, weight_name, revision, token, cache_dir, local_files_only.

        Raises:
            LongClipError: no Long-CLIP fits, `source` has 77 rows or another width, or something was put on the old
                encoder (LoRA, textual inversion, CPU offload) that would be lost.
        """
        options = self._chosen(g_mode=g_mode)
        old = {name: encoder for name in self.clip_encoders if (encoder := getattr(self, name)) is not None}
        if not old:
            if source not in (None, AUTO):
                raise ModelError(f"longclip={str(source)!r}: this pipeline was built without a text encoder.")
            self.prompt_options = options
            return
        tokenizers = {name: getattr(self, _tokenizer_of(name)) for name in old}
        as_it_is = source is None
        if source == AUTO:
            source, hub = automatic_source(old.get(FIRST), self.name_or_path, **hub)
        stretches = STRETCH in (source, options.g_mode)
        if not stretches and (keep, factor) != (KEPT_ROWS, STRETCH_FACTOR):
            raise ModelError(f'keep={keep}, factor={factor}: they are for longclip="stretch", not for {source!r}.')
        new = {} if source is None else long_encoders(source, old, tokenizers, keep=keep, factor=factor, **hub)
        encoders = {**old, **new}
        if options.g_mode == STRETCH and _second_is_short(encoders, as_it_is=as_it_is):
            encoders[SECOND] = stretched(encoders[SECOND], keep=keep, factor=factor)
        _flag_untrained(encoders, keep=keep, factor=factor)
        # One limit for all: stock reads with the same components, and cannot join encoders that pad to unequal lengths.
        limit = min(num_positions(encoder) for encoder in encoders.values())
        modules: dict[str, Any] = {}
        for name, encoder in encoders.items():
            tokenizer = tokenizers[name] if encoder is not old[name] else matching(tokenizers[name], encoder)
            modules |= {name: encoder, _tokenizer_of(name): limited(tokenizer, limit)}
        self.register_modules(**modules)  # all or, after an error above, none
        self.prompt_options = options

    def _choose(self, **choices: Any) -> None:
        """Set those prompt options that are not None."""
        self.prompt_options = self._chosen(**choices)

    def _chosen(self, **choices: Any) -> PromptOptions:
        """The prompt options with those that are not None."""
        chosen = {name: value for name, value in choices.items() if value is not None}
        if "g_mode" in chosen and SECOND not in self.clip_encoders:
            raise ModelError(
                f"g_mode={chosen['g_mode']!r} is about SDXL's second text encoder, which {type(self).__name__} lacks."
            )
        return replace(self.prompt_options, **chosen)

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
        for name in self.clip_encoders:
            if (encoder := getattr(self, name)) is not None:
                keep_text_model_prefix(encoder)
        super().save_pretrained(save_directory, *args, **kwargs)


def stock_class(pipeline: type) -> type[DiffusionPipeline]:
    """The pipeline class that a long one stands for: the first in its ancestry that is not ours."""
    bases = (each for each in pipeline.__mro__ if issubclass(each, DiffusionPipeline))
    return next(each for each in bases if not issubclass(each, LongLoadingMixin))


def _long_encoder_in(file: str, dtype: torch.dtype) -> TextEncoder | None:
    """The first encoder of a whole model in a safetensors file on this machine, if it is long."""
    path = Path(file).expanduser()
    shapes = read_shapes(path) if path.suffix == ".safetensors" and path.is_file() else {}
    for prefix in _FIRST_ENCODER:
        if shapes.get(prefix + POSITION_TABLE, (0,))[0] > CLIP_LENGTH:
            return text_encoder_of(read_checkpoint(path, prefix=prefix), dtype=dtype)
    return None


def _tokenizer_of(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def _second_is_short(encoders: dict[str, TextEncoder], *, as_it_is: bool) -> bool:
    """Whether a 77-row second encoder stands beside a long first, or is the only one and is meant to be replaced."""
    if SECOND not in encoders or num_positions(encoders[SECOND]) > CLIP_LENGTH:
        return False
    return num_positions(encoders[FIRST]) > CLIP_LENGTH if FIRST in encoders else not as_it_is


def _flag_untrained(encoders: dict[str, TextEncoder], *, keep: int, factor: int) -> None:
    if SECOND in encoders and is_interpolated(position_table(encoders[SECOND]), keep=keep, factor=factor):
        warnings.warn(
            "text_encoder_2 is stretched and was not fine-tuned: its rows beyond 77 are untrained interpolation. "
            'g_mode="chunk" reads it as it was trained; or give trained weights, longclip=FOLDER with text_encoder_2/.',
            stacklevel=3,  # who called load_longclip, or from_pretrained
        )
