"""The anchor: lengthen a text encoder from plain text, keeping its token states where a UNet expects them.

The teacher is the frozen base encoder, reading each sentence in a window of its own length behind the earlier
sentences that it needs (`context.py`). The student is the stretched encoder, reading the whole text at once. Their
states of the same tokens are pulled together, together with the rows after the text and all rows of short prompts.
No image, no label and no UNet takes part.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ..positions import KEPT_ROWS
from ..text_encoder import num_positions, position_table
from ..windows import WindowPlan, plan_windows
from .loop import Schedule, Step, optimise

__all__ = ["ANCHOR_SCHEDULE", "anchor_loss", "prepare_student", "train_anchor"]

ANCHOR_SCHEDULE = Schedule(steps=1500, batch_size=16, learning_rate=1e-3, warmup=20)
# Layers whose states are compared: SD 1.x reads the last, SDXL the one before it.
NUM_LAYERS = 3
# Rows after the text say little and are many; the UNet reads them all the same.
AFTER_TEXT_WEIGHT = 0.2
SHORT_WEIGHT = 1.0


def prepare_student(student: CLIPTextModel) -> CLIPTextModel:
    """Freeze what stays the base's own, bit for bit: the token embedding and position rows 0 to 19."""
    student.get_input_embeddings().requires_grad_(False)
    table = position_table(student)
    free = torch.ones_like(table)
    free[:KEPT_ROWS] = 0
    table.register_hook(lambda gradient: gradient * free)
    return student


def _padded(rows: Sequence[Sequence[int]], pad: int, length: int, device: torch.device) -> Tensor:
    ids = torch.full((len(rows), length), pad, device=device)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, device=device)
    return ids


def _states(encoder: CLIPTextModel, ids: Tensor) -> Tensor:
    """States of the last layers before the final norm, (layers, B, N, D)."""
    hidden = encoder(ids, output_hidden_states=True).hidden_states
    return torch.stack(hidden[-NUM_LAYERS:])


def _relative_error(student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
    """Mean of |s - t|^2 / |t|^2 over the rows (B, N) chosen, 0 where none is."""
    error = (student - teacher).square().sum(-1) / teacher.square().sum(-1).clamp_min(1e-6)
    chosen = rows.expand_as(error)
    return error[chosen].mean() if chosen.any() else error.sum() * 0


def _teacher_states(
    teacher: CLIPTextModel, plans: Sequence[WindowPlan], pad: int, length: int
) -> tuple[Tensor, Tensor]:
    """What the student's states should be, (layers, B, length, D), and how many rows each text fills, (B,).

    Row 0 and the content rows come from the windows that own them; the end-of-text row from the last window; every
    row after it is the mean of the last window's padding rows.
    """
    windows = [window for plan in plans for window in plan.windows]
    ids = _padded([window.ids for window in windows], pad, num_positions(teacher), teacher.device)
    states = _states(teacher, ids)
    targets = states.new_zeros(states.shape[0], len(plans), length, states.shape[-1])
    filled, start = [], 0
    for row, plan in enumerate(plans):
        parts = [states[:, start, :1]]
        for offset, window in enumerate(plan.windows):
            parts.append(states[:, start + offset, 1 + window.num_context : len(window.ids) - 1])
        last, end = start + len(plan.windows) - 1, len(plan.windows[-1].ids)
        parts.append(states[:, last, end - 1 : end])
        own = torch.cat(parts, dim=1)
        filled.append(own.shape[1])
        targets[:, row, : own.shape[1]] = own
        targets[:, row, own.shape[1] :] = states[:, last, end - 1 :].mean(dim=1, keepdim=True)
        start += len(plan.windows)
    return targets, torch.tensor(filled, device=states.device)


def anchor_loss(
    student: CLIPTextModel,
    teacher: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    long_texts: Sequence[str],
    short_texts: Sequence[str],
    *,
    context: str = "related",
) -> Tensor:
    """Relative squared error of the student's token states: long texts against context windows, short ones as they are.

    Args:
        student: L positions; every long text must fit them.
        teacher: frozen, N positions; every short text must fit them.
        context: how the teacher's windows are planned, see `plan_windows`.
    """
    teacher_length, student_length = num_positions(teacher), num_positions(student)
    pad, device = tokenizer.pad_token_id, student.device
    with torch.no_grad():
        plans = [plan_windows(text, tokenizer, window=teacher_length, context=context) for text in long_texts]
        targets, filled = _teacher_states(teacher, plans, pad, student_length)
        short = [plan_windows(text, tokenizer, window=teacher_length).windows[0].ids for text in short_texts]
        short_ids = _padded(short, pad, teacher_length, device)
        short_targets = _states(teacher, short_ids)
    whole = [plan_windows(text, tokenizer, window=student_length).windows[0].ids for text in long_texts]
    states = _states(student, _padded(whole, pad, student_length, device))
    inside = torch.arange(student_length, device=device) < filled[:, None]
    loss = _relative_error(states, targets, inside) + AFTER_TEXT_WEIGHT * _relative_error(states, targets, ~inside)
    everywhere = torch.ones_like(short_ids, dtype=torch.bool)
    return loss + SHORT_WEIGHT * _relative_error(_states(student, short_ids), short_targets, everywhere)


def train_anchor(
    student: CLIPTextModel,
    teacher: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    draw_texts: Callable[[int], tuple[Sequence[str], Sequence[str]]],
    *,
    state: Path,
    schedule: Schedule = ANCHOR_SCHEDULE,
) -> Iterator[Step]:
    """Train the stretched `student` in place on the long and short texts that `draw_texts` gives for each step."""
    prepare_student(student)
    teacher.eval().requires_grad_(False)

    def loss_of(step: int) -> Tensor:
        return anchor_loss(student, teacher, tokenizer, *draw_texts(step))

    yield from optimise(student, loss_of, schedule, state)
