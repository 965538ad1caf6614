"""A picture of a whole chapter; its very last sentence is in it: 02_chapter.py [OUTPUT]"""

import sys
from pathlib import Path

import torch

from longclip_diffusers import StableDiffusionLongPipeline, bundled

output = sys.argv[1] if len(sys.argv) > 1 else "chapter.png"
model = sys.argv[2] if len(sys.argv) > 2 else bundled()

chapter = Path(__file__).with_name("chapters") / "01_the_letter.txt"
text = chapter.read_text(encoding="utf-8")

pipe = StableDiffusionLongPipeline.from_pretrained(model)
noise = torch.Generator().manual_seed(1)
picture = pipe(text, num_inference_steps=12, guidance_scale=2.0, generator=noise).images[0]
picture.save(output)

last_sentence = text.strip().split(". ")[-1]
print(f"{output}, which shows: {last_sentence}")
