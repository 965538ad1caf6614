"""Flux: text to image; experimental."""

from diffusers import FluxPipeline

from longclip_diffusers.experimental import LongPromptFluxMixin

__all__ = ["FluxLongPipeline"]


class FluxLongPipeline(LongPromptFluxMixin, FluxPipeline):
    """Flux, text to image, its CLIP side long. Experimental: `LongPromptFluxMixin` says how it reads."""
