"""Windows of text -> the embeddings a UNet reads; the encoder and the tokenizer stay as they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .errors import ModelError, PromptError
from .positions import CLIP_LENGTH
from .repeats import remembered
from .syntax import parse_prompt, plan_prompt
from .text_encoder import TextEncoder, inner_text_model, num_positions
from .weighting import blended, weighted
from .windows import Window, WindowPlan

__all__ = [
    "Conditioning",
    "TooFewRowsError",
    "check_vocabulary",
    "encode_long_prompt",
    "encode_plans",
    "num_rows",
    "resolve_window",
]

AUTO = "auto"
# Windows in one forward pass: enough to keep two cores or a GPU busy, few enough that a book fits beside the UNet.
WINDOWS_PER_FORWARD = 16


class TooFewRowsError(PromptError):
    """A text that does not fit the rows it is to fill."""


@dataclass(frozen=True)
class Conditioning:
    """What a UNet reads of B prompts.

    `embeds` (B, L, D); `pooled` (B, P) from each prompt's first window where the encoder has a projection, else None
    (Stable Diffusion 1.x and 2.x read no pooled vector); `report` holds a plan for each prompt, `str()` of it is text.
    """

    embeds: Tensor
    pooled: Tensor | None
    report: tuple[WindowPlan, ...]


@torch.no_grad()
def encode_long_prompt(
    text: str | Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: TextEncoder,
    *,
    window: int | str = AUTO,
    context: str = "none",
    clip_skip: int | None = None,
    syntax: str = "plain",
) -> Conditioning:
    """The conditioning of a prompt of any length, or of a list of B prompts, all brought to one length L.

    Runs without gradients. Textual-inversion names must be expanded before (diffusers' `maybe_convert_prompt`), and
    stand in brackets where they are to be weighted.

    Args:
        text: a prompt, or a list that is a batch of prompts (not parts of one, as `plan_windows` takes it).
        tokenizer: CLIP's; its `pad_token_id` fills the windows.
        text_encoder: CLIPTextModel or CLIPTextModelWithProjection, of any number of positions.
        window: rows of a window, BOS and EOS included; "auto" is the encoder's number of positions.
        context: "related" reads late sentences behind the earlier ones they need, see `plan_windows`.
        clip_skip: layers left out at the end, as in diffusers; None and 0 use all.
        syntax: "plain" takes brackets and signs as text; "a1111", "a1111-mean" and "compel" see `parse_prompt`.

    Raises:
        PromptError: an option out of its range, a text that is no str or not of the syntax, an empty list.
        ModelError: tokenizer and encoder do not fit, or the encoder gives NaN.
    """
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(one, str) for one in texts):
        raise PromptError(f"text is a str or a non-empty list of them, not {text!r:.60} ({type(text).__name__}).")
    rows_per_window = resolve_window(window, tokenizer, text_encoder)
    prompts = [parse_prompt(one, syntax) for one in texts]
    plans = tuple(plan_prompt(one, tokenizer, window=rows_per_window, context=context) for one in prompts)
    rows = num_rows(plans, window=rows_per_window)
    embeds, pooled = encode_plans(plans, tokenizer, text_encoder, rows=rows, clip_skip=clip_skip)
    return Conditioning(embeds, pooled, plans)


def resolve_window(window: int | str, tokenizer: PreTrainedTokenizerBase, text_encoder: TextEncoder) -> int:
    """The rows of a window: the encoder's number of positions for "auto", else `window` itself, checked.

    The tokenizer's `model_max_length` has no say: a 77-token limit left on it would cut a long encoder short.

    Raises:
        PromptError: `window` is neither "auto" nor a number from 3 to the encoder's positions.
        ModelError: the tokenizer knows tokens that the encoder does not.
    """
    check_vocabulary(tokenizer, text_encoder)
    positions = num_positions(text_encoder)
    if window == AUTO:
        return positions
    if not isinstance(window, int) or window < 3:
        raise PromptError(f"window is {window!r}; it is 'auto' or a number of rows from 3 to {positions}.")
    if window > positions:
        raise PromptError(
            f"window is {window}, but the text encoder's table has {positions} positions. Give at most {positions}, "
            "'auto', or a long encoder."
        )
    return window


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, text_encoder: TextEncoder) -> None:
    """Raise ModelError where the tokenizer knows tokens that the encoder does not."""
    vocabulary = text_encoder.config.vocab_size
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"The tokenizer has {len(tokenizer)} tokens, the text encoder {vocabulary}. They must come from one model, "
            "with the same textual inversions loaded."
        )


def num_rows(plans: Sequence[WindowPlan], *, window: int) -> int:
    """L for all texts of one call, positive and negative together.

    77 (or `window`, where that is less) if every text fits it: the length a UNet was trained with. Otherwise as many
    whole windows as the longest text has. Several context windows share one BOS and EOS, so no whole windows remain of
    them: L is then the smallest multiple of 77 that holds every text.
    """
    short = min(CLIP_LENGTH, window)
    plans = [reading for plan in plans for reading in plan.readings]
    if plans[0].context != "none" and any(len(plan.windows) > 1 for plan in plans):
        most = max(sum(len(each.own_ids) for each in plan.windows) + 2 for plan in plans)
        return -(-most // short) * short
    if all(len(plan.windows) == 1 and len(plan.windows[0].ids) <= short for plan in plans):
        return short
    return window * max(len(plan.windows) for plan in plans)


def encode_plans(
    plans: Sequence[WindowPlan],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: TextEncoder,
    *,
    rows: int,
    clip_skip: int | None = None,
    penultimate: bool = False,
    batch_size: int = WINDOWS_PER_FORWARD,
) -> tuple[Tensor, Tensor | None]:
    """(embeds (B, rows, D), pooled (B, P) or None) of B planned texts, on the encoder's device, in its dtype.

    Every window is padded with the tokenizer's padding token to `min(rows, window)`. Without context the rows are the
    windows' rows one after the other, and missing windows are windows of empty text. With context they are: BOS of
    the first window; each window's own rows; EOS and padding of the last window; then, as often as needed, the rows
    of the empty text that hold padding. So the UNet sees one BOS and one text, as it was trained to. A window longer
    than the encoder is read in its `pieces` and joined in the same way, so that its row r is its token r.

    Weights act on each forward pass by itself, after it, as `weighting.py` says: on the rows of a window's own tokens,
    against the rows of the empty text at the same places; then `share` on all of the window's rows; a plan with others
    `blended` in is the sum of all, each times its share, and its pooled vector likewise. No other weight reaches the
    pooled vector: it is what the encoder makes of the text.

    The windows go through the encoder in order, `batch_size` at a time. B texts of one window each therefore give
    bit for bit what a stock pipeline gives, as long as B <= `batch_size` and the encoder has 77 positions.

    Args:
        plans: of one call, with the same `window` and `context`, and with pieces where the encoder is shorter.
        rows: from `num_rows`, over positive and negative texts.
        clip_skip: the last layers to leave out; the final layer norm still applies, as in diffusers.
        penultimate: the layer before the last without the final norm, as SDXL reads it; `clip_skip` counts from there.
        batch_size: windows in one forward pass, at least 1. Bounds the memory beside the result.

    Raises:
        PromptError: `clip_skip` out of range, `rows` too few, or a weight out of the dtype's range.
        ModelError: a token beyond the encoder's vocabulary, no padding token, NaN or infinity in the output.
    """
    width = min(rows, plans[0].window, num_positions(text_encoder))
    reader = _Reader(tokenizer, text_encoder, width, clip_skip, penultimate, batch_size)
    length = rows if plans[0].context != "none" else min(rows, plans[0].window)  # of what has a BOS of its own
    readings = [reading for plan in plans for reading in plan.readings]
    places_of = [_places(text, plan, width, length, rows) for text, plan in enumerate(readings)]
    places = [place for each in places_of for place in each]
    reader.check(places)
    embeds, pooled = None, []
    for group in (places[start : start + batch_size] for start in range(0, len(places), batch_size)):
        states, vectors = reader.read([place.window.ids for place in group])
        if embeds is None:
            embeds = states.new_empty(len(readings), rows, states.shape[-1])
        for index, place in enumerate(group):
            own = reader.weighted(states[index], place.window, readings[place.text].syntax)
            embeds[place.text, place.at : place.end] = own[place.first : place.first + place.end - place.at]
            if vectors is not None and place.at == 0:
                pooled.append(vectors[index])
    assert embeds is not None  # a plan has at least one window
    gaps = [gap for text, each in enumerate(places_of) for gap in _gaps(text, each, length, rows)]
    _fill(embeds, gaps, length, reader)
    return blended(embeds, plans), blended(torch.stack(pooled), plans) if pooled else None


@dataclass(frozen=True)
class _Place:
    """Where rows of one window go: its rows from `first` on become the rows at:end of the given text."""

    window: Window
    text: int
    first: int
    at: int
    end: int


def _places(text: int, plan: WindowPlan, width: int, length: int, rows: int) -> list[_Place]:
    joined = plan.context != "none"
    passages = [plan.windows] if joined else [window.pieces or (window,) for window in plan.windows]
    places: list[_Place] = []
    for number, windows in enumerate(passages):
        at = number * length
        stop = min(at + length, rows)
        for index, window in enumerate(windows):
            first = 0 if index == 0 else 1 + window.num_context
            behind = width if index == len(windows) - 1 else len(window.ids) - 1
            end = min(at + behind - first, stop)
            if len(window.ids) > width or at + min(behind, len(window.ids)) - first > end:
                raise TooFewRowsError(f"rows is {rows}, too few for a text of {plan.num_tokens} tokens; see num_rows.")
            places.append(_Place(window, text, first, at, end))
            at = end
    return places


@dataclass(frozen=True)
class _Gap:
    """Rows at:end of a text that no window gives: padding behind a passage, or `whole` passages that are missing."""

    text: int
    at: int
    end: int
    whole: bool


def _gaps(text: int, places: Sequence[_Place], length: int, rows: int) -> list[_Gap]:
    gaps = []
    for place, after in zip(places, [*places[1:], None], strict=True):
        stop = after.at if after else min(-(-place.end // length) * length, rows)
        gaps.append(_Gap(text, place.end, stop, whole=False))
    gaps.append(_Gap(text, stop, rows, whole=True))
    return [gap for gap in gaps if gap.at < gap.end]


def _fill(embeds: Tensor, gaps: Sequence[_Gap], length: int, reader: "_Reader") -> None:
    # With rows of the empty text, read once for all. Padding starts with EOS where EOS is the padding token.
    if not gaps:
        return
    tokenizer = reader.tokenizer
    empty = reader.empty
    padding = empty[1 if tokenizer.pad_token_id == tokenizer.eos_token_id else 2 :]
    passage = torch.cat([empty, _tiled(padding, length - len(empty))])
    for gap in gaps:
        embeds[gap.text, gap.at : gap.end] = _tiled(passage if gap.whole else padding, gap.end - gap.at)


def _tiled(states: Tensor, rows: int) -> Tensor:
    return states.repeat(-(-rows // max(1, len(states))), 1)[:rows]


@dataclass(frozen=True)
class _Reader:
    """The encoder as one call uses it."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: TextEncoder
    width: int
    clip_skip: int | None
    penultimate: bool
    batch_size: int

    @cached_property
    def empty(self) -> Tensor:
        """The states (N, D) of the empty text."""
        return self.read([(self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)])[0][0]

    def check(self, places: Sequence[_Place]) -> None:
        layers = self.text_encoder.config.num_hidden_layers - self.penultimate
        if self.clip_skip is not None and not 0 <= self.clip_skip <= layers:
            raise PromptError(f"clip_skip is {self.clip_skip}; this encoder can leave out 0 to {layers} layers.")
        if self.tokenizer.pad_token_id is None:
            raise ModelError("The tokenizer has no padding token; that of Stable Diffusion 1.x is <|endoftext|>.")
        largest, vocabulary = max(max(place.window.ids) for place in places), self.text_encoder.config.vocab_size
        if largest >= vocabulary:
            raise ModelError(
                f"The text has token {largest}, the text encoder knows {vocabulary} tokens. Take tokenizer and encoder "
                "from one model, with the same textual inversions loaded."
            )

    def weighted(self, states: Tensor, window: Window, syntax: str) -> Tensor:
        """The states (N, D) of a window with its weights."""
        if not window.weights and window.share == 1:
            return states  # without a forward pass for the empty text
        without = partial(self.read_without, window.ids)
        return weighted(states, window, self.empty, syntax=syntax, read_without=without)

    def read_without(self, ids: tuple[int, ...], spans: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
        """The states (N, D) of a window for each span of rows, to which attention is blind there."""
        for start in range(0, len(spans), self.batch_size):
            group = spans[start : start + self.batch_size]
            yield from self.read([ids] * len(group), masked=group)[0]

    def read(
        self, windows: Sequence[tuple[int, ...]], *, masked: Sequence[tuple[int, int]] = ()
    ) -> tuple[Tensor, Tensor | None]:
        """One forward pass: states (W, N, D); projected EOS states (W, P), None without a projection.

        masked: for each window the rows start:stop that no row attends to; none by default.
        """
        special = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        asked = self.text_encoder, special, self.width, self.clip_skip, self.penultimate, *windows
        return self._forward(windows, masked) if masked else remembered(asked, lambda: self._forward(windows, ()))

    def _forward(
        self, windows: Sequence[tuple[int, ...]], masked: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor | None]:
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[*window, *[pad] * (self.width - len(window))] for window in windows])
        # Offloaded weights lie on "meta"; accelerate's hooks then bring the ids to where the work is done.
        device = self.text_encoder.device
        ids, mask = (each if device.type == "meta" else each.to(device) for each in (ids, _mask(ids, masked)))
        every_layer = self.penultimate or self.clip_skip is not None
        output = self.text_encoder(ids, mask if masked else None, output_hidden_states=every_layer)
        states = self._states(output)
        if not torch.isfinite(states).all():
            raise ModelError(
                f"The text encoder's output holds NaN or infinity ({states.dtype}). Load it with "
                "dtype=torch.float32 or torch.bfloat16; if that does not help, its weights are damaged."
            )
        return states, self._pooled(output, windows)

    def _pooled(self, output: Any, windows: Sequence[tuple[int, ...]]) -> Tensor | None:
        vectors = getattr(output, "text_embeds", None)
        beyond = max(max(window) for window in windows) > self.tokenizer.eos_token_id
        if vectors is None or self.text_encoder.config.eos_token_id != 2 or not beyond:
            return vectors
        # 2, in older configs, has transformers pool the largest id: a textual inversion's, were it not for this.
        ends = output.last_hidden_state[range(len(windows)), [len(window) - 1 for window in windows]]
        return self.text_encoder.text_projection(ends)  # type: ignore[operator]

    def _states(self, output: Any) -> Tensor:
        if self.penultimate:
            return output.hidden_states[-(self.clip_skip or 0) - 2]
        if self.clip_skip is None:
            return output.last_hidden_state
        return inner_text_model(self.text_encoder).final_layer_norm(output.hidden_states[-self.clip_skip - 1])  # type: ignore[operator]


def _mask(ids: Tensor, masked: Sequence[tuple[int, int]]) -> Tensor:
    mask = torch.ones_like(ids)
    for row, (start, stop) in enumerate(masked):
        mask[row, start:stop] = 0
    return mask
