"""What of a text reaches the UNet: every row of the conditioning is traced back to a token that the encoder was given.

A hook on the text encoder notes the ids and the states of all forward passes, whoever makes them. A row that a weight
has changed is still nearest to the state it was made of.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase

from ...errors import LongClipError
from ...tokenizer import normalize_text
from ..report import Row
from .pipes import Pipes
from .texts import Text
from .ways import Way, describe_error

__all__ = ["Reading", "read_texts", "reading_rows", "reading_table"]

# Of a row's length. Two readings of one token differ by 1e-6, a weight of 1.1 makes a tenth.
UNALTERED = 1e-3
WORD_END = "</w>"  # how CLIP's tokens spell it
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")
COUNTS = ("dropped", "added", "altered", "words_cut", "sentences_cut")


@dataclass(frozen=True)
class Reading:
    """How one way reads one text. With an `error` nothing else is known.

    Args:
        tokens: content tokens of the normalised text (a negative that is not empty included).
        dropped: of those, how many no row stands for.
        added: content tokens that rows stand for and the text does not have.
        altered: rows that are not the encoder's state: a weight other than 1 was applied.
        words_cut: words of which a part is read without what stands before it.
        sentences_cut: sentences that are.
    """

    way: str
    text: str
    tokens: int
    dropped: int = 0
    added: int = 0
    altered: int = 0
    words_cut: int = 0
    sentences_cut: int = 0
    error: str = ""

    def __str__(self) -> str:
        counts = [(getattr(self, name), name.replace("_", " ")) for name in COUNTS]
        found = [f"{count} {name if count > 1 else name.replace('s cut', ' cut')}" for count, name in counts if count]
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
    tokenizer = pipes.stock.tokenizer
    expected = {side: _content_ids(side, tokenizer) for side in (text.prompt, text.negative) if side}
    tokens = sum(map(len, expected.values()))
    try:
        encode = way.bind(pipes)
        with _recorded(pipes) as passes:
            embeds, negative = encode(text.prompt, text.negative)
        if embeds.shape != negative.shape:  # what stock's check_inputs refuses
            raise LongClipError(f"{tuple(embeds.shape)} for the prompt, {tuple(negative.shape)} for the negative")
        if not (embeds.isfinite().all() and negative.isfinite().all()):
            raise LongClipError("NaN or infinity in the embeddings")
    except Exception as error:  # another project's code: whatever it raises is the finding
        return Reading(way.name, text.name, tokens, error=describe_error(error))
    sides = [(text.prompt, embeds), *([(text.negative, negative)] if text.negative else [])]
    compared = (Counter(_compare(expected.get(side, []), rows[0], passes, tokenizer)) for side, rows in sides)
    counts: dict[str, Any] = sum(compared, Counter())
    return Reading(way.name, text.name, tokens, **counts)


@contextmanager
def _recorded(pipes: Pipes) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """(ids (W, N), states (W, N, D)) of every forward pass inside the block; copies, as some peers write into them."""
    passes: list[tuple[Tensor, Tensor]] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        passes.append((ids.clone(), output[0].clone()))

    encoders = (pipes.stock.text_encoder, pipes.long.text_encoder)
    handles = [encoder.register_forward_hook(note, with_kwargs=True) for encoder in encoders]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _compare(
    expected: Sequence[int], rows: Tensor, passes: Sequence[tuple[Tensor, Tensor]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, int]:
    ids, before, altered = _trace(rows, passes)
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    content = [index for index, token in enumerate(ids) if token not in special]
    reached, told = Counter(ids[index] for index in content), Counter(expected)
    words_cut = sentences_cut = 0
    for number, (index, following) in enumerate(zip(content, [*content[1:], None], strict=False)):
        if following is not None and before[following] == ids[index]:
            continue  # read one behind the other
        words_cut += not str(tokenizer.convert_ids_to_tokens(ids[index])).endswith(WORD_END)
        last = str(tokenizer.decode([ids[each] for each in content[max(0, number - 3) : number + 1]]))
        sentences_cut += following is not None and not SENTENCE_END.search(last.strip())
    return {
        "dropped": (told - reached).total(),
        "added": (reached - told).total(),
        "altered": int(altered.sum()),
        "words_cut": words_cut,
        "sentences_cut": sentences_cut,
    }


def _trace(rows: Tensor, passes: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[int], list[int], Tensor]:
    """For each row (L, D): the id it stands for, the id that was read before that one, and whether it was altered."""
    ids = torch.cat([each.flatten() for each, _ in passes])
    before = torch.cat([each.roll(1, dims=1).flatten() for each, _ in passes])
    states = torch.cat([each.flatten(0, 1) for _, each in passes])
    # By direction, either way round: a weight is a factor first of all, and one below 0 turns the state about.
    nearest = (normalize(rows, dim=-1) @ normalize(states, dim=-1).T).abs().argmax(dim=-1)
    difference = (rows - states[nearest]).norm(dim=-1) / states[nearest].norm(dim=-1)
    return ids[nearest].tolist(), before[nearest].tolist(), difference > UNALTERED


def _content_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    options = {"add_special_tokens": False, "truncation": False, "verbose": False}
    return tokenizer(normalize_text(text), **options)["input_ids"]
