"""Which earlier sentences a sentence should be read behind, found in the text alone.

A sentence may lean on one far back ("the door has the colour of the roof"). What it needs is found by the rare words
that both share: where such a word first stands, what it names was introduced. A pronoun leans on what was said last. A
question and the sentence behind it, its answer as a rule, are about the same and read together. The sentences just
before fill the room that is left.
"""

import re
from collections.abc import Sequence
from itertools import zip_longest

__all__ = ["related_sentences"]

# What captions and chapters of the storybook needed, in the phrases of its training: a few shared words, in some
# sentences; a word that more than a twentieth of a long text's sentences hold says where nothing is.
MAX_RELATED = 4
ALWAYS_RARE = 5
RARE_SHARE = 20
# Caps the work on a very long text: each sentence meets at most this many others by each of its words.
NEVER_RARE = 32
# A word weighs as much as its rarity where it first stands, and less where it stands again; a name more than others.
AGAIN = 0.25
NAME = 4.0
# A sentence that has one of these among its first words is about something said before: more of what came just before
# is worth more to it than sentences that share a word.
PRONOUNS = frozenset(["it", "its", "he", "him", "his", "she", "her", "hers"])
PRONOUN_WITHIN = 3
MAX_RELATED_BESIDE_PRONOUN = 1
# Words of grammar: that two sentences share one says nothing, however rare it is in a short text.
FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an the this that these those some any each every all both other another such same own
        of in on at by to from for with as into over under above behind beside near up down out off
        and or but so than if then there here when where why how before after while until since because
        not nor only just too very also still yet again once more most one ones
        i me my you your we us our they them their who whom whose which what
        am is are was were be been being has have had do does did will would can could may might must shall should
        """,
    )
).union(PRONOUNS)


def related_sentences(
    sentences: Sequence[str], lengths: Sequence[int], spans: Sequence[tuple[int, int]], *, limit: int
) -> list[tuple[int, ...]]:
    """For each span of sentences the earlier ones it should be read behind: indices below its start, ascending.

    The question that the span answers, if there is one. For each sentence of the span up to four that share its rare
    words, or those of its question (a word held by n sentences weighs 1/n in the first of them and a quarter of that in
    the others, a name four times that; equals: the earlier), a question with its answer. Then those just before the
    span, as long as all fit with the span itself. A sentence that begins with a pronoun asks for one only. A word is
    rare that at most 5 sentences hold, or a twentieth of them, but never more than 32; of others the first sentence
    alone counts; so the work grows with the text's length, not its square. Words of grammar relate nothing.

    Args:
        sentences: all of the text's, in order.
        lengths: tokens in each.
        spans: (start, stop) indices into `sentences`, ascending; the sentences that one window holds as its own.
        limit: content tokens a window holds, own and context.
    """
    words = [_words(sentence) for sentence in sentences]
    names = _names(sentences)
    holders: dict[str, list[int]] = {}
    for index, found in enumerate(words):
        for word in found:
            holders.setdefault(word, []).append(index)
    most = min(NEVER_RARE, max(ALWAYS_RARE, len(sentences) // RARE_SHARE))
    # Of a word that too many hold, the first alone: it was introduced there.
    rare = {word: indices if len(indices) <= most else indices[:1] for word, indices in holders.items()}
    wanted = [MAX_RELATED_BESIDE_PRONOUN if _has_pronoun(sentence) else MAX_RELATED for sentence in sentences]
    chosen = []
    for start, stop in spans:
        ranked = [
            _ranked(_asked(words, sentences, index), rare, names, start)[: wanted[index]]
            for index in range(start, stop)
        ]
        # The first choice of every sentence before the second of any.
        related = [index for choices in zip_longest(*ranked) for index in choices if index is not None]
        if _is_answer(sentences, start):
            related.insert(0, start - 1)
        related = [each for index in related for each in _exchange(sentences, index) if each < start]
        chosen.append(_choose(related, lengths, (start, stop), limit))
    return chosen


def _words(sentence: str) -> set[str]:
    # A plural is its singular: "the sails" are looked for where "a sail" is described.
    words = set(re.findall(r"\w+", sentence.lower())) - FUNCTION_WORDS
    return {word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words}


def _names(sentences: Sequence[str]) -> set[str]:
    # Words with a capital inside a sentence.
    return {word.lower() for sentence in sentences for word in re.findall(r"(?<=[\w,;] )[A-Z]\w+", sentence)}


def _is_answer(sentences: Sequence[str], index: int) -> bool:
    return index > 0 and sentences[index - 1].endswith("?")


def _asked(words: Sequence[set[str]], sentences: Sequence[str], index: int) -> set[str]:
    # An answer is about what its question is about.
    return words[index] | words[index - 1] if _is_answer(sentences, index) else words[index]


def _has_pronoun(sentence: str) -> bool:
    return not PRONOUNS.isdisjoint(re.findall(r"\w+", sentence.lower())[:PRONOUN_WITHIN])


def _ranked(words: set[str], rare: dict[str, list[int]], names: set[str], start: int) -> list[int]:
    scores: dict[int, float] = {}
    for word in sorted(words & rare.keys()):  # sorted: float sums depend on the order
        for index in rare[word]:
            if index < start:
                weight = (1 if index == rare[word][0] else AGAIN) * (NAME if word in names else 1)
                scores[index] = scores.get(index, 0.0) + weight / len(rare[word])
    return sorted(scores, key=lambda index: (-scores[index], index))


def _exchange(sentences: Sequence[str], index: int) -> Sequence[int]:
    # A sentence; a question and what follows it, whichever of them was asked for.
    first = index - 1 if _is_answer(sentences, index) else index
    return (first, first + 1) if sentences[first].endswith("?") else (index,)


def _choose(related: Sequence[int], lengths: Sequence[int], span: tuple[int, int], limit: int) -> tuple[int, ...]:
    start, stop = span
    room = limit - sum(lengths[start:stop])
    chosen: set[int] = set()
    for index in related:
        if index not in chosen and lengths[index] <= room:
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
