"""Picks, or makes, the long twin of whatever pipeline of a known family is at hand."""

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
from diffusers import (
    DiffusionPipeline,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)

from longclip_diffusers.checkpoints.files import read_shapes
from longclip_diffusers.errors import ModelError
from longclip_diffusers.experimental import LongPromptFluxMixin, LongPromptSD3Mixin
from longclip_diffusers.loading import stock_class
from longclip_diffusers.mixin import LongMixin, LongPromptMixin, LongPromptXLMixin
from longclip_diffusers.pipelines.flux_long import FluxLongPipeline
from longclip_diffusers.pipelines.stable_diffusion_3_long import StableDiffusion3LongPipeline
from longclip_diffusers.pipelines.stable_diffusion_long import StableDiffusionLongPipeline
from longclip_diffusers.pipelines.stable_diffusion_long_controlnet import StableDiffusionLongControlNetPipeline
from longclip_diffusers.pipelines.stable_diffusion_long_img2img import StableDiffusionLongImg2ImgPipeline
from longclip_diffusers.pipelines.stable_diffusion_long_inpaint import StableDiffusionLongInpaintPipeline
from longclip_diffusers.pipelines.stable_diffusion_xl_long import StableDiffusionXLLongPipeline
from longclip_diffusers.pipelines.stable_diffusion_xl_long_controlnet import StableDiffusionXLLongControlNetPipeline
from longclip_diffusers.pipelines.stable_diffusion_xl_long_img2img import StableDiffusionXLLongImg2ImgPipeline
from longclip_diffusers.pipelines.stable_diffusion_xl_long_inpaint import StableDiffusionXLLongInpaintPipeline

__all__ = ["AutoLongPipeline"]

_NAMED: tuple[type[LongMixin], ...] = (
    StableDiffusionLongPipeline,
    StableDiffusionLongImg2ImgPipeline,
    StableDiffusionLongInpaintPipeline,
    StableDiffusionLongControlNetPipeline,
    StableDiffusionXLLongPipeline,
    StableDiffusionXLLongImg2ImgPipeline,
    StableDiffusionXLLongInpaintPipeline,
    StableDiffusionXLLongControlNetPipeline,
    StableDiffusion3LongPipeline,
    FluxLongPipeline,
)
# What makes a pipeline of a family long, and the stock pipeline that says what its `encode_prompt` takes.
_FAMILIES: dict[type[LongMixin], type[DiffusionPipeline]] = {
    LongPromptMixin: StableDiffusionPipeline,
    LongPromptXLMixin: StableDiffusionXLPipeline,
    LongPromptSD3Mixin: StableDiffusion3Pipeline,
    LongPromptFluxMixin: FluxPipeline,
}
_UNDER_CONTROLNET = {
    StableDiffusionPipeline: StableDiffusionControlNetPipeline,
    StableDiffusionInpaintPipeline: StableDiffusionControlNetInpaintPipeline,
    StableDiffusionXLPipeline: StableDiffusionXLControlNetPipeline,
    StableDiffusionXLInpaintPipeline: StableDiffusionXLControlNetInpaintPipeline,
}
_TWO_PROMPTS = "it encodes its two prompts one by one, and joins what must then have equal numbers of rows"
# Of a known signature, and yet unable to read more than 77 rows, and why; by name, since they come and go.
_REFUSED = {
    "AltDiffusionImg2ImgPipeline": "its text encoder is XLM-RoBERTa, not CLIP",
    "AltDiffusionPipeline": "its text encoder is XLM-RoBERTa, not CLIP",
    "CycleDiffusionPipeline": _TWO_PROMPTS,
    "StableDiffusionAttendAndExcitePipeline": "its token_indices count the rows of one window",
    "StableDiffusionDiffEditPipeline": _TWO_PROMPTS,
    "StableDiffusionInstructPix2PixPipeline": "it encodes its prompt in a method of its own, _encode_prompt",
    "StableDiffusionModelEditingPipeline": "what it edits is counted in 77 rows",
    "StableDiffusionPix2PixZeroPipeline": "its edit directions have the tokenizer's number of rows",
    "UniDiffuserPipeline": "its model has room for 77 rows of text",
}
_VIDEOS = "num_videos_per_prompt"
# Names of weights by which a single file is told; the refiner's first encoder is of OpenCLIP's kind. Else: SD 1.x/2.x.
_MARKS: dict[str, type[DiffusionPipeline]] = {
    "conditioner.embedders.1.": StableDiffusionXLPipeline,
    "conditioner.embedders.0.model.": StableDiffusionXLImg2ImgPipeline,
    "joint_blocks.": StableDiffusion3Pipeline,
    "double_blocks.": FluxPipeline,
}
# The UNet's first layer: 4 channels of noise, and where it is for inpainting 4 of the picture and 1 of the mask.
_FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"  # (outputs, inputs, 3, 3)
_INPAINTING_CHANNELS = 9
_FOR_INPAINTING = {
    StableDiffusionPipeline: StableDiffusionInpaintPipeline,
    StableDiffusionXLPipeline: StableDiffusionXLInpaintPipeline,
}
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")


