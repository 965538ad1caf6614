"""Captions varied from step to step: ways round the short-cut that a first sentence tells the whole picture."""

import random
from dataclasses import replace
from typing import Literal, get_args

from ...sentences import split_sentences
from .sample import Sample

__all__ = ["CAPTION_MODES", "CaptionMode", "vary"]

CaptionMode = Literal["as-written", "debias", "sub"]
CAPTION_MODES: tuple[CaptionMode, ...] = get_args(CaptionMode)
MAX_RUN = 3  # sentences of a sub-caption


def vary(sample: Sample, mode: CaptionMode, rng: random.Random) -> Sample:
    """The sample with other captions, made of its long caption's own sentences; with one sentence it stays as it is.

    Args:
        mode: "as-written" changes nothing.
            "debias" (DeBias-CLIP, arXiv 2602.22419): the short caption is a random sentence, never the first; the
            long one is a random half or more of its sentences in random order.
            "sub" (after SmartCLIP, arXiv 2507.22264): the short caption is one to three consecutive sentences.
    """
    if mode == "as-written":
        return sample
    sentences = split_sentences(sample.caption)
    if len(sentences) == 1:
        return sample
    if mode == "debias":
        short_caption = rng.choice(sentences[1:])
        kept = rng.sample(sentences, rng.randint((len(sentences) + 1) // 2, len(sentences)))
        return replace(sample, caption=" ".join(kept), short_caption=short_caption)
    length = rng.randint(1, min(MAX_RUN, len(sentences)))
    start = rng.randint(0, len(sentences) - length)
    return replace(sample, short_caption=" ".join(sentences[start : start + length]))
