"""Windows -> ComfyUI's conditioning, encoded by core; and two conditionings brought to one length."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, PromptError
from ..positions import CLIP_LENGTH
from ..windows import Window, WindowPlan
from .prompts import BREAK, Item, empty_windows, plan_prompt

__all__ = ["encode_prompt", "match_lengths"]

Conditioning = list[list[Any]]  # core's: [[rows (1, L, D), {"pooled_output": (1, P), ...}], ...]
# Windows in one forward pass. Core would send all of a book through the encoder at once.
WINDOWS_PER_FORWARD = 16


def encode_prompt(
    clip: Any,
    text: str,
    *,
    split: str = "sentence",
    context: str = "none",
    min_windows: int = 1,
    pooled: str = "first",
) -> tuple[Conditioning, WindowPlan]:
    """(the conditioning of a text of any length, its windows).

    Every window has BOS, EOS and padding, and the windows' rows stand one behind the other. With context they are: BOS
    of the first window, each window's own rows, EOS and padding of the last, then padding of the empty prompt, to the
    next multiple of 77.

    Args:
        clip: core's CLIP object; it stays as it is.
        split, context: as `plan_prompt`; with "token" the conditioning is that of core's CLIPTextEncode, bit for bit.
        min_windows: as many windows at least, the missing ones empty.
        pooled: "first", "last" or "mean" of the windows' pooled vectors.

    Raises:
        ModelError: no CLIP tower, or towers of different lengths where core's cutting was not asked for.
        PromptError: an option unknown, or a context with a CLIP that has another kind of text encoder too.
    """
    if pooled not in ("first", "last", "mean"):
        raise PromptError(f"pooled is {pooled!r}; it can be first, last or mean.")
    plan = plan_prompt(clip, text, split=split, context=context)
    empty = empty_windows(clip)
    if split == "token":
        tokens = clip.tokenize(text)
    else:
        _check_lengths(empty)
        words = clip.tokenize(BREAK.sub(" ", text))
        tokens = {**words, **{tower: _filled(plan.windows, tower, empty[tower]) for tower in empty}}
    others = {name: tokens[name] for name in tokens if name not in empty}
    if context != "none":
        if others:
            raise PromptError(
                f'context="related" works with Stable Diffusion 1.x, 2.x and XL; this CLIP reads the text through '
                f"{', '.join(others)} too. Choose context=none."
            )
        return _read_behind(clip, tokens, plan, max(1, min_windows), pooled), plan
    for tower, window in empty.items():
        tokens[tower] = [*tokens[tower], *[window] * (min_windows - len(tokens[tower]))]
    at_once = split == "token" or others  # core's own pass; and T5 reads the text once, not once a group
    conditioning = clip.encode_from_tokens_scheduled(tokens) if at_once else _encode(clip, tokens)
    return _with_pooled(clip, conditioning, tokens, empty, pooled, len(plan.windows)), plan


def match_lengths(positive: Conditioning, negative: Conditioning, clip: Any) -> tuple[Conditioning, Conditioning]:
    """Both with as many rows as the longest entry of either; rows of empty windows are added, nothing is changed.

    Whole windows where whole windows are missing; else the empty window's rows behind its BOS, as often as needed.

    Raises:
        ModelError: the clip gives rows of another width.
    """
    rows = max(entry[0].shape[1] for entry in [*positive, *negative])
    empty = clip.encode_from_tokens_scheduled(clip.tokenize(""))[0][0]
    return _lengthened(positive, rows, empty), _lengthened(negative, rows, empty)


def _lengthened(conditioning: Conditioning, rows: int, empty: Tensor) -> Conditioning:
    return [[_fill(states, rows, empty), *rest] for states, *rest in conditioning]


def _fill(states: Tensor, rows: int, empty: Tensor) -> Tensor:
    missing = rows - states.shape[1]
    if missing <= 0:
        return states
    if states.shape[-1] != empty.shape[-1]:
        raise ModelError(
            f"The conditioning is {states.shape[-1]} wide, this clip gives {empty.shape[-1]}. Plug in the CLIP that "
            "encoded both prompts."
        )
    filler = empty if missing % empty.shape[1] == 0 else empty[:, 1:]
    filler = filler.repeat(1, -(-missing // filler.shape[1]), 1)[:, :missing]
    return torch.cat([states, filler.expand(len(states), -1, -1).to(states)], dim=1)


def _check_lengths(empty: dict[str, list[Item]]) -> None:
    lengths = {tower.upper(): len(window) for tower, window in empty.items()}
    if len(set(lengths.values())) > 1:
        unequal = " and ".join(f"{tower} {length}" for tower, length in lengths.items())
        raise ModelError(
            f"The encoders of this CLIP read different lengths ({unequal} tokens), so row r of one would stand beside "
            "another word's row of the other. Put Stretch CLIP to Long-CLIP before this node, with encoders=all and "
            f"max_tokens={max(lengths.values())}."
        )


def _filled(windows: Sequence[Window], tower: str, empty: list[Item]) -> list[list[Item]]:
    """Each window as the tower reads it: BOS, its content, EOS, padding."""
    contents = [[position[tower] for position in window.ids[1:-1] if tower in position] for window in windows]
    return [[*empty[:1], *content, *empty[1 : len(empty) - len(content)]] for content in contents]


def _encode(clip: Any, tokens: dict[str, list[list[Item]]]) -> Conditioning:
    """Core's conditioning of all windows, of which every tower has as many, some of them in each forward pass."""
    starts = range(0, len(next(iter(tokens.values()))), WINDOWS_PER_FORWARD)
    groups = [
        clip.encode_from_tokens_scheduled(
            {tower: windows[start : start + WINDOWS_PER_FORWARD] for tower, windows in tokens.items()}
        )
        for start in starts
    ]
    # With scheduled hooks (a LoRA by time) core gives several entries, the same ones for every group.
    return [
        [torch.cat([states for states, _ in entries], dim=1), entries[0][1]] for entries in zip(*groups, strict=True)
    ]