class AutoLongPipeline:
    """The long twin of a model, a file or a built pipeline; keywords are those of the class that it picks."""

    @staticmethod
    def from_pretrained(model: str | Path, **kwargs: Any) -> LongMixin:
        """The long twin of the class that the model names; with `controlnet=`, of text to image or inpainting, its
        ControlNet twin.

        Raises:
            ModelError: the model's pipeline is of no family that is known here.
        """
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        return long_class(_under_controlnet(_named_class(model, hub), kwargs)).from_pretrained(model, **kwargs)

    @staticmethod
    def from_single_file(file: str | Path, **kwargs: Any) -> LongMixin:
        """Text to image from one checkpoint file, inpainting where its UNet is made for it (9 input channels), SDXL's
        refiner: image to image; with `controlnet=`, under it.

        Which family it is of is read from its weights' names and shapes, or from the folder `config=` where one is
        given; a file that is not on this disk counts as SD 1.x/2.x, text to image.
        """
        config = kwargs.get("config")
        stock = _named_class(config, {}) if config is not None and Path(config).is_dir() else _class_of_file(Path(file))
        return long_class(_under_controlnet(stock, kwargs)).from_single_file(file, **kwargs)

    @staticmethod
    def from_pipe(pipeline: DiffusionPipeline, **kwargs: Any) -> LongMixin:
        """The long twin of a built pipeline (AnimateDiff, PAG ... included), sharing its components.

        Raises:
            ModelError: the pipeline is of no family that is known here, or cannot read more than 77 rows.
        """
        stock: type = type(pipeline)
        return long_class(stock).from_pipe(pipeline, **kwargs)


@cache
def long_class(stock: type[DiffusionPipeline]) -> type[LongMixin]:
    """The long twin of a pipeline class: one of ours, itself if it is long, else a new class over it.

    Raises:
        ModelError: its `encode_prompt` is not that of a family known here, or it cannot read more than 77 rows.
    """
    if issubclass(stock, LongMixin):
        return stock
    if named := next((each for each in _NAMED if stock_class(each) is stock), None):
        return named
    if reason := next((_REFUSED[each.__name__] for each in stock.__mro__ if each.__name__ in _REFUSED), None):
        raise ModelError(
            f"{stock.__name__} has no long twin: {reason}. Use it as it is; where it takes prompt_embeds and "
            "negative_prompt_embeds, give it what a long pipeline's encode_prompt returns."
        )
    arguments = _arguments(stock)
    images = {"num_images_per_prompt" if name == _VIDEOS else name for name in arguments}
    accepted = {family: _arguments(model) for family, model in _FAMILIES.items()}
    family = next((each for each, names in accepted.items() if images in (names, names - {"clip_skip"})), None)
    if family is None:
        raise ModelError(
            f"{stock.__name__} does not take its prompt as Stable Diffusion 1.x to 3 or Flux do, and AutoLongPipeline "
            "reads long prompts for these families only."
        )
    name = stock.__name__.removesuffix("Pipeline") + "LongPipeline"
    bases = (_PerVideo, family, stock) if _VIDEOS in arguments else (family, stock)
    return type(name, bases, {"__doc__": f"`{stock.__name__}` with prompts of any length."})


class _PerVideo:
    """For AnimateDiffSDXL, which counts videos where the others count images."""

    def encode_prompt(self, *args: Any, num_videos_per_prompt: int = 1, **kwargs: Any) -> Any:
        return super().encode_prompt(*args, num_images_per_prompt=num_videos_per_prompt, **kwargs)  # type: ignore[misc]


def _named_class(model: str | Path, hub: dict[str, Any]) -> type[DiffusionPipeline]:
    name = DiffusionPipeline.load_config(model, **hub)["_class_name"]
    stock = getattr(diffusers, name, None) if isinstance(name, str) else None
    if stock is None:
        raise ModelError(f"{model} names the pipeline {name!r}, which diffusers {diffusers.__version__} lacks.")
    return stock


def _class_of_file(file: Path) -> type[DiffusionPipeline]:
    shapes = read_shapes(file) if file.is_file() else {}
    marked = (stock for mark, stock in _MARKS.items() if any(mark in name for name in shapes))
    stock = next(marked, StableDiffusionPipeline)
    paints_in = shapes.get(_FIRST_LAYER, ())[1:2] == (_INPAINTING_CHANNELS,)
    return _FOR_INPAINTING.get(stock, stock) if paints_in else stock


def _under_controlnet(stock: type[DiffusionPipeline], arguments: dict[str, Any]) -> type[DiffusionPipeline]:
    return _UNDER_CONTROLNET.get(stock, stock) if arguments.get("controlnet") is not None else stock


def _arguments(pipeline: type) -> frozenset[str]:
    encode_prompt = getattr(pipeline, "encode_prompt", None)
    return frozenset(inspect.signature(encode_prompt).parameters) if encode_prompt else frozenset()
