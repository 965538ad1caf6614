"""Detail recall: the share of what a text tells that its picture shows, by where in the text and how it is told.

Texts are put in phrases that no training uses. What a picture shows comes from `storybook.checker`, or, as a dict of
the same kind, from whatever else reads slots.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..errors import LongClipError
from ..positions import CLIP_LENGTH, LONG_LENGTH
from ..storybook.captions import Caption, chapter, long_caption, num_tokens, short_caption
from ..storybook.phrases import UNSEEN
from ..storybook.scene import Scene, draw_scene
from ..storybook.slots import OPENING_SLOTS
from .metrics import bootstrap_interval
from .report import Row, bare_table, table

__all__ = [
    "CHANCE",
    "COLUMNS",
    "DRIFT",
    "Fact",
    "Kind",
    "check_kinds",
    "describe_scenes",
    "detail_tables",
    "drift_row",
    "recall_rows",
    "score",
    "summary_table",
]

Kind = Literal["long", "chapter", "short"]
TELL: dict[Kind, Callable[..., Caption]] = {"long": long_caption, "chapter": chapter, "short": short_caption}
CHANCE = "chance"
DRIFT = "short_drift"
# Content tokens that one window holds, BOS and EOS left out: 75 and 246.
WINDOW, LONG_WINDOW = CLIP_LENGTH - 2, LONG_LENGTH - 2
# What columns are called where all of them stand side by side.
SHORT_NAMES = {
    "near_reference": "near ref.",
    "far_reference": "far ref.",
    **{f"chapter_{number}": f"ch. {number}" for number in (1, 2, 3, 4)},
    "chapter_reference": "ref.",
    DRIFT: "drift",
}


@dataclass(frozen=True)
class Fact:
    """A slot, outside the opening, that the text of scene number `scene` tells, and whether it was found.

    Args:
        kind: of the text.
        position: of the last token of the sentence that tells it, in the whole text, BOS = 0.
        quarter: of the text's tokens in which that token is, 1 to 4.
        distance: None where it is told directly. Of a reference the tokens from the first one of the antecedent's
            sentence to `position`, both counted: what a window must hold to know what is meant.
        shown: the true word was found.
        by_chance: the next scene's word was found.
    """

    scene: int
    slot: str
    kind: Kind
    position: int
    quarter: int = 1
    distance: int | None = None
    shown: bool = False
    by_chance: bool = False


def _direct(first: int = 0, last: int | None = None) -> Callable[[Fact], bool]:
    return lambda fact: fact.distance is None and first <= fact.position and (last is None or fact.position < last)


def _quarter(number: int) -> Callable[[Fact], bool]:
    return lambda fact: fact.distance is None and fact.quarter == number


def _reference(shortest: int, longest: int | None = None) -> Callable[[Fact], bool]:
    return lambda fact: (
        fact.distance is not None and shortest <= fact.distance and (longest is None or fact.distance <= longest)
    )


# The kind of text a column is about, and which of its facts count: details told directly by position or by quarter;
# references that one 77-row window can hold with their antecedent (near) or cannot (far, which therefore also stand
# behind the first 77 tokens), and in chapters those that no 248-row window can.
COLUMNS: dict[str, tuple[Kind, Callable[[Fact], bool]]] = {
    "0-77": ("long", _direct(0, 77)),
    "77-150": ("long", _direct(77, 150)),
    "150-248": ("long", _direct(150, LONG_LENGTH)),
    "near_reference": ("long", _reference(0, WINDOW)),
    "far_reference": ("long", _reference(WINDOW + 1)),
    **{f"chapter_{number}": ("chapter", _quarter(number)) for number in range(1, 5)},
    "chapter_reference": ("chapter", _reference(LONG_WINDOW + 1)),
    "short": ("short", _direct()),
}


def describe_scenes(num_scenes: int, *, seed: int, kind: Kind = "long") -> list[tuple[Scene, Caption]]:
    """Scenes with their texts: the same scenes for every kind, which no training draws, in phrases that none uses.

    Raises:
        LongClipError: fewer than two scenes, or an unknown kind.
    """
    if num_scenes < 2:
        raise LongClipError(f"num_scenes is {num_scenes}; chance is measured against another scene, so give 2 or more.")
    check_kinds([kind])
    pairs = []
    for index in range(num_scenes):
        scene = draw_scene(random.Random(f"{seed}/evaluation/{index}"))
        pairs.append((scene, TELL[kind](scene, random.Random(f"{seed}/evaluation/{index}/{kind}"), phrases=UNSEEN)))
    return pairs


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise LongClipError unless there are kinds and all are known."""
    if unknown := sorted({*kinds} - {*get_args(Kind)}) or [""] * (not kinds):
        raise LongClipError(f"There is no kind of text {unknown[0]!r}; choose from {', '.join(get_args(Kind))}.")


