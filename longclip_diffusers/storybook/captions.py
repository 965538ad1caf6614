"""A scene in words: a short caption, a long caption of 180 to 245 tokens, and a chapter with story in between."""

import random
from dataclasses import dataclass

from .narrative import narrate
from .scene import Scene
from .slots import OPENING_SLOTS, SLOTS, Slot

__all__ = ["Caption", "Sentence", "chapter", "long_caption", "opening", "short_caption"]

OPENINGS = (
    "A picture of a bay under {sky} sky, with {hills} hills, {meadow} meadow and {sea} sea.",
    "The sky is {sky_word} over {hills} hills, {meadow} meadow and {sea} sea.",
    "A quiet day with {sky} sky, {hills} hills, {sea} sea and {meadow} meadow.",
)
PATTERNS = (
    "The {noun} {place} is {word}.",
    "There is {colour} {noun} {place}.",
    "You can see {colour} {noun} {place}.",
    "The colour of the {noun} {place} is {word}.",
    "Look at the {noun} {place}, it is {word}.",
    "Everyone knows the {noun} {place}, which is {word}.",
    "{Place} there is {colour} {noun}.",
)


@dataclass(frozen=True)
class Sentence:
    """A sentence and the slots that it describes (none in a sentence of story)."""

    text: str
    slots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caption:
    """Sentences in reading order."""

    sentences: tuple[Sentence, ...]

    def __str__(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)


def _with_article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def opening(scene: Scene, rng: random.Random) -> Sentence:
    """One sentence that tells sky, hills, meadow and sea."""
    words = {slot: _with_article(scene[slot]) for slot in OPENING_SLOTS if slot != "hills"}
    text = rng.choice(OPENINGS).format(**words, hills=scene["hills"], sky_word=scene["sky"])
    return Sentence(text, OPENING_SLOTS)


def describe(scene: Scene, slot: Slot, rng: random.Random) -> Sentence:
    """One sentence that tells one slot."""
    word = scene[slot.name]
    text = rng.choice(PATTERNS).format(
        noun=rng.choice(slot.nouns),
        place=slot.place,
        Place=slot.place[:1].upper() + slot.place[1:],
        word=word,
        colour=_with_article(word),
    )
    return Sentence(text, (slot.name,))


def _details(scene: Scene, rng: random.Random) -> list[Sentence]:
    details = [describe(scene, slot, rng) for slot in SLOTS if slot.name not in OPENING_SLOTS]
    rng.shuffle(details)
    return details


def short_caption(scene: Scene, rng: random.Random) -> Caption:
    """The opening and up to four details: fits 77 tokens."""
    return Caption((opening(scene, rng), *_details(scene, rng)[: rng.randint(0, 4)]))


def long_caption(scene: Scene, rng: random.Random) -> Caption:
    """The opening, then every other slot in random order: 180 to 245 tokens."""
    return Caption((opening(scene, rng), *_details(scene, rng)))


def chapter(scene: Scene, rng: random.Random, *, num_story: int = 60) -> Caption:
    """A long caption with `num_story` sentences of story strewn among its details (60: about 1,000 tokens)."""
    sentences = _details(scene, rng) + [Sentence(narrate(rng)) for _ in range(num_story)]
    rng.shuffle(sentences)
    return Caption((opening(scene, rng), *sentences))
