"""A random CLIP of both towers with its tokenizer and image processor: wide initial weights, so that inputs matter."""

import torch
import toys
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from longclip_diffusers.checkpoints.processor import image_processor
from longclip_diffusers.evaluation.features import Encoder

SIZE = 32


def clip(length=toys.STOCK_LENGTH, *, seed=0):
    text = toys.text_encoder(length).config.to_dict()
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIZE,
        "patch_size": 16,
        "projection_dim": 24,
        "initializer_factor": 5.0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()


def encoder(length=toys.STOCK_LENGTH, *, name="toy", seed=0):
    model = clip(length, seed=seed)
    return Encoder(name, model, toys.tokenizer(length), image_processor(model))


def picture(seed, size=(SIZE, SIZE)):
    noise = torch.randint(256, (*size[::-1], 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(noise.numpy())
