"""Detail recall: the share of the described slots that the picture shows, by where in the text they are described."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from PIL import Image

from ..errors import LongClipError
from ..pipelines import StableDiffusionLongPipeline
from ..positions import LONG_LENGTH
from ..sidecar import Generation
from ..storybook.captions import Caption, long_caption
from ..storybook.checker import read_picture
from ..storybook.scene import Scene, draw_scene
from ..storybook.slots import OPENING_SLOTS
from ..tokenizer import load_tokenizer
from .metrics import bootstrap_interval
from .report import Row

__all__ = [
    "COLUMNS",
    "ENCODERS",
    "Fact",
    "describe_scenes",
    "draw_pictures",
    "load_encoder",
    "recall_rows",
    "score",
]

# Position of the last token of the sentence that tells a slot, in the whole text, BOS = 0.
COLUMNS = {"0-77": (0, 77), "77-150": (77, 150), "150-248": (150, LONG_LENGTH)}
ENCODERS = ("truncated", "windows_sentence", "long")
CHANCE = "chance"


@dataclass(frozen=True)
class Fact:
    """A slot described in the text of scene number `scene`: where, whether the picture shows it, and whether it shows
    what another scene's text says instead (chance)."""

    scene: int
    slot: str
    position: int
    shown: bool = False
    by_chance: bool = False


def describe_scenes(num_scenes: int, *, seed: int) -> list[tuple[Scene, Caption]]:
    """Scenes and long captions that no training drew: each from a seed of its own, named for evaluation.

    Raises:
        LongClipError: fewer than two scenes.
    """
    if num_scenes < 2:
        raise LongClipError(f"num_scenes is {num_scenes}; chance is measured against another scene, so give 2 or more.")
    pairs = []
    for index in range(num_scenes):
        rng = random.Random(f"{seed}/evaluation/{index}")
        scene = draw_scene(rng)
        pairs.append((scene, long_caption(scene, rng)))
    return pairs


def load_encoder(model: Path, encoder: str, *, device: str = "cpu") -> DiffusionPipeline:
    """The model's pipeline, read through one of `ENCODERS`; the UNet is the same file for all of them.

    Raises:
        LongClipError: an unknown encoder, or no model there.
    """
    if not (model / "model_index.json").is_file():
        raise LongClipError(
            f"{model} is no diffusers folder (it has no model_index.json). Give one, or none for the bundled model."
        )
    if encoder == "truncated":
        pipe = StableDiffusionPipeline.from_pretrained(model)
    elif encoder == "windows_sentence":
        pipe = StableDiffusionLongPipeline.from_pretrained(model, longclip=None)
    elif encoder == "long":
        pipe = StableDiffusionLongPipeline.from_pretrained(model)
    else:
        raise LongClipError(f"There is no encoder {encoder!r}; choose from {', '.join(ENCODERS)}.")
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def draw_pictures(
    pipe: DiffusionPipeline, texts: Sequence[str], generation: Generation, *, seed: int = 0, batch_size: int = 20
) -> Iterator[Image.Image]:
    """One picture a text, each from its own seed, so that every encoder starts from the same noise."""
    settings = {"num_inference_steps": generation.steps, "guidance_scale": generation.guidance}
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        noise = [torch.Generator().manual_seed(seed + start + offset) for offset in range(len(batch))]
        yield from pipe(batch, generator=noise, **settings).images


def score(pairs: Sequence[tuple[Scene, Caption]], pictures: Sequence[Image.Image]) -> list[Fact]:
    """Every described slot outside the opening, looked for in its picture; chance asks for the next scene's colours."""
    tokenizer = load_tokenizer()
    facts = []
    for index, ((scene, caption), picture) in enumerate(zip(pairs, pictures, strict=True)):
        found, other = read_picture(picture), pairs[(index + 1) % len(pairs)][0]
        position = 0
        for sentence in caption.sentences:
            position += len(tokenizer(sentence.text, add_special_tokens=False).input_ids)
            for slot in sentence.slots:
                if slot not in OPENING_SLOTS:
                    shown, by_chance = found[slot] == scene[slot], found[slot] == other[slot]
                    facts.append(Fact(index, slot, position, shown, by_chance))
    return facts


def recall_rows(encoder: str, facts: Sequence[Fact], *, chance: bool = False) -> list[Row]:
    """A row for each column, in order; columns without facts are left out."""
    rows = []
    for column, (first, last) in COLUMNS.items():
        inside = [fact for fact in facts if first <= fact.position < last]
        if inside:
            hits = [fact.by_chance if chance else fact.shown for fact in inside]
            low, high = bootstrap_interval([fact.scene for fact in inside], hits)
            rows.append(Row(encoder, column, float(np.mean(hits)), low, high, len(inside)))
    return rows
