"""Text to image."""

from diffusers import StableDiffusionPipeline

from longclip_diffusers.mixin import LongPromptMixin

__all__ = ["StableDiffusionLongPipeline"]


class StableDiffusionLongPipeline(LongPromptMixin, StableDiffusionPipeline):
    """Text to image, with prompts of any length; all but the prompt is the stock pipeline\'s."""
