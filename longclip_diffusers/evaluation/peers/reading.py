"""What of a text reaches the UNet: every row of the conditioning is traced back to a token that the encoder was given.

A hook on the text encoder notes the ids and the states of all forward passes, whoever makes them. A row that a weight
has changed is still nearest to the state it was made of.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase

from ...errors import LongClipError
from ...tokenizer import normalize_text
from ..report import Row
from .pipes import Half, Pipes
from .texts import Text
from .ways import Way, describe_error

__all__ = ["Reading", "read_texts", "reading_rows", "reading_table"]

# Of a row's length. Two readings of one token differ by 1e-6, a weight of 1.1 makes a tenth.
UNALTERED = 1e-3
PENULTIMATE = -2  # of the layers' states: SDXL reads those
WORD_END = "</w>"  # how CLIP's tokens spell it
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")
COUNTS = ("dropped", "added", "altered", "words_cut", "sentences_cut", "rows_apart", "pooled_elsewhere")
SINGULAR = {"words cut": "word cut", "sentences cut": "sentence cut", "rows apart": "row apart"}
BEGINNING = 2  # content tokens by which a text's first window is known: before any sign that a peer takes for syntax


@dataclass(frozen=True)
class Reading:
    """How one way reads one text. With an `error` nothing else is known.

    Where two encoders read it (SDXL) each count is of the one that has more.

    Args:
        tokens: content tokens of the normalised text (a negative that is not empty included).
        dropped: of those, how many no row stands for.
        added: content tokens that rows stand for and the text does not have.
        altered: rows that are not the encoder's state: a weight other than 1 was applied.
        words_cut: words of which a part is read without what stands before it.
        sentences_cut: sentences that are.
        rows_apart: rows whose halves, of two encoders, stand for different tokens.
        pooled_elsewhere: pooled vectors, of the prompt and of a negative that is not empty, that are not of the window
            which begins the text, as stock's is.
    """

    way: str
    text: str
    tokens: int
    dropped: int = 0
    added: int = 0
    altered: int = 0
    words_cut: int = 0
    sentences_cut: int = 0
    rows_apart: int = 0
    pooled_elsewhere: int = 0
    error: str = ""

    def __str__(self) -> str:
        counts = [(getattr(self, name), name.replace("_", " ")) for name in COUNTS]
        found = [f"{count} {name if count > 1 else SINGULAR.get(name, name)}" for count, name in counts if count]
        return self.error or ", ".join(found) or "whole"


@torch.no_grad()
def read_texts(ways: Sequence[Way], pipes: Pipes, texts: Sequence[Text]) -> Iterator[Reading]:
    """A reading for each way and text. The pipelines' tokenizer must be CLIP's; an encoder of random weights will do.

    It should not be one that knows few words: where untrained tokens are one and the same, rows are traced wrongly.
    """
    for way in ways:
        for text in texts:
            yield _read(way, pipes, text)


def reading_rows(readings: Sequence[Reading]) -> list[Row]:
    """A row for each count, `TEXT: dropped`, and for `TEXT: failed`, 0 or 1; n is the text's tokens."""
    rows = []
    for each in readings:
        counts = {"failed": int(bool(each.error))}
        if not each.error:
            counts |= {name: getattr(each, name) for name in COUNTS}
        for name, count in counts.items():
            rows.append(Row(each.way, f"{each.text}: {name}", count, count, count, each.tokens))
    return rows


