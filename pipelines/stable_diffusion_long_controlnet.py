"""Text to image under a ControlNet."""

from diffusers import StableDiffusionControlNetPipeline

from longclip_diffusers.mixin import LongPromptMixin

__all__ = ["StableDiffusionLongControlNetPipeline"]


class StableDiffusionLongControlNetPipeline(LongPromptMixin, StableDiffusionControlNetPipeline):
    """Text to image under a ControlNet, with prompts of any length; all but the prompt is the stock pipeline\'s."""
