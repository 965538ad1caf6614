"""A first picture, on the CPU, from the miniature model that ships with the package: 01_first_picture.py [OUTPUT]"""

import sys

import torch

from longclip_diffusers import StableDiffusionLongPipeline, bundled

output = sys.argv[1] if len(sys.argv) > 1 else "first_picture.png"
model = sys.argv[2] if len(sys.argv) > 2 else bundled()

pipe = StableDiffusionLongPipeline.from_pretrained(model)
prompt = "A picture of a bay under a pink sky, with green hills, a yellow meadow and a blue sea."

picture = pipe(
    prompt,
    num_inference_steps=12,
    guidance_scale=2.0,
    generator=torch.Generator().manual_seed(1),
).images[0]
picture.save(output)
print(output)
