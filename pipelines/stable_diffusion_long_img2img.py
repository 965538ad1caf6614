"""Image to image."""

from diffusers import StableDiffusionImg2ImgPipeline

from longclip_diffusers.mixin import LongPromptMixin

__all__ = ["StableDiffusionLongImg2ImgPipeline"]


class StableDiffusionLongImg2ImgPipeline(LongPromptMixin, StableDiffusionImg2ImgPipeline):
    """Image to image, with prompts of any length; all but the prompt is the stock pipeline\'s."""
