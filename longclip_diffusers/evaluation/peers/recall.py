"""Pictures of texts that one of the ways has encoded."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image

from ...sidecar import Generation
from ..detail import draw_pictures
from .pipes import Pipes
from .ways import Way

__all__ = ["draw_encoded"]


def draw_encoded(
    way: Way, pipes: Pipes, texts: Sequence[str], generation: Generation, *, seed: int = 0
) -> Iterator[Image.Image]:
    """One picture a text, as `draw_pictures`, drawn by the stock pipeline from the embeddings that the way gives it."""
    encode = way.bind(pipes)

    def draw(prompts: Sequence[str], **settings: Any) -> Any:
        with torch.no_grad():
            encoded = [encode(prompt, "") for prompt in prompts]
        embeds, negative = (torch.cat(side) for side in zip(*encoded, strict=True))
        return pipes.stock(prompt_embeds=embeds, negative_prompt_embeds=negative, **settings)

    # One at a time: the texts of a batch may have different numbers of rows.
    return draw_pictures(draw, texts, generation, seed=seed, batch_size=1)
