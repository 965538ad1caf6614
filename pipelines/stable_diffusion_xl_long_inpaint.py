"""SDXL: inpainting."""

from diffusers import StableDiffusionXLInpaintPipeline

from longclip_diffusers.mixin import LongPromptXLMixin

__all__ = ["StableDiffusionXLLongInpaintPipeline"]


class StableDiffusionXLLongInpaintPipeline(LongPromptXLMixin, StableDiffusionXLInpaintPipeline):
    """SDXL, inpainting, with prompts of any length; `LongPromptXLMixin` says how it reads."""
