"""Captions as the trainer reads them: long texts that fill the encoder, short ones that fit it, and their ids."""

import random
from collections.abc import Callable, Sequence

from transformers import CLIPTokenizer

from ..sentences import split_sentences
from ..windows import plan_windows

__all__ = ["caption_ids", "first_window", "fitting_text", "short_text"]

# Texts shorter than the encoder leave its last positions untrained: every second one goes on with others.
JOINED_SHARE = 0.5
CONTEXT_SHARE = 0.5
SENTENCE_SHARE = 0.5


def first_window(text: str, tokenizer: CLIPTokenizer, length: int) -> str:
    """The text, or as many of its first sentences as fit `length` rows."""
    plan = plan_windows(text, tokenizer, window=length)
    while len(plan.windows) > 1:  # more than once only where a word was cut: its parts may have other tokens
        plan = plan_windows(plan.windows[0].text, tokenizer, window=length)
    return plan.windows[0].text


def short_text(text: str, tokenizer: CLIPTokenizer, length: int, rng: random.Random) -> str:
    """The text's first window of `length` rows; every second time one of its sentences alone.

    What a short text pools drifts where nothing like it is trained: an encoder that heard whole captions only had
    another name for "the roof is red".
    """
    if rng.random() < SENTENCE_SHARE and (sentences := split_sentences(text)):
        text = rng.choice(sentences)
    return first_window(text, tokenizer, length)


def fitting_text(
    text: str, tokenizer: CLIPTokenizer, length: int, rng: random.Random, more: Callable[[random.Random], str]
) -> str:
    """A text of at most `length` rows: a random window of a longer one, others joined to a shorter one.

    Every second window is one with context: sentences behind earlier ones that they need, as `context="related"` reads
    them. An encoder that was never trained on such a mixture reads it badly.

    Args:
        rng: chooses the window, and whether others are joined.
        more: draws another text of the data.
    """
    windows = plan_windows(text, tokenizer, window=length).windows
    if len(windows) > 1 and rng.random() < CONTEXT_SHARE:
        windows = plan_windows(text, tokenizer, window=length, context="related").windows
    window = rng.choice(windows)
    fitting = first_window(" ".join([*window.context, window.text]), tokenizer, length)
    if len(windows) > 1 or rng.random() >= JOINED_SHARE:
        return fitting
    while True:
        longer = f"{fitting} {more(rng)}"
        if len(plan_windows(longer, tokenizer, window=length).windows) > 1:
            return fitting
        fitting = longer


def caption_ids(texts: Sequence[str], tokenizer: CLIPTokenizer, length: int) -> tuple[list[tuple[int, ...]], int]:
    """Ids of each text's first window, BOS and EOS included, unpadded; and how many texts were longer than that."""
    plans = [plan_windows(text, tokenizer, window=length) for text in texts]
    return [plan.windows[0].ids for plan in plans], sum(len(plan.windows) > 1 for plan in plans)
