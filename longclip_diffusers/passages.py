"""A text whose stretches have weights: what a prompt's syntax is parsed into, and what windows are planned from."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from .errors import PromptError

__all__ = ["Passage", "WeightedText"]


@dataclass(frozen=True)
class Passage:
    """Text that begins a window, as (text, weight) fragments in order; `share` weighs the passage as a whole.

    Raises:
        PromptError: a fragment's text is not a str.
    """

    fragments: tuple[tuple[str, float], ...]
    share: float = 1.0

    def __post_init__(self) -> None:
        for text, _ in self.fragments:
            if not isinstance(text, str):
                raise PromptError(
                    f"A prompt is a str, not {type(text).__name__}. Read the file or join the list first."
                )

    def read(self) -> "WeightedText":
        """The text that is tokenised, normalised, with the weights of its stretches.

        Neighbours of equal weight are one stretch, and each stretch is normalised by itself: so a passage of one
        weight is the text that it would be without.
        """
        stretches = [
            (_normalized("".join(text for text, _ in group)), weight)
            for weight, group in groupby(self.fragments, key=itemgetter(1))
        ]
        whole = "".join(text for text, _ in stretches)
        ends, behind = [], len(whole.lstrip()) - len(whole)
        for text, _ in stretches:
            behind += len(text)
            ends.append(behind)
        return WeightedText(whole.strip(), tuple(ends), tuple(weight for _, weight in stretches))


@dataclass(frozen=True)
class WeightedText:
    """A text and its stretches: the character behind each, ascending, and their weights."""

    text: str
    ends: tuple[int, ...]
    weights: tuple[float, ...]

    def weights_of(self, offsets: Iterable[tuple[int, int]]) -> tuple[float, ...]:
        """A weight for each token, given the characters start:end of each; empty where all are 1.

        A token on both sides of a bracket, as in `ca(ts)`, has the weight that is not 1: else it would be lost.
        """
        if all(weight == 1 for weight in self.weights):
            return ()
        weights = tuple(self._weight(start, end) for start, end in offsets)
        return weights if any(weight != 1 for weight in weights) else ()

    def _weight(self, start: int, end: int) -> float:
        touched = self.weights[bisect_right(self.ends, start) : bisect_left(self.ends, end) + 1]
        return next((weight for weight in touched if weight != 1), 1.0)


def _normalized(text: str) -> str:
    # With the white space around it, which separates it from its neighbours.
    from .tokenizer import normalize_text  # here: ComfyUI, which plans windows with tokens of its own, has no ftfy

    inside = text.strip()
    if not inside:
        return text
    start = text.index(inside)
    return text[:start] + normalize_text(text) + text[start + len(inside) :]
