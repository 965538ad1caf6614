"""Your own Stable Diffusion 1.x or 2.x, a folder or a hub id: 04_your_own_model.py [OUTPUT] [MODEL] [LONGCLIP]

For example: 04_your_own_model.py bay.png stable-diffusion-v1-5/stable-diffusion-v1-5
For 2.x, for which nobody has published a Long-CLIP, give "none" (its own encoder, in windows) or "stretch" as LONGCLIP.
"""

import sys
from pathlib import Path

import torch

from longclip_diffusers import StableDiffusionLongPipeline, bundled

output = sys.argv[1] if len(sys.argv) > 1 else "own_model.png"
model = sys.argv[2] if len(sys.argv) > 2 else bundled()
longclip = sys.argv[3] if len(sys.argv) > 3 else "auto"  # or a file, a folder, a hub id, "stretch", "none"
cuda = torch.cuda.is_available()

text = (Path(__file__).with_name("chapters") / "03_before_the_storm.txt").read_text(encoding="utf-8")

pipe = StableDiffusionLongPipeline.from_pretrained(
    model,
    longclip=None if longclip == "none" else longclip,
    dtype=torch.float16 if cuda else torch.float32,
    # variant="fp16",
)
pipe.to("cuda" if cuda else "cpu")
# As in diffusers:
# pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
# pipe.load_lora_weights("FOLDER_OR_HUB_ID")  # pip install "longclip-diffusers[lora]"
pipe(text, negative_prompt="blurry", num_inference_steps=20).images[0].save(output)
print(output)
