"""Story between the facts: sentences that describe nothing in the picture, for chapters and for training."""

import random
from dataclasses import dataclass, fields
from functools import cache

from ..tokenizer import load_tokenizer

__all__ = ["DEVELOPMENT_PROSE", "TRAINING_PROSE", "UNSEEN_PROSE", "Prose", "capitalised", "narrate", "ordinary_word"]


@dataclass(frozen=True)
class Prose:
    """What sentences of story are made of."""

    names: tuple[str, ...]
    moments: tuple[str, ...]
    deeds: tuple[str, ...]
    remarks: tuple[str, ...]
    trails: tuple[str, ...]

    def __add__(self, other: "Prose") -> "Prose":
        """What both are made of."""
        return Prose(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


TRAINING_PROSE = Prose(
    names=(
        "Mara",
        "Tom",
        "Old Ines",
        "the postman",
        "her brother",
        "the captain",
        "Jonas",
        "my aunt",
        "the twins",
        "Nell",
    ),
    moments=(
        "That morning",
        "Before breakfast",
        "A little later",
        "As so often",
        "When the bells rang",
        "In those days",
        "After the rain",
        "On the last day of summer",
    ),
    deeds=(
        "had walked for hours without meeting anybody",
        "told a story that nobody quite believed",
        "counted the steps and lost count again",
        "was late, and did not mind at all",
        "had forgotten the letter in a coat pocket",
        "wanted to stay for one more week",
        "listened to the wind and said nothing",
        "asked for bread, cheese and a glass of milk",
        "remembered how quiet it used to be here",
        "slept badly and woke before anyone else",
        "wrote everything down in a small notebook",
        "laughed until the others laughed as well",
        "would not say where the key was hidden",
        "had been here once before, long ago",
    ),
    remarks=(
        "Nobody knew how long it would last.",
        "It was the kind of day that one keeps.",
        "There was a smell of salt and warm bread.",
        "Time went slowly, and that was good.",
        "Somewhere a clock struck four.",
        "The news from town could wait until tomorrow.",
        "What happened next was told for many years.",
        "It had rained in the night, but now the air was dry.",
    ),
    trails=(
        "{moment} {name} spoke of {word} and {other}.",
        "{name} had read something about {word}, and about {other} too.",
        "It reminded {name} of {word}.",
    ),
)
# Of no training, like the phrases that each goes with.
DEVELOPMENT_PROSE = Prose(
    names=("Leo", "Aunt Vera", "the baker", "her sister", "Otto", "the ferryman", "Ruth", "my cousin"),
    moments=("Towards evening", "Soon after that", "On market days", "Once, in winter", "While they waited"),
    deeds=(
        "had brought nothing but an umbrella",
        "read the same page for the third time",
        "sang under his breath and stopped at once",
        "could not find the second shoe",
        "wanted to know what all the noise was about",
        "thought of the long road back to town",
        "made tea for everybody and drank it alone",
        "promised to come again before the year was out",
        "did not believe a word and stayed to hear more",
    ),
    remarks=(
        "Someone was always knocking at the wrong moment.",
        "Far off a train went by, as trains do.",
        "They agreed about that, if about nothing else.",
        "The afternoon had no intention of ending.",
        "One could hear plates, voices and a piano.",
        "That was the whole secret, or most of it.",
    ),
    trails=(
        "{moment} {name} asked what {word} had to do with {other}.",
        "{name} once knew all about {word}.",
        "There was talk of {word}, then of {other}.",
    ),
)
UNSEEN_PROSE = Prose(
    names=("Pia", "Uncle Georg", "the gardener", "his daughter", "Walter", "the teacher", "Lotte", "our neighbour"),
    moments=("Around noon", "The next day", "Late that autumn", "At closing time", "One foggy night"),
    deeds=(
        "missed the last bus by a minute",
        "folded the map the wrong way again",
        "whistled a tune from the old days",
        "knew the answer and kept quiet",
        "lent a pencil to a complete stranger",
        "waited for a call that never came",
        "swept the stairs twice for good luck",
        "fell asleep over the crossword",
        "had nothing to add to the matter",
    ),
    remarks=(
        "Plans had changed, as plans will.",
        "Few people came this way any more.",
        "Everything took longer than anyone expected.",
        "An old song played on the radio.",
        "The best part was still to come.",
        "Silence can be pleasant company.",
    ),
    trails=(
        "{moment} {name} looked up {word} and {other} in the dictionary.",
        "Neither {word} nor {other} meant anything to {name}.",
        "{name} wrote {word} on a slip of paper.",
    ),
)


@cache
def _vocabulary() -> tuple[str, ...]:
    """Ordinary words of CLIP's vocabulary, so that a story may speak of anything."""
    tokens = load_tokenizer().get_vocab()
    words = (token.removesuffix("</w>") for token in tokens if token.endswith("</w>"))
    return tuple(sorted(word for word in words if word.isascii() and word.isalpha() and 3 <= len(word) <= 10))


def capitalised(text: str) -> str:
    """With a capital at the beginning; `str.capitalize` would make all other letters small."""
    return text[:1].upper() + text[1:]


def ordinary_word(rng: random.Random) -> str:
    """Any word of CLIP's vocabulary that has only letters."""
    return rng.choice(_vocabulary())


def narrate(rng: random.Random, prose: Prose = TRAINING_PROSE) -> str:
    """One sentence of story; every third speaks of random words of the vocabulary."""
    kind = rng.randrange(6)
    name, moment = rng.choice(prose.names), rng.choice(prose.moments)
    if kind == 0:
        return rng.choice(prose.remarks)
    if kind <= 2:
        word, other = rng.sample(_vocabulary(), 2)
        return capitalised(rng.choice(prose.trails).format(moment=moment, name=name, word=word, other=other))
    if kind == 3:
        return f"{moment} {name} {rng.choice(prose.deeds)}."
    return capitalised(f"{name} {rng.choice(prose.deeds)}.")
