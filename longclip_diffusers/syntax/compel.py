"""compel's syntax, read by compel's own parser; what that would drop or misread without a word is refused."""

import math
import re
from functools import lru_cache
from typing import Any

from ..passages import Passage
from .complaint import syntax_error

__all__ = ["parse_compel"]

OPERATOR = re.compile(r"\.(?:blend|and|add|swap|attend)\(")
LORA = re.compile(r"(?:use|with)Lora\(")
BRACKET = re.compile(r"\\[()]|[()]")  # a backslash before a bracket escapes it, whatever stands before that
COMMA = re.compile(r",(\S)")


@lru_cache(maxsize=16)  # the grammar takes a second for a chapter, and every encoder and report asks anew
def parse_compel(text: str) -> tuple[tuple[float, tuple[Passage, ...]], ...]:
    """Readings, each a share and passages: several of one passage for `.blend()`, one of several for `.and()`.

    A reading's shares are already normalised as `.blend()` asks. Where fragments meet there is a space, since compel
    tokenises each by itself.

    Raises:
        PromptSyntaxError: brackets that do not match, an operator out of its place or with wrong arguments, text
            behind `.and()`, an empty part of it, `.swap()`, a LoRA.
    """
    _check_brackets(text)
    if not text.strip():
        return ((1.0, (Passage(()),)),)
    from compel.prompt_parser import Blend

    conjunction = _parse(text)
    if conjunction.lora_weights:
        message = "A prompt loads no LoRA: call pipe.load_lora_weights() and take this out."
        raise syntax_error(message, text, _place(text, LORA))
    if not conjunction.prompts:
        raise syntax_error("There is nothing in these brackets.", text, 0)
    if isinstance(conjunction.prompts[0], Blend):
        (blend,) = conjunction.prompts
        shares = _shares(blend, text)
        return tuple((share, (_passage(each, 1.0, text),)) for share, each in zip(shares, blend.prompts, strict=True))
    parts = [_passage(*each, text) for each in zip(conjunction.prompts, conjunction.weights, strict=True)]
    if len(parts) > 1 and not all(any(words.strip() for words, _ in part.fragments) for part in parts):
        raise syntax_error("A part of this conjunction is empty.", text, _place(text, OPERATOR))
    return ((1.0, tuple(parts)),)


def _parse(text: str) -> Any:
    import pyparsing
    from compel.prompt_parser import PromptParser

    # The grammar backtracks: without this each level of brackets costs four times the one inside it, seconds at the
    # fifth. It holds for the process, as matplotlib's does, and changes no result.
    pyparsing.ParserElement.enable_packrat()
    parser = PromptParser()
    spaced = COMMA.sub(r", \1", text)  # as its parse_conjunction does, which however drops what stands behind `.and()`
    try:
        return parser.flatten(parser.conjunction.parse_string(spaced, parse_all=True)[0])
    except pyparsing.ParseBaseException as error:
        added = (comma.start() + 1 + before for before, comma in enumerate(COMMA.finditer(text)))
        place = error.loc - sum(space < error.loc for space in added)
        raise syntax_error("compel reads the text up to here, and nothing may follow it.", text, place) from error
    except RecursionError as error:
        raise syntax_error("Brackets are nested deeper than compel's parser goes.", text, _deepest(text)) from error
    except Exception as error:  # its parse actions raise what comes: ValueError of float(), IndexError, its own
        reason = " ".join(str(error).split())[:90]
        problem = f"compel refuses the arguments of this operator ({type(error).__name__}: {reason})."
        raise syntax_error(problem, text, _place(text, OPERATOR)) from error


def _passage(prompt: Any, share: float, text: str) -> Passage:
    if prompt.wants_cross_attention_control:
        message = "compel's .swap() is not read: Stable Diffusion's pipelines swap nothing."
        raise syntax_error(message, text, _place(text, re.compile(r"\.swap\(")))
    fragments = []
    for number, fragment in enumerate(prompt.children):
        if left := OPERATOR.search(fragment.text):
            problem = f"{left[0]}...) stands where compel takes it for text. It follows brackets and ends the prompt."
            raise syntax_error(problem, text, text.rfind(left[0]))
        if not math.isfinite(fragment.weight):
            raise syntax_error("A weight is too large for a number.", text, _place(text, re.compile(r"\d{9,}|\+{99,}")))
        fragments.append((" " * (number > 0) + fragment.text, fragment.weight))
    if not math.isfinite(share):
        raise syntax_error("A weight is too large for a number.", text, _place(text, OPERATOR))
    return Passage(tuple(fragments), share)


def _shares(blend: Any, text: str) -> list[float]:
    total = sum(blend.weights) if blend.normalize_weights else 1.0
    if not total or not math.isfinite(total):
        problem = f"The weights of this blend add up to {total:g}, and cannot be made to add up to 1."
        raise syntax_error(problem, text, _place(text, OPERATOR))
    return [weight / total for weight in blend.weights]


def _check_brackets(text: str) -> None:
    opened: list[int] = []
    for mark in BRACKET.finditer(text):
        if mark[0] == "(":
            opened.append(mark.start())
        elif mark[0] == ")":
            if not opened:
                raise syntax_error("This ) closes nothing. Write \\) where it is text.", text, mark.start())
            opened.pop()
    if opened:
        raise syntax_error("This ( is never closed. Write \\( where it is text.", text, opened[-1])


def _deepest(text: str) -> int:
    depth = deepest = place = 0
    for mark in BRACKET.finditer(text):
        depth += {"(": 1, ")": -1}.get(mark[0], 0)
        if depth > deepest:
            deepest, place = depth, mark.start()
    return place


def _place(text: str, pattern: re.Pattern[str]) -> int:
    found = pattern.search(text)
    return found.start() if found else 0