def score(
    pairs: Sequence[tuple[Scene, Caption]], found: Sequence[Mapping[str, str]], *, kind: Kind = "long"
) -> list[Fact]:
    """Every slot that the texts tell outside the opening, looked up in what was found; by chance in the next scene.

    Args:
        pairs: from `describe_scenes`, of this kind.
        found: the word of every slot by its name, for each scene, as `read_picture` gives it.
    """
    facts = []
    for index, ((scene, caption), words) in enumerate(zip(pairs, found, strict=True)):
        other = pairs[(index + 1) % len(pairs)][0]
        for slot, position, quarter, distance in _told(caption):
            shown, by_chance = words[slot] == scene[slot], words[slot] == other[slot]
            facts.append(Fact(index, slot, kind, position, quarter, distance, shown, by_chance))
    return facts


def _told(caption: Caption) -> Iterator[tuple[str, int, int, int | None]]:
    """Slot, position, quarter and distance of each fact, as `Fact` has them."""
    ends = np.cumsum([num_tokens(sentence.text) for sentence in caption.sentences]).tolist()
    for sentence, end in zip(caption.sentences, ends, strict=True):
        antecedent = sentence.antecedent
        before = None if antecedent is None else ends[antecedent - 1] if antecedent else 0
        for slot in sentence.slots:
            if slot not in OPENING_SLOTS:
                yield slot, end, 1 + 4 * (end - 1) // ends[-1], None if before is None else end - before


def recall_rows(encoder: str, facts: Sequence[Fact], *, chance: bool = False) -> list[Row]:
    """A row for each of `COLUMNS` that has facts, in order, with an interval resampled over scenes.

    Args:
        facts: of any kinds, and of several runs on the same scenes, if there are several.
    """
    rows = []
    for column, (kind, counts) in COLUMNS.items():
        inside = [fact for fact in facts if fact.kind == kind and counts(fact)]
        if inside:
            hits = [fact.by_chance if chance else fact.shown for fact in inside]
            rows.append(_row(encoder, column, [fact.scene for fact in inside], hits))
    return rows


def drift_row(encoder: str, scenes: Sequence[int], drifts: Sequence[float]) -> Row:
    """The column `DRIFT`: by how much short prompts' pictures differ from the stock encoder's of the same noise.

    Args:
        drifts: mean absolute difference of a picture's pixels, 0 to 255, one for each of `scenes`.
    """
    return _row(encoder, DRIFT, scenes, drifts)


def _row(encoder: str, column: str, scenes: Sequence[int], values: Sequence[float]) -> Row:
    return Row(encoder, column, float(np.mean(values)), *bootstrap_interval(scenes, values), len(values))


def detail_tables(rows: Sequence[Row]) -> str:
    """A Markdown table for each kind of text, encoders down, so that none is wider than a page."""
    kinds = {**{column: kind for column, (kind, _) in COLUMNS.items()}, DRIFT: "short"}
    parts = [[row for row in rows if kinds[row.column] == kind] for kind in get_args(Kind)]
    return "\n\n".join(table(part) for part in parts if part)


def summary_table(rows: Sequence[Row]) -> str:
    """One Markdown table of all columns, without intervals and counts."""
    order = [*COLUMNS, DRIFT]
    return bare_table(sorted(rows, key=lambda row: order.index(row.column)), names=SHORT_NAMES, others=[DRIFT])
