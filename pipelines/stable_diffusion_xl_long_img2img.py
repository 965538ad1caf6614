"""SDXL: image to image, also the refiner."""

from diffusers import StableDiffusionXLImg2ImgPipeline

from longclip_diffusers.mixin import LongPromptXLMixin

__all__ = ["StableDiffusionXLLongImg2ImgPipeline"]


class StableDiffusionXLLongImg2ImgPipeline(LongPromptXLMixin, StableDiffusionXLImg2ImgPipeline):
    """SDXL, image to image, also the refiner, with prompts of any length; `LongPromptXLMixin` says how it reads."""
