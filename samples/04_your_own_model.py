"""Your own Stable Diffusion 1.x or 2.x, a folder or a hub id: 04_your_own_model.py [OUTPUT] [MODEL] [LONGCLIP]

For example: 04_your_own_model.py bay.png stable-diffusion-v1-5/stable-diffusion-v1-5
"""

import sys
from pathlib import Path

import torch

from longclip_diffusers import StableDiffusionLongPipeline, bundled

output = sys.argv[1] if len(sys.argv) > 1 else "own_model.png"
model = sys.argv[2] if len(sys.argv) > 2 else bundled()
longclip = sys.argv[3] if len(sys.argv) > 3 else "auto"  # or a file, a folder, a hub id, "stretch"

text = (Path(__file__).with_name("chapters") / "03_before_the_storm.txt").read_text(encoding="utf-8")

pipe = StableDiffusionLongPipeline.from_pretrained(model, longclip=longclip)
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
pipe(text, negative_prompt="blurry", num_inference_steps=20).images[0].save(output)
print(output)
