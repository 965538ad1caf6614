"""SDXL: text to image."""

from diffusers import StableDiffusionXLPipeline

from longclip_diffusers.mixin import LongPromptXLMixin

__all__ = ["StableDiffusionXLLongPipeline"]


class StableDiffusionXLLongPipeline(LongPromptXLMixin, StableDiffusionXLPipeline):
    """SDXL, text to image, with prompts of any length; `LongPromptXLMixin` says how it reads."""
