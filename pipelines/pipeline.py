"""Entry of `DiffusionPipeline.from_pretrained(..., custom_pipeline="<this folder>", trust_remote_code=True)`.

diffusers copies this file away and wants exactly one pipeline class in it, hence one import, and an absolute one.
diffusers does not call our `from_pretrained` then; call `load_longclip` on what it built.
"""

from longclip_diffusers.pipelines.stable_diffusion_long import StableDiffusionLongPipeline

__all__ = ["StableDiffusionLongPipeline"]
