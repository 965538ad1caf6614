"""Pictures saved while a stage trains: what the model makes above, what it should make below."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image

from ...storybook.captions import short_caption
from ...storybook.render import SIZE, render
from ...storybook.scene import draw_scene
from .autoencoder import pixels_of

__all__ = ["STEPS_BETWEEN_SAMPLES", "save_drawings", "save_reconstructions"]

STEPS_BETWEEN_SAMPLES = 1000
NUM_SAMPLES = 6
ENLARGEMENT = 2


def save_reconstructions(vae: AutoencoderKL, path: Path) -> None:
    """Scenes no training drew, through the autoencoder and back."""
    rng = random.Random("samples")
    scenes = [draw_scene(rng) for _ in range(NUM_SAMPLES)]
    with torch.no_grad():
        rebuilt = vae.decode(vae.encode(pixels_of(scenes).to(vae.device)).latent_dist.mean).sample
    pixels = ((rebuilt.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    _save_pairs([Image.fromarray(picture) for picture in pixels], [render(scene) for scene in scenes], path)


def save_drawings(pipe: StableDiffusionPipeline, path: Path, *, steps: int, guidance: float) -> None:
    """Short captions no training drew, as the pipeline draws them at this moment."""
    rng = random.Random("samples")
    scenes = [draw_scene(rng) for _ in range(NUM_SAMPLES)]
    captions = [str(short_caption(scene, rng)) for scene in scenes]
    noise = [torch.Generator().manual_seed(index) for index in range(NUM_SAMPLES)]
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(captions, num_inference_steps=steps, guidance_scale=guidance, generator=noise).images
    _save_pairs(drawn, [render(scene) for scene in scenes], path)


def _save_pairs(upper: Sequence[Image.Image], lower: Sequence[Image.Image], path: Path) -> None:
    sheet = Image.new("RGB", (SIZE * len(upper), 2 * SIZE))
    for index, (made, wanted) in enumerate(zip(upper, lower, strict=True)):
        sheet.paste(made, (index * SIZE, 0))
        sheet.paste(wanted, (index * SIZE, SIZE))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * ENLARGEMENT, sheet.height * ENLARGEMENT), Image.Resampling.LANCZOS).save(path)
