"""Inpainting."""

from diffusers import StableDiffusionInpaintPipeline

from longclip_diffusers.mixin import LongPromptMixin

__all__ = ["StableDiffusionLongInpaintPipeline"]


class StableDiffusionLongInpaintPipeline(LongPromptMixin, StableDiffusionInpaintPipeline):
    """Inpainting, with prompts of any length; all but the prompt is the stock pipeline\'s."""
