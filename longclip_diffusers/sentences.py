"""Where sentences, clauses and words of prose end, as character positions: pure, linear in the text's length."""

import re
from itertools import pairwise

__all__ = ["clause_ends", "paragraph_ends", "sentence_ends", "split_sentences", "word_ends"]

CLOSERS = "\"'”’»)\\]}"
IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff"
# A run of stops is looked at once, from its start (the lookbehind): a million dots cost a million steps, not a square.
STOP = re.compile(
    rf"(?<![.!?…])(?P<stop>[.!?…]+)(?P<closers>[{CLOSERS}]*)(?=\s|$|(?<=[!?])[{IDEOGRAPHS}])"
    rf"|[。！？｡]+[{CLOSERS}」』）】]*"
    r"|\n[^\S\n]*\n"  # an empty line
    r"|\n(?=[^\S\n]*(?:[-*•–—]|\d{1,3}[.)])\s)"  # an item of a list; other single line ends may be wrapped prose
)
CLAUSE = re.compile(rf"[,;:–—…][{CLOSERS}]*(?=\s)|(?<!—)—+(?=\w)|\s[-–—]+(?=\s)|[，；：、]")

# After these a full stop never ends a sentence ...
TITLES = re.compile(
    "mr|mrs|ms|mx|dr|prof|st|mt|rev|gen|col|capt|cpt|lt|sgt|maj|adm|cmdr|gov|sen|messrs|mme|mlle|vs|viz|cf|e[.]g|i[.]e"
)
# ... before a number ...
NUMBERED = re.compile("no|nos|nr|vol|ch|chap|p|pp|fig|figs|sec|pl|op")
# ... before a lower-case word.
SHORTENED = re.compile(
    "etc|approx|dept|est|inc|ltd|co|corp|bros|al|jr|sr|ave|rd|blvd|sq|ft|oz|lb|jan|feb|apr|aug|sept?|oct|nov"
)
DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")  # U.S, p.m
WORD_BEFORE_STOP = re.compile(r"[^\W_][\w.]*$")
LOOK_BACK = 16  # characters before a stop that are looked at; no abbreviation above is longer


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in order, without the white space around them; joined they hold every other character.

    Knows titles (Mr.), numbers (No. 5, 3.5), initials, ellipses, closing quotes and brackets after the stop, "?!",
    empty lines, list items and the full-width stops of Chinese and Japanese. A text in lower case is split too.
    """
    pieces = (text[start:stop].strip() for start, stop in pairwise([0, *sentence_ends(text), len(text)]))
    return [piece for piece in pieces if piece]


def sentence_ends(text: str) -> list[int]:
    """Positions behind each sentence's last character (its closing quote, the empty line after it), ascending."""
    return [match.end() for match in STOP.finditer(text) if match["stop"] is None or _ends(text, match)]


def paragraph_ends(text: str) -> list[int]:
    """Positions behind each run of empty lines, ascending."""
    return [match.end() for match in re.finditer(r"\n[^\S\n]*\n\s*", text)]


def clause_ends(text: str) -> list[int]:
    """Positions behind each comma, semicolon, colon or dash that separates clauses (not 1,000 or 10:30), ascending."""
    return [match.end() for match in CLAUSE.finditer(text)]


def word_ends(text: str) -> list[int]:
    """Positions where white space begins, ascending: an apostrophe, a hyphen or a decimal point ends no word."""
    return [match.start() for match in re.finditer(r"\s+", text)]


def _ends(text: str, match: re.Match[str]) -> bool:
    following = _next_character(text, match.end())
    if match["closers"] or match["stop"].endswith(("..", "…")):
        return not following.islower()  # "Stop!" he said. / He waited... and then it came.
    return match["stop"] != "." or not _is_abbreviation(text, match.start(), following)


def _is_abbreviation(text: str, stop: int, following: str) -> bool:
    found = WORD_BEFORE_STOP.search(text[max(0, stop - LOOK_BACK) : stop])
    if found is None:
        return False
    word, before = found[0], found.string[: found.start()]
    lowered = word.lower()
    if TITLES.fullmatch(lowered) or (len(word) == 1 and word.isupper() and word != "I"):  # J. R. R. Tolkien
        return True
    if word.isdigit():  # the number of a list's item
        at_text_start = stop - len(word) == len(before)
        return before.rstrip(" \t").endswith("\n") or (at_text_start and not before.strip())
    if NUMBERED.fullmatch(lowered):
        return following.isdigit()
    if DOTTED.fullmatch(word):
        return word.isupper() or following.islower()  # U.S. Army; at 5 p.m. the boat left
    return following.islower() and SHORTENED.fullmatch(lowered) is not None


def _next_character(text: str, position: int) -> str:
    while position < len(text) and (text[position].isspace() or text[position] in "\"'“‘«(["):
        position += 1
    return text[position : position + 1]
