"""Stock diffusers pipelines whose prompts may have any length, one a file."""

from longclip_diffusers.pipelines.auto import AutoLongPipeline
from longclip_diffusers.pipelines.flux_long import FluxLongPipeline
from longclip_diffusers.pipelines.stable_diffusion_3_long import StableDiffusion3LongPipeline
from longclip_diffusers.pipelines.stable_diffusion_long import StableDiffusionLongPipeline
from longclip_diffusers.pipelines.stable_diffusion_long_controlnet import StableDiffusionLongControlNetPipeline
from longclip_diffusers.pipelines.stable_diffusion_long_img2img import StableDiffusionLongImg2ImgPipeline
from longclip_diffusers.pipelines.stable_diffusion_long_inpaint import StableDiffusionLongInpaintPipeline
from longclip_diffusers.pipelines.stable_diffusion_xl_long import StableDiffusionXLLongPipeline
from longclip_diffusers.pipelines.stable_diffusion_xl_long_controlnet import StableDiffusionXLLongControlNetPipeline
from longclip_diffusers.pipelines.stable_diffusion_xl_long_img2img import StableDiffusionXLLongImg2ImgPipeline
from longclip_diffusers.pipelines.stable_diffusion_xl_long_inpaint import StableDiffusionXLLongInpaintPipeline

__all__ = [
    "AutoLongPipeline",
    "FluxLongPipeline",
    "StableDiffusion3LongPipeline",
    "StableDiffusionLongControlNetPipeline",
    "StableDiffusionLongImg2ImgPipeline",
    "StableDiffusionLongInpaintPipeline",
    "StableDiffusionLongPipeline",
    "StableDiffusionXLLongControlNetPipeline",
    "StableDiffusionXLLongImg2ImgPipeline",
    "StableDiffusionXLLongInpaintPipeline",
    "StableDiffusionXLLongPipeline",
]
