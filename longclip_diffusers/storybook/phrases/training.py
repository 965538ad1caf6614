"""The phrases of training."""

from itertools import permutations

from .patterns import Phrases
from .references import REFERENCES
from .voices import VOICES

__all__ = ["TRAINING"]

# Few ways to say a thing.
_FEW = Phrases(
    openings=(
        "A picture of a bay under {sky} sky, with {hills} hills, {meadow} meadow and {sea} sea.",
        "The sky is {sky_word} over {hills} hills, {meadow} meadow and {sea} sea.",
        "A quiet day with {sky} sky, {hills} hills, {sea} sea and {meadow} meadow.",
        "Here is {sea} sea below {hills} hills, {meadow} meadow and {sky} sky.",
    ),
    direct={
        "colour": (
            "The {noun} {place} is {word}.",
            "The {noun} is {word}.",
            "There is {a_word} {noun} {place}.",
            "There is {a_word} {noun}.",
            "You can see {a_word} {noun} {place}.",
            "The colour of the {noun} {place} is {word}.",
            "Look at the {noun} {place}, it is {word}.",
            "Everyone knows the {noun}, which is {word}.",
            "{Place} there is {a_word} {noun}.",
            "They painted the {noun} {word}.",
            "{A_word} {noun} waits {place}.",
            "How {word} the {noun} {place} looks!",
            "The {noun} {place} was {word} even then.",
            "Somebody has made the {noun} {word}.",
            "Nobody could miss the {noun}: it is {word}.",
            "{Word} is the colour of the {noun} {place}.",
        ),
        "animal": (
            "{A_word} sits {place}.",
            "There is {a_word} {place}.",
            "The animal {place} is {a_word}.",
            "You can see {a_word} {place}.",
            "The {word} has been waiting for hours.",
            "The animal is {a_word}.",
            "{Place} there is {a_word}.",
        ),
        "fruit": (
            "The basket is full of {word}.",
            "There are {word} in the basket.",
            "Somebody has brought {word} in a basket.",
            "In the basket there are {word}.",
            "You can see {word} in the basket.",
            "The basket has {word} in it.",
        ),
        "count": (
            "There {be} {several} {place}.",
            "You can see {several} {place}.",
            "{Place} there {be} {several}.",
            "Look, {several} {place}.",
            "They counted {several} {place}.",
            "{Several} can be seen.",
        ),
        "switch": (
            "The {noun} {place} is {word}.",
            "The {noun} is {word}.",
            "You can see that the {noun} is {word}.",
            "Everyone knows the {noun} is {word}.",
            "The {noun} {place} was {word} all day.",
            "Look at the {noun}, it is {word}.",
        ),
    },
    shared=(
        "The {noun} {place} has the same colour as the {other}.",
        "The {noun} has the colour of the {other}.",
        "The colour of the {noun} is that of the {other}.",
        "There is a {noun} {place} in the colour of the {other}.",
        "The {noun} {place} matches the {other}.",
        "Look at the {noun}, it was painted like the {other}.",
        "They painted the {noun} in the same colour as the {other}.",
        "Like the {other}, so the {noun} {place} was painted.",
        "The paint of the {other} is on the {noun} too.",
        "The {noun} is like the {other}.",
    ),
    introductions=(
        "The {noun} {place} belongs to {owner}.",
        "{owner} owns the {noun} {place}.",
        "The {noun} was a present for {owner}.",
        "There is a {noun} that belongs to {owner}.",
        "Everyone knows the {noun} of {owner}.",
    ),
    owned=(
        "What belongs to {owner} is {word}.",
        "What {owner} owns is {word}.",
        "The one that {owner} has is {word}.",
        "{owner} has painted hers {word}.",
        "{Word} is what {owner} has.",
    ),
    mentions=(
        "Look at the {noun} {place}.",
        "There is a {noun} {place}.",
        "You can see the {noun} {place}.",
        "Everyone knows the {noun} {place}.",
        "{Place} there is a {noun}.",
    ),
    pronouns=(
        "It is {word}.",
        "It was painted {word}.",
        "Its colour is {word}.",
        "It was {word} even then.",
        "How {word} it looks!",
    ),
)
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
    return tuple(pattern[:1].upper() + pattern[1:] for pattern in (*patterns, *led))


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
# Then some five hundred ways: a reader that knows a few by heart does not understand a new one.
_MORE = Phrases(
    openings=tuple(frame.format(*order) for frame in _FRAMES for order in permutations(_SUMMARY)),
    direct=_FEW.direct
    | {
        "colour": _FEW.direct["colour"]
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
    shared=_FEW.shared
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
    introductions=_FEW.introductions
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
    owned=_FEW.owned
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
    mentions=_FEW.mentions
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
    pronouns=_FEW.pronouns
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
    return tuple(pattern[:1].upper() + pattern[1:] for pattern in found)


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
# Then as many again and more, each in several surroundings.
_MANY = Phrases(
    openings=_MORE.openings,
    direct={
        "colour": _MORE.direct["colour"]
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
        "animal": _MORE.direct["animal"]
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
        "fruit": _MORE.direct["fruit"]
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
        "count": _MORE.direct["count"]
        + _varied(
            "there {be} {several} to be counted {place}.",
            "{several} in all {place}.",
            "the number is {several}.",
            "somebody drew {several} {place}.",
            "the picture has {several}.",
            "with {several} {place} the view is complete.",
            "whoever counts finds {several}.",
        ),
        "switch": _MORE.direct["switch"]
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
    shared=_MORE.shared
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
    introductions=_MORE.introductions
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
    owned=_MORE.owned
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
    mentions=_MORE.mentions
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
    pronouns=_MORE.pronouns
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
# Then those of writers who knew none of the others: first three, then two more for references alone. All that is
# fine-tuned hears these.
TRAINING = _MANY + VOICES + REFERENCES
