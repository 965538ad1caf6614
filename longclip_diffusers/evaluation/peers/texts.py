"""What the ways are asked to read: prose of every length, and prose that some would take for syntax."""

import random
from dataclasses import dataclass

__all__ = ["CHAPTER", "Text", "chapter", "peer_texts"]

CHAPTER = "chapter"
LONG_WORDS = 260  # some 300 tokens, which need four windows of 77
_WHO = ("the ferryman", "an old painter", "Marta", "the keeper of the inn", "a tall stranger", "her brother Jonas")
_WHERE = ("harbour", "orchard", "station", "bridge", "market square", "river bank", "lighthouse", "churchyard")
_THINGS = ("boat", "coat", "lantern", "door", "wagon", "kite", "suitcase", "letter box", "sail", "garden gate")
_COLOURS = ("red", "green", "blue", "white", "yellow", "black", "brown", "silver")
_SENTENCES = (
    "{who} walked slowly along the {where}, carrying a {colour} {thing} under one arm.",
    "Nobody remembered who had first painted the {thing} {colour}.",
    "The wind had turned in the night.",
    "Behind the {where} stood a {thing} as {colour} as the evening sky, and {who} stopped to look at it for a while.",
    "It was very quiet.",
    "{who} said that the {thing} near the {where} belonged to a family that had left the valley many years ago.",
    "When the rain began, the children ran for the {where}, laughing, while the {colour} {thing} stayed where it lay.",
    "A {colour} {thing} hung in the window.",
    "There was a smell of bread and smoke, and from the {where} came the sound of someone who sang without any words.",
    "{who} had never seen a {thing} like this one, and asked twice what it might cost.",
    "In the morning light the {where} looked smaller than before, and the {thing} in front of it was almost {colour}.",
    "Then {who} laughed.",
)


@dataclass(frozen=True)
class Text:
    """A prompt and its negative, both plain prose: no sign in them is meant as syntax."""

    name: str
    prompt: str
    negative: str = ""


def chapter(num_words: int) -> str:
    """Plain English prose of at least `num_words` words, sentences of 3 to 22 words, always the same."""
    rng = random.Random(0)
    sentences: list[str] = []
    total = 0
    while total < num_words:
        chosen = {"who": _WHO, "where": _WHERE, "thing": _THINGS, "colour": _COLOURS}
        words = {name: rng.choice(choices) for name, choices in chosen.items()}
        sentence = rng.choice(_SENTENCES).format(**words)
        sentences.append(sentence[0].upper() + sentence[1:])
        total += len(sentence.split())
    return " ".join(sentences)


def peer_texts(num_words: int = 2000) -> list[Text]:
    """Every text, the chapter with that many words."""
    long = chapter(LONG_WORDS)
    sentence = (
        "Along the quay, past the red boats and the yellow crates, past the old crane that nobody had used since the "
        "war, past the fish market with its wet stones and its grey cats, past the chapel whose bell was cracked, past "
        "three sailors who played cards on a barrel, past a girl with a blue umbrella and a dog on a string, past the "
        "customs house with the broken clock and the flag that had lost its colours, there came, slowly and without a "
        "sound, a white horse that carried a lantern."
    )
    return [
        Text("prose, 300 tokens", long),
        Text(CHAPTER, chapter(num_words)),
        Text("one sentence of 100 tokens", sentence),
        Text("round brackets", "The captain (a tall man, aged 40) smiled. The boat (green) lay at anchor."),
        Text(
            "square brackets", "A page from a diary, the date [12 May] in the corner and a note [see below] beside it."
        ),
        Text("bracket left open", "Three things: 1) a red boat, 2) a lantern, 3) a kite (blue and white."),
        Text(
            "colon in brackets", "A map (scale 1:50) of the harbour (north:up), signed with a smile :) in the corner."
        ),
        Text("C++ and two dashes", "A book on C++ lay beside the clock, a well-known--very well-known--piece of work."),
        Text("quotation marks", 'The sign says "Open", the door says "closed", and a cat sits between them.'),
        Text("curly quotes, apostrophes", "The sign says “Open”, the painter’s door says ‘closed’ … and it’s raining."),
        Text("accents and emoji", "A café in Kraków, naïve paintings of Søren's boat, a 🐈 and a 🚣 on the façade."),
        Text("the word BREAK", "A poster on the wall. It says BREAK in large letters. A boy looks at it."),
        Text("empty", ""),
        Text("long prompt, short negative", long, "blurry, dark"),
        Text("short prompt, long negative", "A red boat.", long),
    ]
