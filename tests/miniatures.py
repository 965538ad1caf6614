"""A model folder as `longclip storybook train` leaves it, with random weights: the storybook's sizes, no training."""

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from longclip_diffusers import load_tokenizer
from longclip_diffusers.checkpoints import load_text_encoder
from longclip_diffusers.checkpoints.processor import image_processor
from longclip_diffusers.text_encoder import (
    keep_text_model_prefix,
    position_table,
    save_text_encoder,
    stretch_text_encoder,
)
from longclip_diffusers.training.miniature.autoencoder import build_autoencoder
from longclip_diffusers.training.miniature.clip import build_clip
from longclip_diffusers.training.miniature.unet import build_scheduler, build_unet


def save_miniature(folder: Path, *, steps: int = 2) -> Path:
    """Write the model; it is drawn in `steps` steps with guidance 2. Its sidecar prefers context windows."""
    tokenizer = load_tokenizer(max_length=77)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip, unet, vae = build_clip(len(tokenizer), tokenizer.eos_token_id), build_unet(), build_autoencoder()
        torch.nn.init.normal_(clip.text_model.embeddings.position_embedding.weight, std=0.5)
    clip.save_pretrained(folder / "clip")
    image_processor(clip, mean=(0.5,) * 3, std=(0.5,) * 3).save_pretrained(folder / "clip")
    encoder = load_text_encoder(folder / "clip", dtype=torch.float32)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=keep_text_model_prefix(encoder),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    long = stretch_text_encoder(encoder)
    with torch.no_grad():
        position_table(long)[20:] += 0.1  # loading warns of rows that nobody trained
        position_table(long)[30] += 0.1
    save_text_encoder(long, folder / "longclip" / "text_encoder")
    load_tokenizer().save_pretrained(folder / "longclip" / "tokenizer")
    sidecar = {"longclip": "longclip", "context": "related", "generation": {"steps": steps, "guidance": 2.0}}
    (folder / "longclip_config.json").write_text(json.dumps(sidecar))
    return folder
