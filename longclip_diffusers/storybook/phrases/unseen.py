"""The phrases that the proof is measured with: of no training, and written without a look at any measurement.

Blind: neither chosen nor changed by what any model makes of them. Keep it so, or write a new set.
"""

from ..narrative import UNSEEN_PROSE
from .patterns import Phrases

__all__ = ["UNSEEN"]

UNSEEN = Phrases(
    openings=(
        "Below {sky} sky lie {hills} hills, {meadow} meadow and {sea} sea.",
        "The painting shows {sea} sea, {meadow} meadow and {hills} hills under {sky} sky.",
        "Our view takes in {hills} hills, {sea} sea, {meadow} meadow and {sky} sky.",
        "Somewhere {meadow} meadow meets {sea} sea, with {hills} hills beneath {sky} sky.",
    ),
    direct={
        "colour": (
            "Here the {noun} {place} appears in {word}.",
            "{A_word} {noun} catches the eye.",
            "The painter chose {word} for the {noun} {place}.",
            "Bright {word} gives the {noun} {place} its charm.",
            "Notice how {word} the {noun} {place} is.",
            "With its {word} colour, the {noun} stands out.",
            "We admired the {word} {noun} {place}.",
            "Only {word} paint was ever used on the {noun}.",
            "My eye fell on the {noun}, a splendid {word} one.",
            "The {noun} {place} could hardly be more {word}.",
        ),
        "animal": (
            "{A_word} keeps watch {place}.",
            "The creature {place} turns out to be {a_word}.",
            "Nobody disturbs the {word} {place}.",
            "Look for the animal and you will find {a_word}.",
        ),
        "fruit": (
            "The basket was packed with {word}.",
            "{Word} fill the basket to the brim.",
            "A basket of {word} stands ready for the guests.",
            "Someone put {word} into the basket.",
        ),
        "count": (
            "The painter put {several} {place}.",
            "{Place}, {several} {be} visible.",
            "Whoever counts finds {several} {place}.",
            "In this scene {several} {be} shown {place}.",
        ),
        "switch": (
            "At this hour the {noun} {place} is {word}.",
            "We could tell that the {noun} {place} was {word}.",
            "The {noun}, as one can see, is {word}.",
            "Somebody left the {noun} {place} {word}.",
        ),
    },
    shared=(
        "The {noun} borrows its colour from the {other}.",
        "The painter used the {other}'s paint again for the {noun}.",
        "By colour alone, the {other} and the {noun} cannot be told apart.",
        "You will find the {other}'s colour on the {noun} as well.",
        "The {other} and the {noun} {place} are painted alike.",
        "Compare the {noun} with the {other}: their colours are identical.",
        "The colour chosen for the {other} was kept for the {noun}.",
        "In colour, the {noun} {place} equals the {other}.",
    ),
    introductions=(
        "{owner}'s name is written on the {noun} {place}.",
        "The {noun} {place} became {owner}'s last year.",
        "Somebody bought the {noun} as a gift for {owner}.",
        "Please be careful with {owner}'s {noun}.",
    ),
    owned=(
        "{owner}'s is the {word} one.",
        "Anything of {owner}'s is sure to be {word}.",
        "The property of {owner} has {a_word} colour.",
        "You can tell {owner}'s at once: it is {word}.",
    ),
    mentions=(
        "Our attention turns to the {noun} {place}.",
        "Now consider the {noun} {place}.",
        "Many visitors ask about the {noun} {place}.",
        "Let me tell you about the {noun}.",
    ),
    pronouns=(
        "Its colour happens to be {word}.",
        "Its shade is a clear {word}.",
        "People always describe it as {word}.",
        "It glows {word} in the sun.",
        "The painter gave it {a_word} colour.",
    ),
    prose=UNSEEN_PROSE,
)