def _with_pooled(
    clip: Any,
    conditioning: Conditioning,
    tokens: dict[str, Any],
    empty: dict[str, list[Item]],
    pooled: str,
    num_windows: int,
) -> Conditioning:
    if pooled == "first" or num_windows < 2:
        return conditioning
    chosen = [num_windows - 1] if pooled == "last" else range(num_windows)
    nothing = clip.tokenize("")  # what T5 and its like read meanwhile: their part of the result is not used
    read = [
        # In windows of core's cutting an encoder of more rows has fewer of them: beside the others' last, empty ones.
        clip.encode_from_tokens_scheduled(
            {**nothing, **{tower: [next(iter(tokens[tower][index:]), window)] for tower, window in empty.items()}}
        )
        for index in chosen
    ]
    made = []
    for entry, (states, extra) in enumerate(conditioning):
        vectors = [one[entry][1].get("pooled_output") for one in read]
        if all(isinstance(vector, Tensor) for vector in vectors):
            extra = {**extra, "pooled_output": torch.stack(vectors).mean(0)}
        made.append([states, extra])
    return made


def _read_behind(clip: Any, tokens: dict[str, Any], plan: WindowPlan, min_windows: int, pooled: str) -> Conditioning:
    """The windows' own rows behind one BOS; their context's rows are left out, of every tower alike."""
    empty = empty_windows(clip)
    conditioning = _encode(clip, tokens)
    conditioning = _with_pooled(clip, conditioning, tokens, empty, pooled, len(plan.windows))
    kept = [
        number * plan.window + row
        for number, window in enumerate(plan.windows)
        for row in _own_rows(number, window, plan)
    ]
    rows = CLIP_LENGTH * -(-(plan.num_tokens + 2) // CLIP_LENGTH)
    if min_windows > 1:
        rows = max(rows, min_windows * plan.window)
    nothing = clip.encode_from_tokens_scheduled(clip.tokenize(""))[0][0]
    # Behind BOS and EOS: padding only.
    return [[_fill(states[:, kept][:, :rows], rows, nothing[:, 2:]), extra] for states, extra in conditioning]


def _own_rows(number: int, window: Window, plan: WindowPlan) -> range:
    first = 0 if number == 0 else 1 + window.num_context
    return range(first, plan.window if number == len(plan.windows) - 1 else len(window.ids) - 1)
