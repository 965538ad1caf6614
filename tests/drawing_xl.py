"""The kinds of SDXL pipelines, base and refiner, as `drawing.KINDS` has those of Stable Diffusion 1.x."""

from typing import Any

import toys
import toys_xl
from diffusers import (
    AnimateDiffSDXLPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from drawing import KINDS, Kind, gradient, half_mask

from longclip_diffusers import (
    StableDiffusionXLLongControlNetPipeline,
    StableDiffusionXLLongImg2ImgPipeline,
    StableDiffusionXLLongInpaintPipeline,
    StableDiffusionXLLongPipeline,
)


def _inpaint_components(**arguments: Any) -> dict[str, Any]:
    return toys_xl.components(inpaint=True, **arguments)


def _controlnet_components(**arguments: Any) -> dict[str, Any]:
    return {**toys_xl.components(**arguments), "controlnet": toys_xl.controlnet()}


def _image() -> dict[str, Any]:
    return {"image": gradient(), "strength": 1.0}


XL_KINDS = {
    "text2img": Kind(StableDiffusionXLPipeline, StableDiffusionXLLongPipeline, toys_xl.components),
    "img2img": Kind(StableDiffusionXLImg2ImgPipeline, StableDiffusionXLLongImg2ImgPipeline, toys_xl.components, _image),
    "inpaint": Kind(
        StableDiffusionXLInpaintPipeline,
        StableDiffusionXLLongInpaintPipeline,
        _inpaint_components,
        lambda: {**_image(), "mask_image": half_mask()},
    ),
    "controlnet": Kind(
        StableDiffusionXLControlNetPipeline,
        StableDiffusionXLLongControlNetPipeline,
        _controlnet_components,
        lambda: {"image": gradient()},
    ),
    "refiner": Kind(
        StableDiffusionXLImg2ImgPipeline, StableDiffusionXLLongImg2ImgPipeline, toys_xl.refiner_components, _image
    ),
}
FAMILIES = {"SD 1.x": KINDS["text2img"], "SDXL": XL_KINDS["text2img"]}  # text to image of each


def animatediff_xl() -> AnimateDiffSDXLPipeline:
    """Stock AnimateDiff of SDXL's toys."""
    return AnimateDiffSDXLPipeline(**toys_xl.components(), motion_adapter=toys.motion_adapter())
