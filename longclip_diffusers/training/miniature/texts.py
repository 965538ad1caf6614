"""Captions as token batches, cut to the encoder's length as Stable Diffusion cuts them, with the facts they tell."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from ...storybook.captions import CROWDED, DETAILS, Caption, Shares, chapter, compose, finish, sentence_ids
from ...storybook.phrases import OWNERS, TRAINING
from ...storybook.scene import Scene, draw_scene
from ...storybook.slots import SLOT_INDEX, SLOTS
from ...storybook.telling import Draft, Teller

__all__ = [
    "CUE",
    "DIRECT",
    "INTRODUCTION",
    "REFERENCE",
    "CompactVocabulary",
    "TextBatch",
    "base_caption",
    "batch_captions",
    "owners_caption",
    "word_indices",
]

STORY_SHARE = 0.15  # passages with a sentence of story before them
OPENING_SHARE = 0.6  # captions that begin with the summary; the others are details alone
MAX_DETAILS = 8  # a detail has about ten tokens: seven or eight and the summary fill 77
MAX_GAP = 3  # sentences of story between a thing and its pronoun
# More references than in the captions of the world: a model this small learns them from nothing else.
SHARES = Shares(shared=0.7, owned=0.12, pronoun=0.15)
CROWDED_SHARE = 0.5  # captions crowded with owners and pronouns
NUM_OWNERS = (2, 4)


def base_caption(scene: Scene, rng: random.Random, *, max_details: int = MAX_DETAILS) -> Caption:
    """What the base model is trained with: maybe the summary, some details in random order, now and then story; every
    second one crowded with owners and pronouns."""
    shares = CROWDED if rng.random() < CROWDED_SHARE else SHARES
    has_opening = rng.random() < OPENING_SHARE
    fewest = 0 if has_opening else 1
    # The larger of two draws: the last positions are as well trained as the first only if most captions reach them.
    num_details = max(rng.randint(fewest, max_details), rng.randint(fewest, max_details))
    slots = rng.sample(DETAILS, num_details)
    teller, passages = compose(scene, slots, rng, shares=shares, gap=lambda: rng.randint(0, MAX_GAP))
    drafts: list[Draft] = [teller.opening()] if has_opening else []
    for passage in passages:
        if rng.random() < STORY_SHARE:
            drafts.append(teller.story())
        drafts += passage
    return finish(drafts)


def owners_caption(scene: Scene, rng: random.Random) -> Caption:
    """Who owns what, of two to four, and then what is theirs, in another order: nothing but telling owners apart."""
    coloured = [slot for slot in DETAILS if slot.trait == "colour"]
    teller = Teller(scene, rng, TRAINING)
    pairs = [pair for slot in rng.sample(coloured, rng.randint(*NUM_OWNERS)) if (pair := teller.owned(slot))]
    introductions, told = zip(*pairs, strict=True)
    return finish([*introductions, *rng.sample(told, len(told))])


# Where in a text something is known: a sentence that tells a slot by itself, the words that name another slot, a
# sentence that tells a slot by reference, a sentence that makes somebody the owner of a slot's thing.
DIRECT, CUE, REFERENCE, INTRODUCTION = range(4)


@dataclass(frozen=True)
class TextBatch:
    """Token ids (B, N) and what is known where: rows (F,), positions (F,), slot indices (F,), word indices (F,) and
    `places` (F,), one of `DIRECT`, `CUE`, `REFERENCE` and `INTRODUCTION`.

    A sentence is known at its last token. A word index of -1: the slot is named there, not told. An introduction's is
    the owner's index in `OWNERS`.
    """

    ids: Tensor
    rows: Tensor
    positions: Tensor
    slots: Tensor
    words: Tensor
    places: Tensor

    def to(self, device: torch.device) -> "TextBatch":
        """The same batch on `device`."""
        return TextBatch(*(getattr(self, field.name).to(device) for field in fields(self)))

    def only(self, chosen: Tensor) -> "TextBatch":
        """The same texts with the chosen facts (F,) alone."""
        kept = (getattr(self, field.name)[chosen] for field in fields(self)[1:])
        return TextBatch(self.ids, *kept)

    def told(self) -> "TextBatch":
        """The same texts with what they tell, by itself or by reference."""
        return self.only((self.places == DIRECT) | (self.places == REFERENCE))


def batch_captions(
    captions: Sequence[Caption], scenes: Sequence[Scene], tokenizer: CLIPTokenizer, *, length: int
) -> TextBatch:
    """Tokenise, cut to `length` with the special tokens and pad; facts that the cut removes are not in the batch."""
    ids = torch.full((len(captions), length), tokenizer.pad_token_id)
    facts: list[tuple[int, ...]] = []
    for row, (caption, scene) in enumerate(zip(captions, scenes, strict=True)):
        tokens = [tokenizer.bos_token_id]
        for sentence in caption.sentences:
            told = []
            if sentence.cue:
                position = len(tokens) + len(sentence_ids(sentence.cue)) - 1
                # The antecedent of a shared colour tells it; that of an owner only introduces the thing.
                known = sentence.antecedent is not None and caption.sentences[sentence.antecedent].slots
                word = scene.index(sentence.subject) if known else -1
                told.append((row, position, SLOT_INDEX[sentence.subject], word, CUE))
            tokens += sentence_ids(sentence.text)
            if sentence.owner:
                owner = OWNERS.index(sentence.owner)
                told.append((row, len(tokens) - 1, SLOT_INDEX[sentence.subject], owner, INTRODUCTION))
            place = DIRECT if sentence.antecedent is None else REFERENCE
            told += [(row, len(tokens) - 1, SLOT_INDEX[name], scene.index(name), place) for name in sentence.slots]
            facts += [fact for fact in told if fact[1] < length - 1]
        tokens = [*tokens[: length - 1], tokenizer.eos_token_id]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return TextBatch(ids, *torch.tensor(facts).reshape(-1, 5).T)


def word_indices(scenes: Sequence[Scene]) -> Tensor:
    """Which word each slot has, (S, slots)."""
    return torch.tensor([[scene.index(slot.name) for slot in SLOTS] for scene in scenes])


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
            for sentence in chapter(draw_scene(rng), rng, length=350).sentences:
                counts.update(sentence_ids(sentence.text))
        frequent = sorted(token for token, count in counts.items() if count >= self.MINIMUM)
        # bos, eos, then the shared row of all other tokens
        self.own = torch.tensor([*frequent, tokenizer.bos_token_id, tokenizer.eos_token_id])
        self.size = len(self.own) + 1
        self._number = torch.full((len(tokenizer),), self.size - 1)
        self._number[self.own] = torch.arange(len(self.own))
        needed = {*OWNERS, "it", "its", ".", "and", *(word for slot in SLOTS for word in (*slot.nouns, *slot.words))}
        needed |= {f"{noun}s" for slot in SLOTS for noun in slot.nouns}
        self._needed = torch.zeros(self.size, dtype=torch.bool)
        self._needed[self._number[[token for text in needed for token in sentence_ids(text)]]] = True
        self._needed[-3:] = True  # start, end, and what is hidden already

    @property
    def end(self) -> int:
        """The compact number of the end-of-text token."""
        return self.size - 2

    def compact(self, ids: Tensor) -> Tensor:
        """Token ids -> compact numbers, any shape."""
        return self._number[ids]

    def blur(self, numbers: Tensor, generator: torch.Generator) -> Tensor:
        """Compact numbers (B, N) in which some words of every second text are any other word's, but none that a fact
        needs: what is left of a sentence must do, as it must where the sentence is of a kind never met before."""
        rates = (torch.rand(len(numbers), 1, generator=generator) - 0.5).clamp(min=0)
        hidden = (torch.rand(numbers.shape, generator=generator) < rates) & ~self._needed[numbers]
        return numbers.masked_fill(hidden, self.size - 1)

    def expand(self, embedding: Tensor) -> Tensor:
        """Rows of the compact embedding (size, D) -> rows of CLIP's vocabulary (49408, D)."""
        return embedding[self._number]
