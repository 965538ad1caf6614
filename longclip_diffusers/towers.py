"""The encoders of one pipeline read a call together: equal numbers of rows, and row r of each from the same token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from .conditioning import check_vocabulary, encode_plans, resolve_window
from .errors import ModelError
from .positions import CLIP_LENGTH
from .syntax import Prompt, plan_prompt
from .text_encoder import TextEncoder, num_positions
from .windows import Window, WindowPlan

__all__ = ["Tower", "common_window", "encode_together"]


@dataclass(frozen=True)
class Tower:
    """A text encoder with its tokenizer, and how a pipeline reads with it.

    penultimate: the layer before the last without the final norm, as SDXL reads it.
    first_only: of a text it reads 77 rows, the rest is padding (SDXL's `g_mode="first77"`).
    whole: it must be as long as the windows, or `common_window` raises; else it reads them in pieces of its length.
    """

    tokenizer: CLIPTokenizer
    text_encoder: TextEncoder
    penultimate: bool = False
    first_only: bool = False
    whole: bool = False

    def plan(self, prompt: Prompt, *, window: int, context: str) -> WindowPlan:
        """The windows of a parsed prompt, its textual inversions expanded, for `encode_together`.

        Args:
            window: `common_window`'s. A shorter encoder reads its windows in pieces; with `context` it has windows of
                its own, since one BOS and one EOS stand around all of a text there and tokens count the rows.
        """
        positions = num_positions(self.text_encoder)
        if context != "none":
            plan = plan_prompt(prompt, self.tokenizer, window=min(window, positions), context=context)
        else:
            plan = plan_prompt(prompt, self.tokenizer, window=window, piece=positions if positions < window else None)
        return _first_rows(plan, min(CLIP_LENGTH, positions)) if self.first_only else plan


def common_window(window: int | str, towers: Sequence[Tower]) -> int:
    """Rows of the windows that all towers read: those of the longest for "auto", else `window`, at most as many.

    Raises:
        PromptError: `window` is neither "auto" nor a number from 3 to the longest encoder's positions.
        ModelError: a tokenizer knows tokens that its encoder does not, or a tower that must be `whole` is shorter.
    """
    reading = [tower for tower in towers if not tower.first_only] or towers
    longest = max(reading, key=lambda tower: num_positions(tower.text_encoder))
    for tower in towers:
        check_vocabulary(tower.tokenizer, tower.text_encoder)
    rows = resolve_window(window, longest.tokenizer, longest.text_encoder)
    for tower in towers:
        if tower.whole and (positions := num_positions(tower.text_encoder)) < rows:
            raise ModelError(
                f'An encoder of {positions} rows is to read windows of {rows} (g_mode="stretch") and was never '
                'stretched. Call load_longclip(..., g_mode="stretch"), or set g_mode="chunk".'
            )
    return rows


def encode_together(
    towers: Sequence[Tower],
    plans: Sequence[Sequence[WindowPlan]],
    *,
    rows: int,
    clip_skip: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """(embeds (B, rows, D1 + D2 + ...), pooled (B, P) or None): the towers' states, side by side; SDXL's pooled.

    Args:
        plans: for each tower B plans; of towers whose tokenizers agree, of the same texts.
        rows: from `num_rows` over all plans of the call.
        clip_skip: of all towers, see `encode_plans`, which also says what is raised.
    """
    encoded = [
        encode_plans(
            each, tower.tokenizer, tower.text_encoder, rows=rows, clip_skip=clip_skip, penultimate=tower.penultimate
        )
        for tower, each in zip(towers, plans, strict=True)
    ]
    last = encoded[-1][0]
    # The towers may lie on different devices and have different dtypes; stock SDXL ends with the last one's.
    states = [embeds.to(last.device) for embeds, _ in encoded]
    return torch.cat(states, dim=-1) if len(states) > 1 else last, encoded[-1][1]


def _first_rows(plan: WindowPlan, rows: int) -> WindowPlan:
    first = plan.windows[0]
    ids = (first.ids[0], *first.own_ids[: rows - 2], first.ids[-1])
    window = Window(ids, first.text, weights=first.weights[: rows - 2], share=first.share)
    return replace(plan, windows=(window,), blended=tuple(_first_rows(other, rows) for other in plan.blended))
