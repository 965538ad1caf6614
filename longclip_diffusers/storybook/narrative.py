"""Story between the facts: sentences that describe nothing in the picture, for chapters and for training."""

import random
from functools import cache

from ..tokenizer import load_tokenizer

__all__ = ["narrate"]

NAMES = (
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
)
MOMENTS = (
    "That morning",
    "Before breakfast",
    "A little later",
    "As so often",
    "When the bells rang",
    "In those days",
    "After the rain",
    "On the last day of summer",
)
DEEDS = (
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
)
REMARKS = (
    "Nobody knew how long it would last.",
    "It was the kind of day that one keeps.",
    "There was a smell of salt and warm bread.",
    "Time went slowly, and that was good.",
    "Somewhere a clock struck four.",
    "The news from town could wait until tomorrow.",
    "What happened next was told for many years.",
    "It had rained in the night, but now the air was dry.",
)
TRAILS = (
    "{moment} {name} spoke of {word} and {other}.",
    "{name} had read something about {word}, and about {other} too.",
    "It reminded {name} of {word}.",
)


@cache
def _vocabulary() -> tuple[str, ...]:
    """Ordinary words of CLIP's vocabulary, so that a story may speak of anything."""
    tokens = load_tokenizer().get_vocab()
    words = (token.removesuffix("</w>") for token in tokens if token.endswith("</w>"))
    return tuple(sorted(word for word in words if word.isascii() and word.isalpha() and 3 <= len(word) <= 10))


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def narrate(rng: random.Random) -> str:
    """One sentence of story; every third speaks of random words of the vocabulary."""
    kind = rng.randrange(6)
    name, moment = rng.choice(NAMES), rng.choice(MOMENTS)
    if kind == 0:
        return rng.choice(REMARKS)
    if kind <= 2:
        word, other = rng.sample(_vocabulary(), 2)
        return _capitalised(rng.choice(TRAILS).format(moment=moment, name=name, word=word, other=other))
    if kind == 3:
        return f"{moment} {name} {rng.choice(DEEDS)}."
    return _capitalised(f"{name} {rng.choice(DEEDS)}.")
