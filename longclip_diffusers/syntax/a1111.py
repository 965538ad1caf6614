r"""The syntax of A1111's web UI: (x), [x], (x:1.3), escapes, BREAK. Stricter than it: what it misreads is refused."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..passages import Passage
from .complaint import syntax_error

__all__ = ["parse_a1111"]

STEP = 1.1  # what a round bracket without a number weighs, and a square one divides by
MARK = re.compile(r"\\[\\()\[\]]|[()\[\]]|\bBREAK\b|<(?:lora|lyco|hypernet):")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
# Behind a bracket's last colon these stand for a number, right or wrong; ": a word" and "a:b c" are prose.
MEANT_AS_NUMBER = re.compile(r"\s*(?:[-+.\d]\S*)?\s*|\S+\s*")
CLOSERS = {")": "(", "]": "["}


def parse_a1111(text: str) -> tuple[Passage, ...]:
    """The passages between BREAKs, in order; at least one, and only a prompt without BREAK may be empty.

    Raises:
        PromptSyntaxError: a bracket without its partner, without text, or with a weight that is no number; a schedule,
            an alternation or a LoRA's name; a BREAK with nothing before or behind it.
    """
    marks = list(MARK.finditer(text))
    brackets = {bracket.start: bracket for bracket in _brackets(text, marks)}
    closings = {bracket.close: bracket for bracket in brackets.values()}
    passages: list[Passage] = []
    fragments: list[tuple[str, float]] = []
    weights = [1.0]
    at = 0
    last_break = None
    for mark in [*marks, None]:
        place = len(text) if mark is None else mark.start()
        closed = closings.get(place)
        fragments.append((text[at : closed.end if closed else place], weights[-1]))
        if mark is None:
            break
        if mark[0] == "BREAK":
            passages.append(_passage(fragments, text, mark, "before"))
            fragments, last_break = [], mark
        elif opened := brackets.get(place):
            weights.append(_product(weights[-1], opened, text))
        elif closed:
            weights.pop()
        else:
            fragments.append((mark[0][1:], weights[-1]))
        at = mark.end()
    passages.append(_passage(fragments, text, last_break, "behind"))
    return tuple(passages)


@dataclass(frozen=True)
class _Bracket:
    """A pair at the characters start and close; its text ends at `end`, before a weight that is written out."""

    start: int
    end: int
    close: int
    weight: float


def _brackets(text: str, marks: list[re.Match[str]]) -> Iterator[_Bracket]:
    open_marks: list[re.Match[str]] = []
    before = 0
    for mark in marks:
        kind, place = mark[0], mark.start()
        if open_marks and open_marks[-1][0] == "[" and (bar := text.find("|", before, place)) >= 0:
            raise syntax_error("Alternation, [a|b], is not read. Write \\[ and \\] where it is text.", text, bar)
        if kind.startswith("<"):
            raise syntax_error("A prompt loads no LoRA: call pipe.load_lora_weights() and take this out.", text, place)
        if kind in CLOSERS.values():
            open_marks.append(mark)
        elif kind in CLOSERS:
            if not open_marks or open_marks[-1][0] != CLOSERS[kind]:
                expected = "closes nothing" if not open_marks else f"does not close {open_marks[-1][0]}"
                raise syntax_error(f"This {kind} {expected}. Write \\{kind} where it is text.", text, place)
            yield _bracket(text, open_marks.pop().start(), before, place)
        before = mark.end()
    if open_marks:
        kind = open_marks[-1][0]
        raise syntax_error(
            f"This {kind} is never closed. Write \\{kind} where it is text.", text, open_marks[-1].start()
        )


def _bracket(text: str, start: int, last: int, close: int) -> _Bracket:
    # `last`: where the plain text before the closing bracket begins.
    colon = text.rfind(":", max(last, start + 1), close)
    number = text[colon + 1 : close] if colon >= 0 else ""
    end, weight = close, STEP if text[start] == "(" else 1 / STEP
    if colon >= 0 and NUMBER.fullmatch(number.strip()):
        if text[start] == "[":
            raise syntax_error("A schedule, [a:b:0.5], is not read; a weight is written (x:0.5).", text, colon)
        end, weight = colon, float(number)
    elif colon >= 0 and text[start] == "(" and MEANT_AS_NUMBER.fullmatch(number):
        raise syntax_error(
            f"The weight {number.strip()!r} is no number. Write (x:1.3), or \\( and \\) where the bracket is text.",
            text,
            colon + 1,
        )
    if not text[start + 1 : end].strip():
        raise syntax_error("There is nothing in this bracket. Write \\( or \\[ where it is text.", text, start)
    return _Bracket(start, end, close, weight)


def _product(outer: float, bracket: _Bracket, text: str) -> float:
    weight = outer * bracket.weight
    if not math.isfinite(weight):
        raise syntax_error(
            "The weights of this bracket and those around it have no finite product.", text, bracket.start
        )
    return weight


def _passage(fragments: list[tuple[str, float]], text: str, at_break: re.Match[str] | None, side: str) -> Passage:
    if at_break and not any(words.strip() for words, _ in fragments):
        raise syntax_error(
            f"There is no text {side} this BREAK. Take it out, or write text there.", text, at_break.start()
        )
    return Passage(tuple((words, weight) for words, weight in fragments if words))
