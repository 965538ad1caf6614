"""A prompt as it is written -> passages with weights -> windows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import PromptError
from ..passages import Passage
from ..windows import WindowPlan, plan_windows
from .a1111 import parse_a1111
from .compel import parse_compel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["SYNTAXES", "Prompt", "Reading", "parse_prompt", "plan_prompt"]

SYNTAXES = ("plain", "a1111", "a1111-mean", "compel")


@dataclass(frozen=True)
class Reading:
    """Passages, each of which begins a window; `share` is what of the prompt's rows comes from this reading."""

    passages: tuple[Passage, ...]
    share: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """A parsed prompt. It has one reading; several where compel blends: the sum of their rows, each times its share."""

    syntax: str
    readings: tuple[Reading, ...]

    def converted(self, convert: Callable[[str], str]) -> "Prompt":
        """The same with other words: `convert` expands the textual inversions of a fragment's text."""
        return replace(
            self, readings=tuple(replace(each, passages=_converted(each, convert)) for each in self.readings)
        )


def parse_prompt(text: str, syntax: str) -> Prompt:
    r"""A prompt as its syntax has it.

    - "plain": every bracket and sign is text.
    - "a1111": `(x)` weighs 1.1, `[x]` 1/1.1, `(x:1.3)` 1.3, nested ones multiply; `\(`, `\)`, `\[`, `\]` and `\\` are
      the character behind the backslash; the word BREAK ends a window. What the weights do: see `encode_plans`.
      Schedules `[a:b:0.5]`, alternation `[a|b]` and `<lora:...>` are refused, AND is a word.
    - "a1111-mean": the same, with the arithmetic of A1111.
    - "compel": compel's own grammar, with `++`, `--`, `(x)1.3`, `.blend()` and `.and()`; `.swap()` is refused.

    Raises:
        PromptSyntaxError: the text cannot be read so; its message shows the place.
        PromptError: `text` is not a str, or `syntax` is unknown.
    """
    if syntax not in SYNTAXES:
        raise PromptError(f"syntax is {syntax!r}; it can be {', '.join(map(repr, SYNTAXES[:-1]))} or {SYNTAXES[-1]!r}.")
    if syntax == "plain" or not isinstance(text, str):
        return Prompt(syntax, (Reading((Passage(((text, 1.0),)),)),))  # reading the passage refuses what is no str
    return _parsed(text, syntax)


# Compel's grammar takes seconds for a long chapter, and one call asks for a prompt's windows, context and each encoder.
@lru_cache(maxsize=16)
def _parsed(text: str, syntax: str) -> Prompt:
    if syntax == "compel":
        return Prompt(syntax, tuple(Reading(passages, share) for share, passages in parse_compel(text)))
    return Prompt(syntax, (Reading(parse_a1111(text)),))


def plan_prompt(
    prompt: Prompt,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    window: int,
    context: str = "none",
    piece: int | None = None,
) -> WindowPlan:
    """The windows of a parsed prompt; arguments and errors are those of `plan_windows`."""
    plans = [
        replace(
            plan_windows(reading.passages, tokenizer, window=window, context=context, piece=piece),
            syntax=prompt.syntax,
            share=reading.share,
        )
        for reading in prompt.readings
    ]
    return replace(plans[0], blended=tuple(plans[1:]))


def _converted(reading: Reading, convert: Callable[[str], str]) -> tuple[Passage, ...]:
    return tuple(
        replace(passage, fragments=tuple((convert(text), weight) for text, weight in passage.fragments))
        for passage in reading.passages
    )
