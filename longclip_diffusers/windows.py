"""Text of any length -> windows of token ids, cut where a reader would pause; nothing is dropped, and a report says so.

The whole text is tokenised once; every window is a slice of those ids. So the windows' own tokens, joined, are the
text's tokens whatever the cuts, and a text that fits one window has the ids a stock pipeline gives it.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from .context import related_sentences
from .errors import ModelError, PromptError
from .passages import Passage
from .positions import LONG_LENGTH
from .sentences import clause_ends, sentence_ends, word_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["CUT_FINDERS", "Context", "Tokens", "Window", "WindowPlan", "plan_windows", "split_windows"]

Context = Literal["none", "related"]  # what `context` can be; a str elsewhere, since it also comes from files
Cut = Literal["paragraph", "sentence", "clause", "word", "token", "full", "end"]
CUT_WORDS: dict[Cut, str] = {
    "paragraph": "cut at an empty line",
    "sentence": "cut at a sentence end",
    "clause": "cut at a clause end, the sentence is longer than a window",
    "word": "cut between words, no clause end near",
    "token": "cut INSIDE A WORD that is longer than a window",
    "full": "cut where the window is full",
    "end": "the text ends",
}
# Where a text may be cut, from the best place to the worst.
CUT_FINDERS: dict[Cut, Callable[[str], Iterable[int]]] = {
    "sentence": sentence_ends,
    "clause": clause_ends,
    "word": word_ends,
}
# With context="related" a window's own part is one sentence, or several that together hold at most this share of a
# window: they are too short to need a forward pass each (9 tokens of 77, 31 of 248).
SHORT_SHARE = 8


@dataclass(frozen=True)
class Window:
    """One forward pass of the encoder: `ids` are BOS, `num_context` context tokens, the window's own tokens, EOS.

    `text` is the own part in words, `cut` where it ends, `context` the earlier passages it is read behind. `pieces`
    are the same tokens in shorter windows, where the window is longer than the piece that `plan_windows` was given.
    `weights` are those of the own tokens, none where all are 1; `share` is the weight of the window as a whole.
    """

    ids: tuple[Any, ...]
    text: str
    num_context: int = 0
    cut: Cut = "end"
    context: tuple[str, ...] = ()
    pieces: tuple["Window", ...] = ()
    weights: tuple[float, ...] = ()
    share: float = 1.0

    @property
    def own_ids(self) -> tuple[Any, ...]:
        """The content tokens that this window, and no other, brings to the conditioning."""
        return self.ids[1 + self.num_context : -1]


@dataclass(frozen=True)
class WindowPlan:
    """The windows of one text, in order; `window` is the row limit of each, BOS and EOS included. `str()` reports.

    `syntax` says what weights do (see `encode_plans`). A prompt that is a blend of several readings has a plan for
    each: this one, and those in `blended`, which have none themselves. `share` is what each brings to the sum.
    """

    windows: tuple[Window, ...]
    window: int
    context: str = "none"
    syntax: str = "plain"
    share: float = 1.0
    blended: tuple["WindowPlan", ...] = ()

    @property
    def readings(self) -> tuple["WindowPlan", ...]:
        """The plans whose rows add up to the prompt's; mostly this one alone."""
        return (self, *self.blended)

    @property
    def num_tokens(self) -> int:
        """Content tokens of the whole text, each counted once."""
        return sum(len(window.own_ids) for plan in self.readings for window in plan.windows)

    def __str__(self) -> str:
        return "\n".join(line for plan in self.readings for line in plan._lines(blend=bool(self.blended)))

    def _lines(self, *, blend: bool) -> Iterator[str]:
        share = f"{self.share:.3g} of: " if blend or self.share != 1 else ""
        num_tokens = sum(len(window.own_ids) for window in self.windows)
        windows = _count(len(self.windows), "window")
        yield f"{share}{_count(num_tokens, 'token')} in {windows} of at most {self.window - 2}"
        for number, window in enumerate(self.windows, 1):
            yield from _describe(number, window)


