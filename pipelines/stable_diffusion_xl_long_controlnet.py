"""SDXL: text to image under a ControlNet."""

from diffusers import StableDiffusionXLControlNetPipeline

from longclip_diffusers.mixin import LongPromptXLMixin

__all__ = ["StableDiffusionXLLongControlNetPipeline"]


class StableDiffusionXLLongControlNetPipeline(LongPromptXLMixin, StableDiffusionXLControlNetPipeline):
    """SDXL, text to image under a ControlNet, with prompts of any length; `LongPromptXLMixin` says how it reads."""
