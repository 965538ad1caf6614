"""The anchor: lengthen a text encoder from plain text, keeping its token states where a UNet expects them.

The teacher is the frozen base encoder, reading each sentence in a window of its own length behind the earlier
sentences that it needs (`context.py`). The student is the stretched encoder, reading the whole text at once. Their
states of the same tokens are pulled together, together with the rows after the text and all rows of short prompts.
No image, no label and no UNet takes part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from ..text_encoder import TextEncoder, num_positions, position_table
from ..windows import WindowPlan, plan_windows

__all__ = ["Anchor", "Reads"]

# The layer a pipeline reads and the two before it, which clip_skip reads.
NUM_LAYERS = 3
# Rows after the text say little and are many; the UNet reads them all the same.
AFTER_TEXT_WEIGHT = 0.2
SHORT_WEIGHT = 1.0
POOLED_WEIGHT = 1.0
# Windows that the teacher reads at once; no gradient is kept for them.
TEACHER_BATCH = 64

Reads = Literal["last", "penultimate"]


@dataclass(frozen=True)
class _Reading:
    """States of the layers compared (layers, B, N, D); the pooled feature (B, P) where they do not contain it."""

    states: Tensor
    pooled: Tensor | None

    @classmethod
    def join(cls, parts: "Sequence[_Reading]") -> "_Reading":
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return cls(torch.cat([part.states for part in parts], dim=1), torch.cat(pooled) if pooled else None)


@dataclass(frozen=True)
class Anchor:
    """A long student, the frozen base encoder that it must agree with, their tokenizer and what the pipelines read.

    Args:
        student: CLIPTextModel(WithProjection) of L positions, or the text tower of a CLIPModel.
        teacher: the base, N positions.
        tokenizer: the base's own, with its own padding token.
        reads: "last": the last layer, as Stable Diffusion 1.x and 2.x; "penultimate": the one before it, as SDXL. It
            and the two layers before it are compared, all without the final norm: behind it, where Stable Diffusion 1.x
            reads, the storybook's details between tokens 77 and 150 were kept a little less well (.91 against .93).
        ends: whether a long text's end-of-text row (and its pooled feature) is anchored too, to that of the teacher's
            first window, which is what a stock pipeline pools. Contrastive losses need it free. A short text's always
            is: what it was called before, it is called after (zero-shot).
        context: how the teacher's windows are planned, see `plan_windows`.
    """

    student: TextEncoder | nn.Module
    teacher: TextEncoder | nn.Module
    tokenizer: CLIPTokenizer
    reads: Reads = "last"
    ends: bool = True
    context: str = "related"

    @property
    def window(self) -> int:
        """Positions of the teacher."""
        return num_positions(self.teacher)

    def loss(self, long_texts: Sequence[str], short_texts: Sequence[str]) -> Tensor:
        """Relative squared error |s - t|^2 / |t|^2 of the student's token states: the mean over rows, then over texts.

        Long texts are compared with the teacher's context windows, short ones with the teacher's reading of the same
        rows. Since it is a mean over texts, a batch may be split: its loss is the parts' mean by size.

        Args:
            long_texts: each fits the student's positions.
            short_texts: each fits the teacher's.
        """
        length = num_positions(self.student)
        targets, owned = self._targets(long_texts, length)
        whole = [plan_windows(text, self.tokenizer, window=length).windows[0].ids for text in long_texts]
        read = self._read(self.student, self._ids(whole, length))
        end = owned[:, None] - 1
        row = torch.arange(length, device=end.device)
        inside = row < (end + 1 if self.ends else end)
        loss = _row_error(read.states, targets.states, inside)
        loss = loss + AFTER_TEXT_WEIGHT * _row_error(read.states, targets.states, row > end)
        pooled = _pooled_error(read, targets) if self.ends else 0.0
        return loss + pooled + SHORT_WEIGHT * self.short_loss(short_texts)

    def short_loss(self, texts: Sequence[str]) -> Tensor:
        """The part of the loss that short texts have: how far all their rows have drifted from the teacher's, and once
        more what is pooled: the projected feature, or the end-of-text row."""
        length = self.window
        rows = [plan_windows(text, self.tokenizer, window=length).windows[0].ids for text in texts]
        ids = self._ids(rows, length)
        with torch.no_grad():
            target = self._read(self.teacher, ids)
        read = self._read(self.student, ids)
        drift = _row_error(read.states, target.states, torch.ones_like(ids))
        if read.pooled is not None:
            return drift + _pooled_error(read, target)
        ends = torch.tensor([len(row) - 1 for row in rows], device=ids.device)[:, None]
        is_end = torch.arange(length, device=ids.device) == ends
        return drift + POOLED_WEIGHT * _row_error(read.states, target.states, is_end)

    def _ids(self, rows: Sequence[Sequence[int]], length: int) -> Tensor:
        device = position_table(self.student).device
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids.to(device)

    def _read(self, encoder: nn.Module, ids: Tensor) -> _Reading:
        output = encoder(ids, output_hidden_states=True)
        if self.reads == "last":
            return _Reading(torch.stack(output.hidden_states[-NUM_LAYERS:]), None)
        pooled = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
        return _Reading(torch.stack(output.hidden_states[-NUM_LAYERS - 1 : -1]), pooled)

    @torch.no_grad()
    def _targets(self, texts: Sequence[str], length: int) -> tuple[_Reading, Tensor]:
        """What the student should read, and how many rows each text fills, BOS and EOS included, (B,).

        Row 0 and the content rows come from the windows that own them, the end-of-text row and the pooled feature
        from the first window; every row after it is the mean of the last window's padding rows.
        """
        window = self.window
        plans = [plan_windows(text, self.tokenizer, window=window, context=self.context) for text in texts]
        ids = self._ids([each.ids for plan in plans for each in plan.windows], window)
        read = _Reading.join([self._read(self.teacher, part) for part in ids.split(TEACHER_BATCH)])
        first = torch.tensor([0, *(len(plan.windows) for plan in plans)]).cumsum(0)
        states = [
            _target_rows(read.states[:, start:stop], plan, length)
            for plan, start, stop in zip(plans, first[:-1], first[1:], strict=True)
        ]
        pooled = None if read.pooled is None else read.pooled[first[:-1].to(read.pooled.device)]
        owned = torch.tensor([plan.num_tokens + 2 for plan in plans], device=ids.device)
        return _Reading(torch.stack(states, dim=1), pooled), owned


def _target_rows(states: Tensor, plan: WindowPlan, length: int) -> Tensor:
    """One text's windows, (layers, W, N, D) -> its rows as one window of `length`, (layers, length, D)."""
    own = [states[:, index, 1 + window.num_context : len(window.ids) - 1] for index, window in enumerate(plan.windows)]
    first_end, last_end = len(plan.windows[0].ids) - 1, len(plan.windows[-1].ids) - 1
    rows = torch.cat([states[:, 0, :1], *own, states[:, 0, first_end : first_end + 1]], dim=1)
    after = states[:, -1, last_end:].mean(dim=1, keepdim=True)
    return torch.cat([rows, after.expand(-1, length - rows.shape[1], -1)], dim=1)


def _pooled_error(student: _Reading, teacher: _Reading) -> Tensor | float:
    if student.pooled is None or teacher.pooled is None:
        return 0.0
    return POOLED_WEIGHT * _relative(student.pooled, teacher.pooled).mean()


def _relative(student: Tensor, teacher: Tensor) -> Tensor:
    if student.dtype != torch.float64:  # squares of bf16 states would lose what is compared
        student, teacher = student.float(), teacher.float()
    return (student - teacher).square().sum(-1) / teacher.square().sum(-1).clamp_min(1e-6)


def _row_error(student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
    """Mean over layers and the chosen rows (B, N) of each text, then over the texts; a text without rows adds 0."""
    error = _relative(student, teacher).mean(0) * rows
    return (error.sum(1) / rows.sum(1).clamp_min(1)).mean()