def plan_windows(
    text: str | Sequence[str | Passage],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    window: int = LONG_LENGTH,
    context: str = "none",
    piece: int | None = None,
) -> WindowPlan:
    """The windows of a text: each content token of the normalised text in exactly one window's own part, in order.

    A window ends at the last sentence end that fits; a sentence longer than a window is cut at its last clause end in
    the window's second half, else between words. Only a word longer than a window is cut inside. A textual-inversion
    group (`<cat> <cat>_1 <cat>_2`, as diffusers' `maybe_convert_prompt` writes it) is one word.

    Args:
        text: a prompt; or a list, each text of which starts a new window (empty ones are left out). A text may be a
            `Passage`, whose weights the windows then have.
        tokenizer: CLIP's, with any tokens added to it.
        window: rows of a window, BOS and EOS included; at least 3.
        context: "related" reads sentences behind the earlier ones they need (`context.py`). The first window is filled
            as with "none", since the encoder is causal and reads its sentences behind one another anyway; each later
            one holds one sentence, or several very short ones. A text that fits one window is one window.
        piece: rows, at least 3, that an encoder reads which is shorter than `window`: the windows' `pieces` are cut by
            the same rules. Not with context: there an encoder's rows do not depend on where its windows are cut.

    Raises:
        PromptError: `text` is no str or an empty list, `window` or `piece` below 3, `context` unknown or
            beside a piece.
        ModelError: the tokenizer is not of CLIP's kind.
    """
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, list | tuple) or not texts:
        raise PromptError(f"A prompt is a str, or a non-empty list of them, not {text!r:.60} ({type(text).__name__}).")
    for name, rows in (("window", window), ("piece", window if piece is None else piece)):
        if rows < 3:
            raise PromptError(f"{name} is {rows}; it holds BOS, EOS and at least one token, so give 3 or more.")
    if context not in get_args(Context):
        raise PromptError(f"context is {context!r}; it can be {' or '.join(map(repr, get_args(Context)))}.")
    if not getattr(tokenizer, "is_fast", False) or tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise ModelError(f"{type(tokenizer).__name__} is no CLIPTokenizer with BOS and EOS; see load_tokenizer.")
    if piece is not None and context != "none":
        raise PromptError(f"piece is {piece}, which goes with context='none' only; give it as the window.")
    passages = [part if isinstance(part, Passage) else Passage(((part, 1.0),)) for part in texts]
    parts = [_read(passage, tokenizer) for passage in passages]
    if context == "none":
        windows = [made for part in parts for made in _plain_windows(part, window - 2, piece)]
    else:
        windows = [made for part in parts for made in _context_windows(part, window - 2)]
    empty = Window((tokenizer.bos_token_id, tokenizer.eos_token_id), "")
    return WindowPlan(tuple(windows) or (empty,), window, context)


def split_windows(tokens: "Tokens", limit: int, context: str = "none") -> list[Window]:
    """The windows of `limit` content tokens, at most, that hold the tokens; cut as `plan_windows` says."""
    return _plain_windows(tokens, limit, None) if context == "none" else _context_windows(tokens, limit)


@dataclass(frozen=True)
class Tokens:
    """A text, its content tokens (ids, or whatever stands for them), the character each starts at, BOS and EOS.

    `joined` are the positions before which no cut may be, inside a textual inversion; `finders` as `CUT_FINDERS`;
    `weights` of the tokens, and the text's `share`, as a `Window` has them.
    """

    text: str
    ids: tuple[Any, ...]
    starts: list[int]
    bos: Any
    eos: Any
    joined: frozenset[int] = frozenset()
    finders: Mapping[Cut, Callable[[str], Iterable[int]]] = field(default_factory=lambda: CUT_FINDERS)
    weights: tuple[float, ...] = ()
    share: float = 1.0

    @cached_property
    def ends(self) -> dict[Cut, list[int]]:
        """Token positions at which a sentence, a clause, a word ends, ascending; none that is joined."""
        return {kind: self._positions(find(self.text)) for kind, find in self.finders.items()}

    def _positions(self, characters: Iterable[int]) -> list[int]:
        positions = (bisect_left(self.starts, character) for character in characters)
        return [position for position in positions if position not in self.joined]

    def words(self, start: int, stop: int) -> str:
        """The text of the tokens start:stop."""
        behind = self.starts[stop] if stop < len(self.starts) else len(self.text)
        return self.text[self.starts[start] : behind].strip()

    def window(self, start: int, stop: int, cut: Cut, context: Sequence[tuple[int, int]] = ()) -> Window:
        """The window that holds the tokens start:stop behind the given earlier spans."""
        before = tuple(token for first, last in context for token in self.ids[first:last])
        weights = self.weights[start:stop]
        return Window(
            (self.bos, *before, *self.ids[start:stop], self.eos),
            self.words(start, stop),
            len(before),
            cut,
            tuple(self.words(*span) for span in context),
            weights=weights if any(weight != 1 for weight in weights) else (),
            share=self.share,
        )


def _read(passage: Passage, tokenizer: "PreTrainedTokenizerBase") -> Tokens:
    weighted = passage.read()
    encoded = tokenizer(
        weighted.text, add_special_tokens=False, truncation=False, verbose=False, return_offsets_mapping=True
    )  # verbose: transformers warns of text beyond model_max_length, which is what windows are for
    offsets = encoded["offset_mapping"]
    ids = tuple(encoded["input_ids"])
    return Tokens(
        weighted.text,
        ids,
        [start for start, _ in offsets],
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        _joined(ids, _inversion_groups(tokenizer.get_added_vocab())),
        weights=weighted.weights_of(offsets),
        share=passage.share,
    )


def _joined(ids: Sequence[int], groups: dict[int, int]) -> frozenset[int]:
    if not groups:
        return frozenset()
    return frozenset(index for index in range(1, len(ids)) if groups.get(ids[index]) == ids[index - 1])


