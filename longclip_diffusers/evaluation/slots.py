"""Zero-shot classification in the storybook's world: which of a slot's words fits what the picture shows?"""

import random
from dataclasses import replace

import numpy as np
import torch
from transformers import CLIPModel, CLIPTokenizer

from ..checkpoints.processor import CLIPImageProcessorPil
from ..storybook.phrases import TRAINING
from ..storybook.render import render
from ..storybook.scene import draw_scene
from ..storybook.slots import OPENING_SLOTS, SLOT_INDEX, SLOTS, Slot
from ..storybook.telling import Teller
from .features import encode_images
from .metrics import bootstrap_interval, match_ranks
from .report import Row
from .zeroshot import class_features

__all__ = ["slot_prompts", "storybook_zeroshot"]

NUM_PROMPTS = 12  # sentences that describe a word


def storybook_zeroshot(
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    processor: CLIPImageProcessorPil,
    num_scenes: int = 200,
    seed: int = 0,
    *,
    encoder: str = "clip",
    batch_size: int = 64,
) -> list[Row]:
    """Share of (scene, slot) whose true word wins among the slot's two to six, on scenes that no training drew.

    Three rows, `storybook/zeroshot/slots/acc1(n=200)`, with the number of scenes: all slots, those of a caption's
    opening sentence (`opening_slots`), and the details (`detail_slots`). A word is described as short captions tell it,
    in `slot_prompts`. Intervals are resampled over scenes; ties count against.

    Args:
        num_scenes: at least 1.
        encoder: the rows' name for it.

    Raises:
        ModelError: no scenes, NaN or infinite features, a tokenizer of another model.
    """
    scenes = [draw_scene(random.Random(f"{seed}/evaluation/{index}")) for index in range(num_scenes)]
    images = encode_images(clip, map(render, scenes), processor, batch_size)
    hits = {}
    for slot in SLOTS:
        classes, _ = class_features(clip, tokenizer, slot_prompts(slot), batch_size)
        truth = torch.tensor([scene.index(slot.name) for scene in scenes])
        hits[slot.name] = (match_ranks(images, truth, classes, torch.arange(len(classes))) < 1).numpy()
    groups = {
        "slots": list(hits),
        "opening_slots": list(OPENING_SLOTS),
        "detail_slots": [name for name in hits if name not in OPENING_SLOTS],
    }
    rows = []
    for group, names in groups.items():
        shown = np.stack([hits[name] for name in names], axis=1)
        interval = bootstrap_interval(np.repeat(range(num_scenes), len(names)), shown.ravel())
        column = f"storybook/zeroshot/{group}/acc1(n={num_scenes})"
        rows.append(Row(encoder, column, float(shown.mean()), *interval, shown.size))
    return rows


def slot_prompts(slot: Slot) -> list[list[str]]:
    """For each word of the slot, sentences of captions that tell it; the same for every word but for the word.

    A slot of the opening is told in openings, beside other slots' words at random: it is never described alone.
    """
    return [[_tell(slot, word, random.Random(number)) for number in range(NUM_PROMPTS)] for word in slot.words]


def _tell(slot: Slot, word: str, rng: random.Random) -> str:
    scene = draw_scene(rng)
    words = list(scene.words)
    words[SLOT_INDEX[slot.name]] = word
    teller = Teller(replace(scene, words=tuple(words)), rng, TRAINING)
    return (teller.opening() if slot.name in OPENING_SLOTS else teller.direct(slot)).text
