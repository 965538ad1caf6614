"""Which earlier sentences a sentence should be read behind, found in the text alone.

A sentence may lean on one far back ("the door has the colour of the roof"). What it needs is found by the rare words
that both share; the sentences just before it fill the room that is left.
"""

import re
from collections.abc import Iterator, Sequence

__all__ = ["related_sentences"]

# The three numbers below: shared words, two or three sentences back, were what a reader of 22-slot captions needed; a
# word that more than a twentieth of a long text's sentences hold says where nothing is.
MAX_RELATED = 3
ALWAYS_RARE = 3
RARE_SHARE = 20
# Caps the work on a very long text: each sentence meets at most this many others by each of its words.
NEVER_RARE = 32


def related_sentences(
    sentences: Sequence[str], lengths: Sequence[int], spans: Sequence[tuple[int, int]], *, limit: int
) -> list[tuple[int, ...]]:
    """For each span of sentences the earlier ones it should be read behind: indices below its start, ascending.

    First up to three that share the span's rare words (a word held by n sentences weighs 1/n; equals: the nearer),
    then those just before the span, as long as all fit with the span itself. A word is rare that at most 3 sentences
    hold, or a twentieth of them, but never more than 32; so the work grows with the text's length, not its square.

    Args:
        sentences: all of the text's, in order.
        lengths: tokens in each.
        spans: (start, stop) indices into `sentences`, ascending; the sentences that one window holds as its own.
        limit: content tokens a window holds, own and context.
    """
    words = [_words(sentence) for sentence in sentences]
    holders: dict[str, list[int]] = {}
    for index, found in enumerate(words):
        for word in found:
            holders.setdefault(word, []).append(index)
    most = min(NEVER_RARE, max(ALWAYS_RARE, len(sentences) // RARE_SHARE))
    rare = {word: indices for word, indices in holders.items() if 1 < len(indices) <= most}
    return [_choose(_ranked(words, rare, *span), lengths, span, limit) for span in spans]


def _words(sentence: str) -> set[str]:
    # A plural is its singular: "the sails" are looked for where "a sail" is described.
    return {
        word[:-1] if len(word) > 3 and word.endswith("s") else word for word in re.findall(r"\w+", sentence.lower())
    }


def _ranked(words: Sequence[set[str]], rare: dict[str, list[int]], start: int, stop: int) -> Iterator[int]:
    scores: dict[int, float] = {}
    for word in sorted(set().union(*words[start:stop]) & rare.keys()):  # sorted: float sums depend on the order
        for index in rare[word]:
            if index < start:
                scores[index] = scores.get(index, 0.0) + 1 / len(rare[word])
    return iter(sorted(scores, key=lambda index: (-scores[index], -index)))


def _choose(ranked: Iterator[int], lengths: Sequence[int], span: tuple[int, int], limit: int) -> tuple[int, ...]:
    start, stop = span
    room = limit - sum(lengths[start:stop])
    chosen: set[int] = set()
    for index in ranked:
        if len(chosen) == MAX_RELATED:
            break
        if lengths[index] <= room:
            chosen.add(index)
            room -= lengths[index]
    for index in range(start - 1, -1, -1):
        if index in chosen:
            continue
        if lengths[index] > room:
            break
        chosen.add(index)
        room -= lengths[index]
    return tuple(sorted(chosen))
