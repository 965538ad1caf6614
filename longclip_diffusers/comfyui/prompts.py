"""A prompt as ComfyUI reads it, weights and embeddings included, in windows that end where a reader would pause.

Core's own parser and tokenizer say what the tokens and their weights are, through the public `clip.tokenize`; where
the windows are cut is `windows.py`'s decision. So LoRA, CLIP skip, embeddings and other packs' CLIPs keep working.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby, pairwise
from typing import Any

from ..errors import ModelError, PromptError
from ..sentences import clause_ends, paragraph_ends, sentence_ends
from ..windows import CUT_FINDERS, Tokens, Window, WindowPlan, split_windows
from .stretching import clip_towers

__all__ = ["BREAK", "Fragment", "Item", "empty_windows", "plan_prompt", "read_fragments"]

BREAK = re.compile(r"\s*\bBREAK\b\s*")  # as in A1111
Item = tuple[Any, float]  # a token's id or an embedding's vector, and its weight
# What each tower reads at one place of the text; towers may have embeddings of other lengths.
Position = dict[str, Item]
Tokenize = Callable[[str], dict[str, list[Item]]]  # a word -> its content in each tower

_FINDERS = {
    "sentence": CUT_FINDERS,
    "paragraph": {"paragraph": paragraph_ends, **CUT_FINDERS},
}
LONGEST_GAP = 32  # characters from the beginning of "embedding:" to its name
_SPACED = re.compile(r"embedding:\s+")
_NAMELESS = re.compile(r"embedding:\s*\Z")
_WORD = re.compile(r"\S*embedding:\s+\S+|\S+")


@dataclass(frozen=True)
class Fragment:
    """Part of a prompt with one weight; the parts of one outermost pair of brackets share the number `bracket`."""

    text: str
    weight: float = 1.0
    bracket: int | None = None


def plan_prompt(clip: Any, text: str, *, split: str, context: str = "none") -> WindowPlan:
    """The windows of a prompt, for the shortest tower; their `ids` are positions (each tower's item) between two `{}`.

    Args:
        split: "sentence" or "paragraph": cut there where one fits, else at a clause, else between words, never inside
            brackets that fit a window, and at each BREAK. "token": cut where core cuts.
        context: "related": as `plan_windows` reads it; not with "token".

    Raises:
        ModelError: the CLIP has no CLIP tower.
        PromptError: `split` or `context` unknown, or "token" with a context.
    """
    if split not in (*_FINDERS, "token") or context not in ("none", "related"):
        raise PromptError(f"split is {split!r}, context {context!r}; see the lists of the node.")
    if split == "token" and context != "none":
        raise PromptError('context="related" reads sentences: choose split="sentence".')
    window = min(map(len, empty_windows(clip).values()))
    tokenize = _word_tokenizer(clip)
    if split == "token":
        windows = _core_windows(clip, text, read_fragments(_fragments(text), tokenize))
    else:
        parts = _at_breaks(_fragments(text))
        read = (read_fragments(part, tokenize, limit=window - 2, finders=_FINDERS[split]) for part in parts)
        windows = [made for tokens in read for made in split_windows(tokens, window - 2, context)]
    return WindowPlan(tuple(windows) or (Window(({}, {}), ""),), window, context)


def empty_windows(clip: Any) -> dict[str, list[Item]]:
    """Each CLIP tower's one window of the empty prompt: BOS, EOS, padding.

    Raises:
        ModelError: the CLIP has no CLIP tower.
    """
    towers = clip_towers(clip)
    if not towers:
        raise ModelError(
            "This CLIP has no CLIP tower (L, G or H), only another kind of text encoder, which reads long texts by "
            "itself. Use CLIP Text Encode with it."
        )
    tokens = clip.tokenize("")
    return {tower: tokens[tower][0] for tower in towers}


def read_fragments(
    fragments: Iterable[Fragment], tokenize: Tokenize, *, limit: int = 0, finders: Any = CUT_FINDERS
) -> Tokens:
    """The fragments' tokens, one position for all towers, and where they may be cut.

    Args:
        tokenize: reads one word, in which brackets are plain text.
        limit: tokens that a window holds: brackets with at most as many are not cut inside.
        finders: kind of cut -> where it is, from the best cut to the worst.
    """
    pieces = [piece for piece in fragments if piece.text]
    text = "".join(piece.text for piece in pieces)
    made = _Made(tokenize)
    # Cuts inside a run without white space: Chinese, dashes.
    cuts = {*sentence_ends(text), *clause_ends(text)}
    inner = sorted(cut for cut in cuts if not _NAMELESS.search(text, max(0, cut - LONGEST_GAP), cut))
    start = 0
    for bracket, group in groupby(pieces, key=lambda piece: piece.bracket):
        first = len(made.positions)
        for piece in group:
            stop = start + len(piece.text)
            for low, high in pairwise([start, *(cut for cut in inner if start < cut < stop), stop]):
                made.add(text[low:high], low, piece.weight)
            start = stop
        if bracket is not None and len(made.positions) - first <= limit:
            made.joined.update(range(first + 1, len(made.positions)))
    return Tokens(text, tuple(made.positions), made.starts, {}, {}, frozenset(made.joined), finders)


@dataclass
class _Made:
    tokenize: Tokenize
    positions: list[Position] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    joined: set[int] = field(default_factory=set)

    def add(self, text: str, offset: int, weight: float) -> None:
        for match in _WORD.finditer(text):
            # Core takes the next word for the name; at the end of a text it fails for want of one.
            items = self.tokenize(_SPACED.sub("embedding:", match[0]).removesuffix("embedding:"))
            length = max(map(len, items.values()), default=0)
            for index in range(length):
                at = {tower: (own[index][0], weight) for tower, own in items.items() if index < len(own)}
                self.positions.append(at)
                # Where in the word a token starts is not told; only cuts between words ask for it exactly.
                self.starts.append(offset + match.start() + min(index, len(match[0]) - 1))


def _word_tokenizer(clip: Any) -> Tokenize:
    towers = clip_towers(clip)

    @cache  # within one call: a chapter repeats its words
    def tokenize(word: str) -> dict[str, list[Item]]:
        windows = clip.tokenize(word.replace("(", "\\(").replace(")", "\\)"), return_word_ids=True)
        # The third entry numbers the words from 1; 0 is BOS, EOS and padding.
        return {
            tower: [(item, weight) for window in windows[tower] for item, weight, word_id in window if word_id]
            for tower in towers
        }

    return tokenize


def _fragments(text: str) -> Iterator[Fragment]:
    from comfy.sd1_clip import escape_important, parse_parentheses, token_weights, unescape_important

    for number, item in enumerate(parse_parentheses(escape_important(text))):
        bracket = number if len(item) > 1 and item[0] == "(" and item[-1] == ")" else None
        for words, weight in token_weights(item, 1.0):
            yield Fragment(unescape_important(words), weight, bracket)


def _at_breaks(fragments: Iterable[Fragment]) -> list[list[Fragment]]:
    parts: list[list[Fragment]] = [[]]
    for fragment in fragments:
        first, *rest = BREAK.split(fragment.text)
        parts[-1].append(Fragment(first, fragment.weight, fragment.bracket))
        parts += [[Fragment(words, fragment.weight, fragment.bracket)] for words in rest]
    return parts


def _core_windows(clip: Any, text: str, tokens: Tokens) -> list[Window]:
    # By the tower with most windows; they differ where an embedding has vectors for one tower only.
    cut = clip.tokenize(text, return_word_ids=True)
    numbered: Sequence[Any] = max((cut[tower] for tower in clip_towers(clip)), key=len)
    windows, start = [], 0
    for number, window in enumerate(numbered, 1):
        last = number == len(numbered)
        stop = len(tokens.ids) if last else start + sum(word_id != 0 for *_, word_id in window)
        if start < stop:
            windows.append(tokens.window(start, stop, "end" if last else "full"))
        start = stop
    return windows