def reading_table(readings: Sequence[Reading]) -> str:
    """A Markdown table, a text a line, a way a column; the errors in full below it, each once."""
    ways = list(dict.fromkeys(each.way for each in readings))
    errors = list(dict.fromkeys(each.error for each in readings if each.error))
    cells = {
        (each.way, each.text): f"fails ({errors.index(each.error) + 1})" if each.error else str(each)
        for each in readings
    }
    tokens = {each.text: each.tokens for each in readings}
    lines = [["text", "tokens", *ways], ["---"] * (len(ways) + 2)]
    lines += [[text, str(count), *(cells[way, text] for way in ways)] for text, count in tokens.items()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = [f"({number}) {error}" for number, error in enumerate(errors, 1)]
    return "\n".join([table, *(["", *notes] if notes else [])])


def _read(way: Way, pipes: Pipes, text: Text) -> Reading:
    halves = pipes.halves
    sides = [text.prompt, *([text.negative] if text.negative else [])]
    tokens = sum(len(_content_ids(side, halves[0].tokenizer)) for side in sides)
    try:
        encode = way.bind(pipes)
        with _recorded(halves) as passes:
            embeds, negative, *pooled = encode(text.prompt, text.negative)
        if embeds.shape != negative.shape:  # what stock's check_inputs refuses
            raise LongClipError(f"{tuple(embeds.shape)} for the prompt, {tuple(negative.shape)} for the negative")
        if not all(each.isfinite().all() for each in (embeds, negative, *pooled)):
            raise LongClipError("NaN or infinity in the embeddings")
    except Exception as error:  # another project's code: whatever it raises is the finding
        return Reading(way.name, text.name, tokens, error=describe_error(error))
    counts: Counter[str] = Counter()
    for number, side in enumerate(sides):
        counts += _compare_halves(side, (embeds, negative)[number][0], halves, passes)
        if pooled:
            counts["pooled_elsewhere"] += _pools_elsewhere(side, pooled[number][0], halves[-1], passes[-1])
    found: dict[str, Any] = dict(counts)
    return Reading(way.name, text.name, tokens, **found)


@dataclass(frozen=True)
class _Pass:
    """A forward pass of an encoder: ids (W, N), and if asked for, its pipeline's states (W, N, D) and pooled (W, P)."""

    ids: Tensor
    states: Tensor | None
    pooled: Tensor | None


@contextmanager
def _recorded(halves: Sequence[Half]) -> Iterator[list[list[_Pass]]]:
    """The passes of each half's encoders inside the block; copies, as some peers write into them."""
    passes: list[list[_Pass]] = [[] for _ in halves]

    def note(noted: list[_Pass], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        every = output.hidden_states
        states = output.last_hidden_state if len(halves) == 1 else every and every[PENULTIMATE]
        noted.append(_Pass(ids.clone(), _copy(states), _copy(getattr(output, "text_embeds", None))))

    handles = [
        encoder.register_forward_hook(partial(note, noted), with_kwargs=True)
        for half, noted in zip(halves, passes, strict=True)
        for encoder in half.encoders
    ]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _compare_halves(text: str, rows: Tensor, halves: Sequence[Half], passes: Sequence[Sequence[_Pass]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    traces = [
        _trace(part, noted, half.tokenizer)
        for part, noted, half in zip(rows.split([half.width for half in halves], dim=-1), passes, halves, strict=True)
    ]
    for half, trace in zip(halves, traces, strict=True):
        counts |= _compare(_content_ids(text, half.tokenizer), trace, half.tokenizer)
    counts["altered"] = int(torch.stack([trace.altered for trace in traces]).any(dim=0).sum())
    counts["rows_apart"] = sum(len(set(tokens)) > 1 for tokens in zip(*(trace.tokens for trace in traces), strict=True))
    return counts


def _compare(expected: Sequence[int], trace: "_Trace", tokenizer: PreTrainedTokenizerBase) -> Counter[str]:
    content = [index for index, token in enumerate(trace.tokens) if token is not None]
    ids = trace.ids
    reached, told = Counter(ids[index] for index in content), Counter(expected)
    words_cut = sentences_cut = 0
    for number, (index, following) in enumerate(zip(content, [*content[1:], None], strict=False)):
        if following is not None and trace.before[following] == ids[index]:
            continue  # read one behind the other
        words_cut += not str(tokenizer.convert_ids_to_tokens(ids[index])).endswith(WORD_END)
        last = str(tokenizer.decode([ids[each] for each in content[max(0, number - 3) : number + 1]]))
        sentences_cut += following is not None and not SENTENCE_END.search(last.strip())
    return Counter(
        dropped=(told - reached).total(),
        added=(reached - told).total(),
        words_cut=words_cut,
        sentences_cut=sentences_cut,
    )


@dataclass(frozen=True)
class _Trace:
    """For each row: the id it stands for, the id that was read before that one, and whether it was altered."""

    ids: list[int]
    before: list[int]
    altered: Tensor
    special: frozenset[int]

    @property
    def tokens(self) -> list[int | None]:
        """The ids, None for those of start, end and padding."""
        return [None if token in self.special else token for token in self.ids]


def _trace(rows: Tensor, passes: Sequence[_Pass], tokenizer: PreTrainedTokenizerBase) -> _Trace:
    """Of rows (L, D)."""
    known = [(each.ids, each.states) for each in passes if each.states is not None]
    ids = torch.cat([ids.flatten() for ids, _ in known])
    before = torch.cat([ids.roll(1, dims=1).flatten() for ids, _ in known])
    states = torch.cat([states.flatten(0, 1) for _, states in known])
    # By direction, either way round: a weight is a factor first of all, and one below 0 turns the state about.
    nearest = (normalize(rows, dim=-1) @ normalize(states, dim=-1).T).abs().argmax(dim=-1)
    difference = (rows - states[nearest]).norm(dim=-1) / states[nearest].norm(dim=-1)
    return _Trace(ids[nearest].tolist(), before[nearest].tolist(), difference > UNALTERED, _special_ids(tokenizer))


def _pools_elsewhere(text: str, pooled: Tensor, half: Half, passes: Sequence[_Pass]) -> bool:
    """Whether the pooled vector (P) is that of a window which does not begin as the text does."""
    known = [(each.ids, each.pooled) for each in passes if each.pooled is not None]
    windows = [window for ids, _ in known for window in ids.tolist()]
    nearest = (torch.cat([vectors for _, vectors in known]) - pooled).norm(dim=-1).argmin()
    special = _special_ids(half.tokenizer)
    read = [token for token in windows[nearest] if token not in special]
    return read[:BEGINNING] != _content_ids(text, half.tokenizer)[:BEGINNING]


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    return frozenset({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id})


def _content_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    options = {"add_special_tokens": False, "truncation": False, "verbose": False}
    return tokenizer(normalize_text(text), **options)["input_ids"]
