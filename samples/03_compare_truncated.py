"""What stock diffusers draws of a chapter beside what we draw, same noise: 03_compare_truncated.py [OUTPUT]"""

import sys
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from longclip_diffusers import StableDiffusionLongPipeline, bundled

output = sys.argv[1] if len(sys.argv) > 1 else "compared.png"
model = sys.argv[2] if len(sys.argv) > 2 else bundled()

chapter = Path(__file__).with_name("chapters") / "02_the_last_day_of_summer.txt"
text = chapter.read_text(encoding="utf-8")

pictures = []
for pipeline in (StableDiffusionPipeline, StableDiffusionLongPipeline):
    pipe = pipeline.from_pretrained(model)
    noise = torch.Generator().manual_seed(2)
    pictures += pipe(text, num_inference_steps=12, guidance_scale=2.0, generator=noise).images

width, height = pictures[0].size
pair = Image.new("RGB", (2 * width, height))
for place, picture in enumerate(pictures):
    pair.paste(picture, (place * width, 0))
pair.save(output)
print(output)
