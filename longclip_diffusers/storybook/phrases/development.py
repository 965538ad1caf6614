"""Phrases of no training, against which those of training were chosen by what models made of them."""

from ..narrative import DEVELOPMENT_PROSE
from .patterns import Phrases

__all__ = ["DEVELOPMENT"]

DEVELOPMENT = Phrases(
    openings=(
        "This is a bay with {hills} hills, {sky} sky above them, {sea} sea and {meadow} meadow.",
        "Imagine {meadow} meadow and {sea} sea, {hills} hills behind and {sky} sky over all.",
    ),
    direct={
        "colour": (
            "Paint of a strong {word} covers the {noun} {place}.",
            "The {noun} shines {word} in the light.",
            "Somebody painted the {noun} {place} in {word}.",
            "What {a_word} {noun} they have {place}!",
            "The {noun} {place} has always been {word}.",
            "Everyone turns round for the {noun}, so {word} is it.",
            "The {word} thing {place} is the {noun}.",
        ),
        "animal": (
            "{Place} you find {a_word}.",
            "They say the animal is {a_word}.",
            "{A_word} has fallen asleep {place}.",
        ),
        "fruit": (
            "They had filled the basket with {word}.",
            "The basket holds nothing but {word}.",
            "There is a basket, and {word} are in it.",
        ),
        "count": (
            "Today {several} {be} to be seen {place}.",
            "If you look closely, there {be} {several} {place}.",
            "The children counted {several}.",
        ),
        "switch": (
            "They found the {noun} {word}.",
            "That evening the {noun} {place} was {word}.",
            "As always, the {noun} is {word}.",
        ),
    },
    shared=(
        "The {noun} {place} and the {other} have one and the same colour.",
        "The {noun} looks just like the {other} in colour.",
        "The {noun} {place} wears the colour of the {other}.",
        "What was left of the paint for the {other} went on the {noun}.",
        "Somebody has made the {noun} match the {other}.",
    ),
    introductions=(
        "They gave the {noun} {place} to {owner}.",
        "The {noun} {place} is owned by {owner}.",
        "{owner} has a {noun} {place}.",
    ),
    owned=(
        "What is owned by {owner} is {word}.",
        "The thing that belongs to {owner} is {word}.",
        "{owner} made hers {word}.",
    ),
    mentions=(
        "Nobody forgets the {noun} {place}.",
        "You find a {noun} {place}.",
        "They all love the {noun} {place}.",
    ),
    pronouns=(
        "It has always been {word}.",
        "Somebody has made it {word}.",
        "Its paint is {word}.",
    ),
    prose=DEVELOPMENT_PROSE,
)
