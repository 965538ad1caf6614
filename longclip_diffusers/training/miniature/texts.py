"""Captions as token batches, cut to the encoder's length as Stable Diffusion cuts them, with the facts they tell."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from ...storybook.captions import Caption, Sentence, chapter, describe, opening
from ...storybook.narrative import narrate
from ...storybook.scene import Scene, draw_scene
from ...storybook.slots import OPENING_SLOTS, SLOTS

__all__ = ["CompactVocabulary", "TextBatch", "base_caption", "batch_captions", "sentence_ids"]

STORY_SHARE = 0.15  # sentences of story among the details of a training caption
OPENING_SHARE = 0.6  # captions that begin with the summary; the others are details alone
MAX_DETAILS = 8  # a detail has about eleven tokens: eight and the summary fill 77

_DETAILS = tuple(slot for slot in SLOTS if slot.name not in OPENING_SLOTS)
_SLOT_INDEX = {slot.name: index for index, slot in enumerate(SLOTS)}


def base_caption(scene: Scene, rng: random.Random, *, max_details: int = MAX_DETAILS) -> Caption:
    """What the base model is trained with: maybe the summary, some details in random order, now and then story."""
    sentences: list[Sentence] = [opening(scene, rng)] if rng.random() < OPENING_SHARE else []
    fewest = 0 if sentences else 1
    # The larger of two draws: the last positions are as well trained as the first only if most captions reach them.
    num_details = max(rng.randint(fewest, max_details), rng.randint(fewest, max_details))
    for slot in rng.sample(_DETAILS, num_details):
        if rng.random() < STORY_SHARE:
            sentences.append(Sentence(narrate(rng)))
        sentences.append(describe(scene, slot, rng))
    return Caption(tuple(sentences))


@lru_cache(maxsize=100_000)
def sentence_ids(text: str, tokenizer: CLIPTokenizer) -> tuple[int, ...]:
    """Content ids of one sentence. CLIP's BPE never crosses a space, so sentences' ids joined are the text's ids."""
    return tuple(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)


@dataclass(frozen=True)
class TextBatch:
    """Token ids (B, N) and the facts in them: rows (F,), positions (F,) of the telling sentence's last token,
    slot indices (F,) and colour indices (F,). `ends` (B,) is the position of each row's end-of-text token."""

    ids: Tensor
    ends: Tensor
    rows: Tensor
    positions: Tensor
    slots: Tensor
    colours: Tensor

    def to(self, device: torch.device) -> "TextBatch":
        """The same batch on `device`."""
        return TextBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


def batch_captions(
    captions: Sequence[Caption], scenes: Sequence[Scene], tokenizer: CLIPTokenizer, *, length: int
) -> TextBatch:
    """Tokenise, cut to `length` with the special tokens and pad; facts that the cut removes are not in the batch."""
    ids = torch.full((len(captions), length), tokenizer.pad_token_id)
    ends, facts = [], []
    for row, (caption, scene) in enumerate(zip(captions, scenes, strict=True)):
        tokens = [tokenizer.bos_token_id]
        for sentence in caption.sentences:
            tokens += sentence_ids(sentence.text, tokenizer)
            if len(tokens) > length - 1:
                break
            for name in sentence.slots:
                slot = _SLOT_INDEX[name]
                facts.append((row, len(tokens) - 1, slot, SLOTS[slot].words.index(scene[name])))
        tokens = [*tokens[: length - 1], tokenizer.eos_token_id]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        ends.append(len(tokens) - 1)
    return TextBatch(ids, torch.tensor(ends), *torch.tensor(facts).reshape(-1, 4).T)


class CompactVocabulary:
    """The few tokens that the storybook's grammar uses, numbered from 0; every other token shares one number.

    A miniature is trained with an embedding of this size; `expand` spreads it over CLIP's 49,408 rows afterwards.
    """

    # A word drawn at random from the vocabulary turns up once in so many captions, the grammar's own far more often.
    CAPTIONS, MINIMUM = 3000, 30

    def __init__(self, tokenizer: CLIPTokenizer):
        rng = random.Random("compact vocabulary")
        counts: Counter[int] = Counter()
        for _ in range(self.CAPTIONS):
            for sentence in chapter(draw_scene(rng), rng, num_story=8).sentences:
                counts.update(sentence_ids(sentence.text, tokenizer))
        frequent = sorted(token for token, count in counts.items() if count >= self.MINIMUM)
        # bos, eos, then the shared row of all other tokens
        self.own = torch.tensor([*frequent, tokenizer.bos_token_id, tokenizer.eos_token_id])
        self.size = len(self.own) + 1
        self._number = torch.full((len(tokenizer),), self.size - 1)
        self._number[self.own] = torch.arange(len(self.own))

    @property
    def end(self) -> int:
        """The compact number of the end-of-text token."""
        return self.size - 2

    def compact(self, ids: Tensor) -> Tensor:
        """Token ids -> compact numbers, any shape."""
        return self._number[ids]

    def expand(self, embedding: Tensor) -> Tensor:
        """Rows of the compact embedding (size, D) -> rows of CLIP's vocabulary (49408, D)."""
        return embedding[self._number]
