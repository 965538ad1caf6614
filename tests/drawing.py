"""Draw tiny pictures with tiny pipelines: the four kinds with what each needs beside a prompt."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import toys
from diffusers import (
    AnimateDiffPipeline,
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from longclip_diffusers import (
    StableDiffusionLongControlNetPipeline,
    StableDiffusionLongImg2ImgPipeline,
    StableDiffusionLongInpaintPipeline,
    StableDiffusionLongPipeline,
)

SENTENCE = "the old lamp hangs above the grey door. "
CHAPTER = SENTENCE * 20  # some 640 byte tokens: windows of 77 and of 248 both


@dataclass(frozen=True)
class Kind:
    """A stock pipeline, its long twin, how to build their components and what a call needs beside the prompt."""

    stock: type[DiffusionPipeline]
    long: type[DiffusionPipeline]
    components: Callable[..., dict[str, Any]] = toys.stable_diffusion_components
    arguments: Callable[[], dict[str, Any]] = field(default=dict)


def gradient() -> Image.Image:
    return Image.fromarray(np.linspace(0, 255, 64 * 64 * 3).astype(np.uint8).reshape(64, 64, 3))


def half_mask() -> Image.Image:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    return Image.fromarray(mask)


def _inpaint_components(**arguments: Any) -> dict[str, Any]:
    return toys.stable_diffusion_components(inpaint=True, **arguments)


def _controlnet_components(**arguments: Any) -> dict[str, Any]:
    return {**toys.stable_diffusion_components(**arguments), "controlnet": toys.controlnet()}


KINDS = {
    "text2img": Kind(StableDiffusionPipeline, StableDiffusionLongPipeline),
    "img2img": Kind(
        StableDiffusionImg2ImgPipeline,
        StableDiffusionLongImg2ImgPipeline,
        arguments=lambda: {"image": gradient(), "strength": 1.0},
    ),
    "inpaint": Kind(
        StableDiffusionInpaintPipeline,
        StableDiffusionLongInpaintPipeline,
        _inpaint_components,
        lambda: {"image": gradient(), "mask_image": half_mask(), "strength": 1.0},
    ),
    "controlnet": Kind(
        StableDiffusionControlNetPipeline,
        StableDiffusionLongControlNetPipeline,
        _controlnet_components,
        lambda: {"image": gradient()},
    ),
}


def draw(pipe: DiffusionPipeline, prompt: Any = "a cat", *, seed: int = 0, **arguments: Any) -> np.ndarray:
    """Pictures (B, 64, 64, 3) of two steps."""
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    size = {} if "image" in arguments else {"height": 64, "width": 64}
    settings = {"num_inference_steps": 2, "generator": generator, "output_type": "np", **size}
    return pipe(prompt, **{**settings, **arguments}).images


def aligned(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """The pipeline with its weights copied: in the file that loading maps they do not lie aligned, and some CPUs add up
    such rows in another order."""
    for model in pipe.components.values():
        if isinstance(model, torch.nn.Module):
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
    return pipe


def animatediff() -> AnimateDiffPipeline:
    """Stock AnimateDiff of the toys."""
    made = toys.stable_diffusion_components()
    taken = {name: made[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    return AnimateDiffPipeline(**taken, motion_adapter=toys.motion_adapter())


def frames(pipe: DiffusionPipeline, prompt: str, **arguments: Any) -> np.ndarray:
    """A film (1, 2, 64, 64, 3) of two steps."""
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_frames": 2, "num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"}
    return pipe(prompt, generator=torch.Generator().manual_seed(0), **{**settings, **arguments}).frames
