"""Picks, or makes, the long twin of whatever Stable Diffusion pipeline is at hand."""

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DiffusionPipeline, StableDiffusionControlNetPipeline, StableDiffusionPipeline

from longclip_diffusers.errors import ModelError
from longclip_diffusers.loading import stock_class
from longclip_diffusers.mixin import LongPromptMixin
from longclip_diffusers.pipelines.stable_diffusion_long import StableDiffusionLongPipeline
from longclip_diffusers.pipelines.stable_diffusion_long_controlnet import StableDiffusionLongControlNetPipeline
from longclip_diffusers.pipelines.stable_diffusion_long_img2img import StableDiffusionLongImg2ImgPipeline
from longclip_diffusers.pipelines.stable_diffusion_long_inpaint import StableDiffusionLongInpaintPipeline

__all__ = ["AutoLongPipeline"]

_NAMED: tuple[type[LongPromptMixin], ...] = (
    StableDiffusionLongPipeline,
    StableDiffusionLongImg2ImgPipeline,
    StableDiffusionLongInpaintPipeline,
    StableDiffusionLongControlNetPipeline,
)
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")


class AutoLongPipeline:
    """The long twin of a model, a file or a built pipeline; keywords are those of the class that it picks."""

    @staticmethod
    def from_pretrained(model: str | Path, **kwargs: Any) -> LongPromptMixin:
        """The long twin of the class that the model names; with `controlnet=`, of text to image, its ControlNet twin.

        Raises:
            ModelError: the model's pipeline does not take its prompt as SD 1.x/2.x do.
        """
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        name = DiffusionPipeline.load_config(model, **hub)["_class_name"]
        stock = getattr(diffusers, name, None) if isinstance(name, str) else None
        if stock is None:
            raise ModelError(f"{model} names the pipeline {name!r}, which diffusers {diffusers.__version__} lacks.")
        if stock is StableDiffusionPipeline and kwargs.get("controlnet") is not None:
            stock = StableDiffusionControlNetPipeline
        return long_class(stock).from_pretrained(model, **kwargs)

    @staticmethod
    def from_single_file(file: str | Path, **kwargs: Any) -> LongPromptMixin:
        """Text to image from one checkpoint file; with `controlnet=`, under it."""
        stock = StableDiffusionPipeline if kwargs.get("controlnet") is None else StableDiffusionControlNetPipeline
        return long_class(stock).from_single_file(file, **kwargs)

    @staticmethod
    def from_pipe(pipeline: DiffusionPipeline, **kwargs: Any) -> LongPromptMixin:
        """The long twin of a built pipeline (AnimateDiff, PAG ... included), sharing its components.

        Raises:
            ModelError: the pipeline does not take its prompt as SD 1.x/2.x do.
        """
        stock: type = type(pipeline)
        return long_class(stock).from_pipe(pipeline, **kwargs)


@cache
def long_class(stock: type[DiffusionPipeline]) -> type[LongPromptMixin]:
    """The long twin of a pipeline class: one of ours, itself if it is long, else a new class over it.

    Raises:
        ModelError: its `encode_prompt` is not that of SD 1.x/2.x.
    """
    if issubclass(stock, LongPromptMixin):
        return stock
    if named := next((each for each in _NAMED if stock_class(each) is stock), None):
        return named
    if _arguments(stock) != _arguments(LongPromptMixin):
        raise ModelError(
            f"{stock.__name__} does not take its prompt as Stable Diffusion 1.x and 2.x do, and AutoLongPipeline reads "
            "long prompts for that family only."
        )
    name = stock.__name__.removesuffix("Pipeline") + "LongPipeline"
    return type(name, (LongPromptMixin, stock), {"__doc__": f"`{stock.__name__}` with prompts of any length."})


def _arguments(pipeline: type) -> list[str]:
    encode_prompt = getattr(pipeline, "encode_prompt", None)
    return list(inspect.signature(encode_prompt).parameters) if encode_prompt else []
