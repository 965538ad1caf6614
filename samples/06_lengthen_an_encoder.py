"""Lengthen a model's own text encoder from plain text, then draw with it: 06_lengthen_an_encoder.py [OUTPUT] [MODEL]

A few steps show how it goes; 2,000 and a book of your own make it useful. On the command line it is
`longclip train --objective anchor --base MODEL --data texts.txt`.
"""

import sys
import tempfile
from pathlib import Path

import torch

from longclip_diffusers import StableDiffusionLongPipeline, bundled
from longclip_diffusers.sentences import split_sentences
from longclip_diffusers.training.finetune import Evaluation, fine_tune
from longclip_diffusers.training.recipe import Recipe

output = sys.argv[1] if len(sys.argv) > 1 else "lengthened.png"
model = sys.argv[2] if len(sys.argv) > 2 else bundled()

chapters = sorted(Path(__file__).with_name("chapters").glob("*.txt"))
sentences = [each for chapter in chapters for each in split_sentences(chapter.read_text(encoding="utf-8"))]

with tempfile.TemporaryDirectory() as folder:
    texts = Path(folder, "texts.txt")  # a text a line
    texts.write_text("\n".join(" ".join(each.split()) for each in sentences), encoding="utf-8")
    recipe = Recipe(
        base=str(model),
        data=f"txt:{texts}",
        output=f"{folder}/run",
        objective="anchor",
        steps=20,
        batch_size=4,
        lr=1e-3,
        evaluate_every=10,
    )
    for event in fine_tune(recipe):
        if isinstance(event, Evaluation):
            print(f"step {event.step}: token states are {event.values['anchor']:.3f} off, relative to the teacher's")
    pipe = StableDiffusionLongPipeline.from_pretrained(model, longclip=recipe.output)

noise = torch.Generator().manual_seed(1)
text = " ".join(sentences[:18])
picture = pipe(text, num_inference_steps=12, guidance_scale=2.0, generator=noise).images[0]
picture.save(output)
print(f"{output}, drawn from this:\n{pipe.plan_prompt(text)}")