def _inversion_groups(added: dict[str, int]) -> dict[int, int]:
    # Id of a vector -> id of the one before it; diffusers names those of one embedding <x>, <x>_1, <x>_2 ...
    groups = {}
    for name, token in added.items():
        if match := re.fullmatch(r"(.+)_([1-9]\d*)", name, re.DOTALL):
            number = int(match[2])
            before = added.get(match[1] if number == 1 else f"{match[1]}_{number - 1}")
            if before is not None:
                groups[token] = before
    return groups


def _plain_windows(tokens: Tokens, limit: int, piece: int | None) -> list[Window]:
    windows = []
    for start, stop, cut in _cuts(tokens, 0, len(tokens.ids), limit):
        window = tokens.window(start, stop, cut)
        if piece is not None and stop - start > piece - 2:
            pieces = tuple(tokens.window(*each) for each in _cuts(tokens, start, stop, piece - 2))
            window = replace(window, pieces=pieces)
        windows.append(window)
    return windows


def _cuts(tokens: Tokens, start: int, end: int, limit: int) -> Iterator[tuple[int, int, Cut]]:
    # The tokens start:end in spans of at most `limit`, and where each span is cut.
    while start < end:
        stop, cut = _next_cut(tokens, start, end, limit)
        yield start, stop, cut
        start = stop


def _next_cut(tokens: Tokens, start: int, end: int, limit: int) -> tuple[int, Cut]:
    reach = start + limit
    if reach >= end:
        return end, "end"
    for cut, ends in tokens.ends.items():
        # A clause end in the first half would leave a window half empty: then rather between two words.
        floor = start + limit // 2 if cut == "clause" else start
        last = bisect_right(ends, reach) - 1
        if last >= 0 and ends[last] > floor:
            return ends[last], cut
    stop = reach
    while stop > start and stop in tokens.joined:
        stop -= 1
    return stop if stop > start else reach, "token"


def _context_windows(tokens: Tokens, limit: int) -> list[Window]:
    sentences = _sentence_spans(tokens, limit)
    lengths = [stop - start for start, stop, _ in sentences]
    groups = _group_sentences(lengths, limit)
    texts = [tokens.words(start, stop) for start, stop, _ in sentences]
    contexts = related_sentences(texts, lengths, groups, limit=limit)
    windows = []
    for (first, behind), context in zip(groups, contexts, strict=True):
        (start, _, _), (_, stop, cut) = sentences[first], sentences[behind - 1]
        windows.append(tokens.window(start, stop, cut, _join([sentences[index][:2] for index in context])))
    return windows


def _join(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    # Neighbouring sentences are one passage.
    passages: list[tuple[int, int]] = []
    for start, stop in spans:
        if passages and passages[-1][1] == start:
            passages[-1] = (passages[-1][0], stop)
        else:
            passages.append((start, stop))
    return passages


def _sentence_spans(tokens: Tokens, limit: int) -> list[tuple[int, int, Cut]]:
    # A sentence longer than a window becomes pieces of half a window, so that each can be read behind the one before.
    spans: list[tuple[int, int, Cut]] = []
    start = 0
    for end in sorted({*tokens.ends["sentence"], len(tokens.ids)} - {0}):
        longest = limit if end - start <= limit else max(1, limit // 2)
        while end - start > longest:
            stop, cut = _next_cut(tokens, start, end, longest)
            spans.append((start, stop, cut))
            start = stop
        spans.append((start, end, "end" if end == len(tokens.ids) else "sentence"))
        start = end
    return spans


def _group_sentences(lengths: Sequence[int], limit: int) -> list[tuple[int, int]]:
    # The first group fills its window, later ones hold one sentence or several short ones.
    groups, first, room = [], 0, limit
    while first < len(lengths):
        behind, total = first + 1, lengths[first]
        while behind < len(lengths) and total + lengths[behind] <= room:
            total += lengths[behind]
            behind += 1
        groups.append((first, behind))
        first, room = behind, (limit + 2) // SHORT_SHARE
    return groups


def _describe(number: int, window: Window) -> list[str]:
    behind = f" behind {window.num_context} of context" if window.num_context else ""
    size = f"{_count(len(window.own_ids), 'token')}{behind}{_weights(window)}"
    line = f"window {number}: {size}; {CUT_WORDS[window.cut]}: {_shorten(window.text, 72)}"
    return [line, *(f"    read behind: {_shorten(passage, 72)}" for passage in window.context)]


def _weights(window: Window) -> str:
    changed = [weight for weight in window.weights if weight != 1]
    bounds = " to ".join(f"{weight:.3g}" for weight in sorted({min(changed), max(changed)})) if changed else ""
    tokens = f", {len(changed)} weighted {bounds}" if changed else ""
    return tokens + (f", the whole weighted {window.share:.3g}" if window.share != 1 else "")


def _shorten(text: str, width: int) -> str:
    # Both ends of a long text: where a window begins and where it is cut. Its middle is not looked at.
    half = width // 2
    if len(text) > width:
        return f'"{" ".join(text[:half].split())} ... {" ".join(text[-half:].split())}"'
    return f'"{" ".join(text.split())}"'


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
