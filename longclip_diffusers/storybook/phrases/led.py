"""Some five hundred ways: a reader that knows a few by heart does not understand a new one."""

from itertools import permutations

from ..narrative import capitalised
from .patterns import Phrases
from .plain import PLAIN

__all__ = ["LED"]

# Said before a sentence, or not.
LEADS = (
    "as you see, ",
    "everyone knows that ",
    "they say that ",
    "by the way, ",
    "it seems that ",
    "of course ",
    "from here you see how ",
)


def _with_leads(*patterns: str) -> tuple[str, ...]:
    """Every pattern by itself and behind one of the leads; what begins a sentence is capitalised when it is filled."""
    led = (LEADS[number % len(LEADS)] + pattern for number, pattern in enumerate(patterns))
    return tuple(capitalised(pattern) for pattern in (*patterns, *led))


_SUMMARY = ("{sky} sky", "{hills} hills", "{meadow} meadow", "{sea} sea")
_FRAMES = (
    "A picture of a bay under {}, with {}, {} and {}.",
    "A quiet day with {}, {}, {} and {}.",
    "Here is {} with {}, {} and {}.",
    "You can see {} and {}, {} and {}.",
    "In this picture there is {}, {}, {} and also {}.",
    "There is {} near {}, and behind {} there is {}.",
    "A bay: {} over {}, {} below {}.",
)
_RELATIONS = (
    "has the same colour as",
    "has the colour of",
    "matches",
    "is like",
    "was painted like",
    "shares its colour with",
    "goes with",
    "is of one colour with",
    "was painted to match",
    "comes in the colour of",
    "repeats the colour of",
    "took its colour from",
    "was given the colour of",
    "is coloured like",
    "is no different in colour from",
    "got the paint of",
    "looks the same as",
    "is the colour of",
)
LED = Phrases(
    openings=tuple(frame.format(*order) for frame in _FRAMES for order in permutations(_SUMMARY)),
    direct=PLAIN.direct
    | {
        "colour": PLAIN.direct["colour"]
        + _with_leads(
            "the {noun} {place} has a {word} coat of paint.",
            "the {noun} looks {word} from everywhere.",
            "one of the first things is the {noun}, all in {word}.",
            "the {word} of the {noun} {place} is famous.",
            "they wanted the {noun} to be {word}.",
            "the {word} {noun} {place} is new.",
            "the {noun} comes in {word}.",
            "a {noun} painted {word} can be seen {place}.",
        ),
    },
    shared=PLAIN.shared
    + _with_leads(
        *(f"the {{noun}} {relation} the {{other}}." for relation in _RELATIONS),
        *(f"the {{noun}} {{place}} {relation} the {{other}}." for relation in _RELATIONS[::2]),
        "the {other} lends its colour to the {noun} {place}.",
        "the colour of the {other} returns on the {noun}.",
        "the {other} and the {noun} {place} match.",
        "the {noun} and the {other} are of one colour.",
        "the {other} has a twin in colour: the {noun} {place}.",
        "one paint was used for the {other} and the {noun}.",
        "they painted the {other} and then the {noun} with the same brush.",
        "there was paint left from the {other}, so they painted the {noun}.",
        "between the {other} and the {noun} there is no difference in colour.",
        "somebody has painted the {noun} like the {other}.",
        "they gave the {noun} {place} the colour of the {other}.",
        "you can see the colour of the {other} on the {noun} again.",
        "the colour that the {noun} {place} has is the one of the {other}.",
        "as the {other} is, so is the {noun}.",
    ),
    introductions=PLAIN.introductions
    + _with_leads(
        "{owner} is the owner of the {noun} {place}.",
        "the {noun} {place} is for {owner}.",
        "the {noun} was made by {owner}.",
        "{owner} once bought the {noun} {place}.",
        "the {noun} came to {owner} by post.",
        "that is the {noun} of {owner}.",
        "{owner} keeps the {noun} {place}.",
        "{owner} got the {noun} from the captain.",
        "the {noun} {place} is a work of {owner}.",
        "you may ask {owner} about the {noun}.",
    ),
    owned=PLAIN.owned
    + _with_leads(
        "the own one of {owner} is {word}.",
        "{owner} wanted it in {word}, and so it is.",
        "the colour that {owner} chose is {word}.",
        "{owner} keeps it {word}.",
        "{word}, that is what {owner} wanted.",
        "only {owner} would paint it {word}.",
        "what {owner} got is {word}.",
        "{owner} painted it {word}.",
        "it was {owner} who made it {word}.",
        "{owner} is proud that it is {word}.",
    ),
    mentions=PLAIN.mentions
    + _with_leads(
        "they talked about the {noun} {place}.",
        "here is the {noun} {place}.",
        "not far off is the {noun}.",
        "then there is the {noun} {place}.",
        "have a look at the {noun} {place}.",
        "here you have the {noun}.",
        "one thing is the {noun} {place}.",
        "the {noun} {place} is worth a look.",
        "children come to see the {noun}.",
    ),
    pronouns=PLAIN.pronouns
    + _with_leads(
        "it is quite {word}.",
        "it looks {word}.",
        "it is painted {word}.",
        "the colour of it is {word}.",
        "{word} is its colour.",
        "they painted it {word}.",
        "it came in {word}.",
        "it had to be {word}.",
        "they keep it {word}.",
        "it turned out {word}.",
        "its coat is {word}.",
    ),
)
