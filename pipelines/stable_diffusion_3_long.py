"""Stable Diffusion 3: text to image; experimental."""

from diffusers import StableDiffusion3Pipeline

from longclip_diffusers.experimental import LongPromptSD3Mixin

__all__ = ["StableDiffusion3LongPipeline"]


class StableDiffusion3LongPipeline(LongPromptSD3Mixin, StableDiffusion3Pipeline):
    """Stable Diffusion 3, text to image, its CLIP side long. Experimental: `LongPromptSD3Mixin` says how it reads."""
