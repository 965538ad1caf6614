"""A scene in words: a short caption, a long one of up to 245 tokens, and a chapter with story in between.

Some facts are told by reference: such a sentence leans on an earlier one, its *antecedent*.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain

from transformers import CLIPTokenizer

from ..positions import CLIP_LENGTH, LONG_LENGTH
from ..tokenizer import load_tokenizer
from .phrases import TRAINING, Phrases
from .scene import Scene
from .slots import OPENING_SLOTS, SLOTS, Slot
from .telling import Draft, Teller

__all__ = [
    "CROWDED",
    "DETAILS",
    "LONGEST",
    "Caption",
    "Sentence",
    "Shares",
    "chapter",
    "compose",
    "fill",
    "finish",
    "long_caption",
    "num_tokens",
    "sentence_ids",
    "short_caption",
]

DETAILS = tuple(slot for slot in SLOTS if slot.name not in OPENING_SLOTS)
LONGEST = LONG_LENGTH - 3  # content tokens of a long caption
CHAPTER_TOKENS = (600, 2000)


@dataclass(frozen=True)
class Shares:
    """How often a detail is told by reference: of those that have a lender of their colour, the share that is told by
    it; of the other coloured ones, the shares told by an owner and by a pronoun."""

    shared: float = 0.5
    owned: float = 0.08
    pronoun: float = 0.08


# Where only one thing is somebody's, a reader gets by without asking whose: with two, every fifth was mixed up.
CROWDED = Shares(shared=0.7, owned=0.45, pronoun=0.3)


@dataclass(frozen=True)
class Sentence:
    """A sentence, the slots it tells (none in a sentence of story), and what it leans on.

    `antecedent` is the index in the caption of the earlier sentence without which this one tells nothing. `subject` is
    the slot that a sentence is about without telling it, or that it refers to; `cue` the beginning of the text up to
    and including the words that name it. `owner` is whom an introduction makes the owner of its subject.
    """

    text: str
    slots: tuple[str, ...] = ()
    antecedent: int | None = None
    subject: str = ""
    cue: str = ""
    owner: str = ""


@dataclass(frozen=True)
class Caption:
    """Sentences in reading order."""

    sentences: tuple[Sentence, ...]

    def __str__(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)


@cache
def _tokenizer() -> CLIPTokenizer:
    return load_tokenizer()


@lru_cache(maxsize=100_000)
def _word_ids(word: str) -> tuple[int, ...]:
    return tuple(_tokenizer()(word, add_special_tokens=False, truncation=False, verbose=False).input_ids)


def sentence_ids(text: str) -> tuple[int, ...]:
    """Content ids of one sentence. CLIP's BPE never crosses a space, so words' ids joined are the sentence's, and
    sentences' the text's; words come again, sentences seldom."""
    return tuple(chain.from_iterable(map(_word_ids, text.split())))


def num_tokens(text: str) -> int:
    """Content tokens of a sentence."""
    return len(sentence_ids(text))


def compose(
    scene: Scene,
    slots: Sequence[Slot],
    rng: random.Random,
    *,
    phrases: Phrases = TRAINING,
    shares: Shares = Shares(),
    gap: Callable[[], int] = lambda: 0,
) -> tuple[Teller, list[list[Draft]]]:
    """The slots in the given order, some by reference, as passages that must not be torn apart.

    Args:
        gap: how many sentences of story stand between a thing and the pronoun that takes it up.
    """
    teller = Teller(scene, rng, phrases)
    passages: list[list[Draft]] = []
    told: dict[str, list[tuple[Draft, Slot]]] = {}  # colour -> who can lend it
    for slot in slots:
        lenders = told.get(scene[slot.name], []) if slot.trait == "colour" else []
        if lenders and rng.random() < shares.shared:
            passages.append([teller.shared(slot, *rng.choice(lenders))])
            continue
        chance = rng.random() if slot.trait == "colour" else 1.0
        if chance < shares.owned and (pair := teller.owned(slot)):
            passages.insert(rng.randint(0, len(passages)), [pair[0]])
            passages.append([pair[1]])
        elif chance < shares.owned + shares.pronoun:
            passages.append(teller.by_pronoun(slot, gap()))
        else:
            fact = teller.direct(slot)
            passages.append([fact])
            if slot.trait == "colour":
                told.setdefault(scene[slot.name], []).append((fact, slot))
    return teller, passages


def finish(drafts: Sequence[Draft]) -> Caption:
    """The sentences in their places."""
    index = {id(draft): number for number, draft in enumerate(drafts)}
    return Caption(
        tuple(
            Sentence(
                draft.text,
                draft.slots,
                None if draft.antecedent is None else index[id(draft.antecedent)],
                draft.subject,
                draft.cue,
                draft.owner,
            )
            for draft in drafts
        )
    )


def fill(passages: Iterable[Sequence[Draft]], room: int) -> Caption:
    """The passages, in their order, that fit `room` content tokens and lean on nothing that was left out."""
    drafts: list[Draft] = []
    for passage in passages:
        length = sum(num_tokens(draft.text) for draft in passage)
        if length <= room and all(draft.antecedent in (None, *drafts, *passage) for draft in passage):
            drafts += passage
            room -= length
    return finish(drafts)


def _shuffled(rng: random.Random) -> list[Slot]:
    return rng.sample(DETAILS, len(DETAILS))


def short_caption(scene: Scene, rng: random.Random, *, phrases: Phrases = TRAINING) -> Caption:
    """The opening and up to four details, each told directly, as many as fit 77 tokens."""
    teller = Teller(scene, rng, phrases)
    details = _shuffled(rng)[: rng.randint(0, 4)]
    return fill([[teller.opening()], *([teller.direct(slot)] for slot in details)], CLIP_LENGTH - 2)


def long_caption(
    scene: Scene, rng: random.Random, *, phrases: Phrases = TRAINING, shares: Shares = Shares()
) -> Caption:
    """The opening, then the other slots in random order, as many as fit 245 tokens: 200 to 245."""
    teller, passages = compose(
        scene, _shuffled(rng), rng, phrases=phrases, shares=shares, gap=lambda: rng.randint(0, 2)
    )
    return fill([[teller.opening()], *passages], LONGEST)


def chapter(
    scene: Scene,
    rng: random.Random,
    *,
    length: int | None = None,
    phrases: Phrases = TRAINING,
    shares: Shares = Shares(),
) -> Caption:
    """All of the scene, with sentences of story strewn among the details until the text has `length` tokens.

    Args:
        length: content tokens, about; 600 to 2,000 if not given.
    """
    length = rng.randint(*CHAPTER_TOKENS) if length is None else length
    teller, passages = compose(
        scene, _shuffled(rng), rng, phrases=phrases, shares=shares, gap=lambda: rng.randint(0, 8)
    )
    drafts = [teller.opening()]
    missing = length - sum(num_tokens(draft.text) for passage in [drafts, *passages] for draft in passage)
    before: list[list[Draft]] = [[] for _ in range(len(passages) + 1)]  # the last: behind all of them
    while missing > 0:
        sentence = teller.story()
        rng.choice(before).append(sentence)
        missing -= num_tokens(sentence.text)
    for story, passage in zip(before, [*passages, []], strict=True):
        drafts += [*story, *passage]
    return finish(drafts)
