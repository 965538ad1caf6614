"""What held-out samples say while a run goes on: retrieval, monotonicity, and how well the token states are kept."""

from collections.abc import Sequence
from typing import Any

from ..errors import LongClipError
from ..evaluation.features import evaluating
from ..evaluation.retrieval import Pair, readable, retrieval_scores
from .anchor import Anchor
from .data import TextImageData
from .distributed import rank
from .subject import Subject
from .texts import first_window

__all__ = ["Validation"]

# The anchor's error settles with few texts: each has hundreds of rows.
MAX_ANCHOR_TEXTS = 64
ANCHOR_BATCH = 16


class Validation:
    """Measures a subject on the same held-out samples each time, in the first process; others hold no pictures.

    Args:
        data: held-out samples; unreadable ones are left out.
        processor: image processor of the picture tower, None where there are no pictures.

    Raises:
        LongClipError: no sample is held out, or fewer than two where pictures must be told apart.
    """

    def __init__(self, subject: Subject, data: TextImageData, processor: Any):
        self.subject, self.processor = subject, processor
        limit = len(data) if processor else min(len(data), MAX_ANCHOR_TEXTS)
        bad: list[LongClipError] = []
        self.samples = list(readable(data, limit, bad)) if rank() == 0 else []
        if rank() == 0 and len(self.samples) < (2 if processor else 1):
            raise LongClipError(
                f"{data.name} leaves {len(self.samples)} usable samples to hold out ({len(bad)} unreadable); at most a "
                "tenth is held out, so give more data, or a larger num_validation."
            )

    def measure(self) -> dict[str, float]:
        """Every value by its name; `score`, by which the best weights are chosen, is higher for better ones.

        `score` is the mean of all R@1 where there are pictures, less the anchor's error where there are teachers.
        """
        subject = self.subject
        with evaluating(subject.module):
            values: dict[str, float] = {}
            if self.processor:
                values = retrieval_scores(subject.clip, subject.tokenizer, self.processor, self.samples, ks=(1, 5))
            score = 0.0
            if values:
                firsts = [value for name, value in values.items() if name.endswith("R@1")]
                score += sum(firsts) / len(firsts)
            if subject.anchors:
                values["anchor"] = self._anchor_error()
                score -= values["anchor"]
        return {**values, "score": score}

    def _anchor_error(self) -> float:
        samples = self.samples[:MAX_ANCHOR_TEXTS]
        errors = [self._anchor_error_of(anchor, samples) for anchor in self.subject.anchors]
        return sum(errors) / len(errors)

    def _anchor_error_of(self, anchor: Anchor, samples: Sequence[Pair]) -> float:
        longs = [first_window(sample.caption, anchor.tokenizer, self.subject.length) for sample in samples]
        shorts = [first_window(sample.short_caption, anchor.tokenizer, anchor.window) for sample in samples]
        total = 0.0
        for start in range(0, len(samples), ANCHOR_BATCH):
            part = slice(start, start + ANCHOR_BATCH)
            total += anchor.loss(longs[part], shorts[part]).item() * len(longs[part])
        return total / len(samples)
