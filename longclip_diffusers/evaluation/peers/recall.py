"""Pictures of texts that one of the ways has encoded."""

from collections.abc import Iterator, Sequence

import torch
from PIL import Image

from ...sidecar import Generation
from .pipes import Pipes
from .ways import Way

__all__ = ["draw_encoded"]


@torch.no_grad()
def draw_encoded(
    way: Way, pipes: Pipes, texts: Sequence[str], generation: Generation, *, seed: int = 0
) -> Iterator[Image.Image]:
    """One picture a text, from its own seed, drawn by the stock pipeline from the embeddings that the way gives it.

    One at a time: the texts of a batch may have different numbers of rows.
    """
    encode = way.bind(pipes)
    settings = {"num_inference_steps": generation.steps, "guidance_scale": generation.guidance}
    for number, text in enumerate(texts):
        embeds, negative = encode(text, "")
        noise = torch.Generator().manual_seed(seed + number)
        yield pipes.stock(prompt_embeds=embeds, negative_prompt_embeds=negative, generator=noise, **settings).images[0]
