"""As many again and more, each in several surroundings."""

from ..narrative import capitalised
from .led import LED
from .patterns import Phrases

__all__ = ["VARIED"]

# Said before a sentence or behind it, or neither.
MORE_LEADS = (
    "I remember that ",
    "the children say that ",
    "above all, ",
    "since last year ",
    "on a closer look ",
    "if you ask me, ",
    "the postman told us that ",
    "as in the old days, ",
    "on this day ",
    "it is true that ",
    "you will notice that ",
)
TAILS = (
    ", as always",
    " these days",
    ", they say",
    " after all",
    ", so I was told",
    " for everyone to see",
    " in this light",
    ", and that is that",
    ", if you look twice",
    " since the summer",
    ", as in the story",
)


def _varied(*patterns: str) -> tuple[str, ...]:
    """Every pattern by itself, behind two leads and before a tail; a sentence's first letter becomes a capital."""
    found = list(patterns)
    for number, pattern in enumerate(patterns):
        found += [MORE_LEADS[place % len(MORE_LEADS)] + pattern for place in (number, 5 * number + 7)]
        found.append(f"{pattern[:-1]}{TAILS[number % len(TAILS)]}{pattern[-1]}")
    return tuple(capitalised(pattern) for pattern in found)


_MORE_RELATIONS = (
    "is the same as",
    "agrees with",
    "is painted as",
    "equals in colour",
    "is a match for",
    "looks just like",
    "answers",
    "follows",
    "is done in the manner of",
    "is in tune with",
    "wears what is worn by",
    "wears the colour of",
    "is dressed like",
    "has been made to resemble",
    "resembles",
    "copies",
    "is a copy of",
    "imitates",
    "was dyed like",
    "could be a sister of",
    "is kin in colour to",
    "does as",
    "has borrowed from",
    "inherited the paint of",
    "was dipped in the same pot as",
    "takes after",
    "corresponds to",
    "makes a pair with",
    "is one with",
    "belongs in colour to",
    "is not to be told in colour from",
    "keeps to the colour of",
    "was finished with the paint of",
    "reminds everyone of",
    "stands in the same paint as",
    "was done over like",
    "is as colourful as",
    "holds the same hue as",
    "is tinted like",
    "was washed in the colour of",
    "picks up",
    "mirrors",
)
VARIED = Phrases(
    openings=LED.openings,
    direct={
        "colour": LED.direct["colour"]
        + _varied(
            "a fine {word} is on the {noun}.",
            "the {noun} {place} shines {word}.",
            "{word} paint covers the {noun} {place}.",
            "there stands out a {noun} in {word}.",
            "the {noun}, {word} as ever, catches the eye.",
            "for the {noun} {place} somebody chose {word}.",
            "the {noun} has turned {word}.",
            "what a {word} {noun}!",
            "the {noun} {place} could not be more {word}.",
            "the {word} {noun} has its own charm.",
            "nothing else is as {word} as the {noun}.",
        ),
        "animal": LED.direct["animal"]
        + _varied(
            "{a_word} rests {place}.",
            "a visitor is here: {a_word}.",
            "it is {a_word} that keeps watch {place}.",
            "one {word} looks at you {place}.",
            "the animal turned out to be {a_word}.",
            "{a_word} is the only animal {place}.",
            "for an animal they have {a_word}.",
            "the {word} sleeps {place}.",
        ),
        "fruit": LED.direct["fruit"]
        + _varied(
            "the basket holds {word}.",
            "they filled the basket with {word}.",
            "{word} lie in the basket.",
            "a basket of {word} stands ready.",
            "what the basket contains is {word}.",
            "into the basket they put {word}.",
            "somebody picked {word} for the basket.",
            "the {word} in the basket smell sweet.",
        ),
        "count": LED.direct["count"]
        + _varied(
            "there {be} {several} to be counted {place}.",
            "{several} in all {place}.",
            "the number is {several}.",
            "somebody drew {several} {place}.",
            "the picture has {several}.",
            "with {several} {place} the view is complete.",
            "whoever counts finds {several}.",
        ),
        "switch": LED.direct["switch"]
        + _varied(
            "they left the {noun} {word}.",
            "the {noun} {place} stays {word}.",
            "at this hour the {noun} is {word}.",
            "somebody found the {noun} {word}.",
            "{word}, that is the {noun} {place}.",
            "the {noun} {place} seems to be {word}.",
            "as for the {noun}, it is {word}.",
        ),
    },
    shared=LED.shared
    + _varied(
        *(f"the {{noun}} {relation} the {{other}}." for relation in _MORE_RELATIONS),
        *(f"the {{noun}} {{place}} {relation} the {{other}}." for relation in _MORE_RELATIONS[::2]),
        "what the {other} has in colour, the {noun} {place} has too.",
        "take the {other}, and you know the {noun}.",
        "the {noun}, the {other}: one and the same paint.",
        "whoever chose for the {other} chose for the {noun} {place} too.",
        "both the {noun} and the {other} were done at once.",
        "for the {noun} they mixed again what was on the {other}.",
        "the {other} set the tone for the {noun} {place}.",
        "neither the {noun} nor the {other} differs from its neighbour.",
        "the {noun} {place} had to look as the {other} did.",
        "hold the {noun} next to the {other} and they are the same.",
        "the painter went from the {other} straight to the {noun}.",
        "in the {noun} you find the {other} once more.",
        "the {other} gave the {noun} {place} its colour.",
        "to the {noun} went the paint of the {other}.",
        "the brush that did the {other} did the {noun} {place} as well.",
        "the {noun} is a second {other} as far as paint goes.",
        "if you know how the {other} looks, you know how the {noun} {place} looks.",
        "a {noun} like the {other} can be seen {place}.",
        "they could not tell the {noun} from the {other} by its colour.",
        "the {other}, and with it the {noun} {place}, has one colour.",
        "the {noun} was planned as a partner for the {other}.",
        "not only the {other} has this colour, the {noun} {place} has it too.",
        "the same goes for the {noun} as for the {other}.",
    ),
    introductions=LED.introductions
    + _varied(
        "nobody but {owner} may touch the {noun}.",
        "the {noun} {place} bears the name of {owner}.",
        "the {noun} went to {owner} in the end.",
        "{owner} looks after the {noun} {place}.",
        "without {owner} there would be no {noun}.",
        "{owner} found the {noun} {place} long ago.",
        "it was {owner} who brought the {noun}.",
        "the {noun} has been with {owner} for years.",
        "{owner} won the {noun} in a bet.",
        "the {noun} {place} and {owner} cannot be parted.",
        "for {owner} there is nothing like the {noun}.",
        "the {noun} {place} is what {owner} is fond of.",
        "{owner} inherited the {noun}.",
        "to {owner} the {noun} {place} means everything.",
    ),
    owned=LED.owned
    + _varied(
        "for {owner} it had to be {word}.",
        "{owner} decided on {word}.",
        "{word} is how {owner} likes it.",
        "the choice of {owner} fell on {word}.",
        "what {owner} looks after is {word}.",
        "the thing that {owner} loves is {word}.",
        "{owner} would have nothing but {word}.",
        "thanks to {owner} it is {word}.",
        "{owner} asked for {word} paint.",
        "with {owner} everything has to be {word}.",
        "in the hands of {owner} it became {word}.",
        "ask {owner} and you hear that it is {word}.",
        "the property of {owner} shines {word}.",
        "whatever {owner} has is {word}.",
        "{owner} calls it the {word} one.",
    ),
    mentions=LED.mentions
    + _varied(
        "now to the {noun} {place}.",
        "the {noun} deserves a word.",
        "next comes the {noun} {place}.",
        "what about the {noun}?",
        "some have come for the {noun} {place}.",
        "the {noun} must not be left out.",
        "as for the {noun} {place}, nobody knows its age.",
        "visitors like the {noun}.",
        "your eye falls on the {noun} {place}.",
        "in the end they showed us the {noun}.",
        "a {noun} stands out {place}.",
        "somebody pointed at the {noun} {place}.",
    ),
    pronouns=LED.pronouns
    + _varied(
        "it shines {word}.",
        "it could not be more {word}.",
        "it is {word} all over.",
        "they wanted it {word}.",
        "{word}, that is how it looks.",
        "it has gone {word}.",
        "nobody could miss it: it is {word}.",
        "it stands there in {word}.",
        "what a {word} it has!",
        "it was left {word}.",
        "you would call it {word}.",
        "for it they chose {word}.",
    ),
)
