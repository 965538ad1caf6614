"""The anchor: what it pulls together, and what it leaves alone."""

import pytest
import torch
import toys

from longclip_diffusers.text_encoder import position_table, stretch_text_encoder
from longclip_diffusers.training.anchor import _teacher_states, anchor_loss, train_anchor
from longclip_diffusers.training.loop import Schedule
from longclip_diffusers.windows import plan_windows

LONG = " ".join(f"the {noun} is red. it stood there for years." for noun in ("door", "roof", "boat", "kite", "fence"))
SHORT = "a red door."


@pytest.fixture
def tokenizer():
    return toys.tokenizer(248)


@pytest.fixture
def teacher(tokenizer):
    return toys.text_encoder(77)


def test_targets_are_each_windows_own_rows(teacher, tokenizer):
    plan = plan_windows(LONG, tokenizer, window=77, context="related")
    assert len(plan.windows) > 1
    targets, filled = _teacher_states(teacher, [plan], tokenizer.pad_token_id, 248)
    assert filled.item() == plan.num_tokens + 2
    window = plan.windows[1]
    with torch.no_grad():
        states = teacher(torch.tensor([window.ids]), output_hidden_states=True).hidden_states[-1][0]
    start = 1 + len(plan.windows[0].own_ids)
    own = states[1 + window.num_context : -1]
    torch.testing.assert_close(targets[-1, 0, start : start + len(own)], own)


def test_training_lowers_the_loss_and_leaves_kept_rows_and_tokens_bit_identical(teacher, tokenizer, tmp_path):
    student = stretch_text_encoder(teacher)
    before = anchor_loss(student, teacher, tokenizer, [LONG], [SHORT]).item()
    schedule = Schedule(steps=10, batch_size=1, learning_rate=3e-3, warmup=1)
    state = tmp_path / "anchor.safetensors"
    list(train_anchor(student, teacher, tokenizer, lambda step: ([LONG], [SHORT]), state=state, schedule=schedule))
    assert anchor_loss(student, teacher, tokenizer, [LONG], [SHORT]).item() < before
    assert torch.equal(position_table(student)[:20], position_table(teacher)[:20])
    assert not torch.equal(position_table(student)[20:77], position_table(stretch_text_encoder(teacher))[20:77])
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)


def test_on_a_text_that_fits_the_teacher_is_its_own_best_student(teacher, tokenizer, monkeypatch):
    # The rows after the text differ even then: their target is one mean row.
    monkeypatch.setattr("longclip_diffusers.training.anchor.AFTER_TEXT_WEIGHT", 0.0)
    assert anchor_loss(teacher, teacher, tokenizer, [SHORT], [SHORT]).item() == 0
    stranger = toys.text_encoder(77, seed=9)
    assert anchor_loss(stranger, teacher, tokenizer, [SHORT], [SHORT]).item() > 0.1
