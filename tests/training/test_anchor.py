"""The anchor: what it pulls together, and what it leaves alone."""

from dataclasses import replace

import pytest
import torch
import toys

from longclip_diffusers.text_encoder import num_positions, stretch_text_encoder
from longclip_diffusers.training import anchor as module
from longclip_diffusers.training.anchor import Anchor
from longclip_diffusers.windows import plan_windows

LONG = " ".join(f"the {noun} is red. it stood there for years." for noun in ("door", "roof", "boat", "kite", "fence"))
SHORT = "a red door."


@pytest.fixture
def tokenizer():
    return toys.tokenizer(248)


@pytest.fixture
def teacher():
    return toys.text_encoder(77)


@pytest.fixture
def anchor(teacher, tokenizer):
    return Anchor(stretch_text_encoder(teacher), teacher, tokenizer)


def states(encoder, ids):
    with torch.no_grad():
        return encoder(torch.tensor([ids]), output_hidden_states=True)


def test_targets_are_each_windows_own_rows(anchor):
    plan = plan_windows(LONG, anchor.tokenizer, window=77, context="related")
    assert len(plan.windows) > 1
    targets, owned = anchor._targets([LONG], 248)
    assert owned.item() == plan.num_tokens + 2
    window = plan.windows[1]
    start = 1 + len(plan.windows[0].own_ids)
    expected = states(anchor.teacher, window.ids).hidden_states[-1][0, 1 + window.num_context : -1]
    read = targets.states[-1, 0, start : start + len(expected)]
    torch.testing.assert_close(read, expected, atol=1e-4, rtol=1e-4)  # read in a batch, padded


def test_the_end_row_is_the_first_windows(anchor):
    first = plan_windows(LONG, anchor.tokenizer, window=77, context="related").windows[0]
    targets, owned = anchor._targets([LONG], 248)
    expected = states(anchor.teacher, first.ids).hidden_states[-1][0, -1]
    torch.testing.assert_close(targets.states[-1, 0, owned.item() - 1], expected)


def test_penultimate_states_are_compared_where_sdxl_reads(teacher, tokenizer):
    anchor = Anchor(stretch_text_encoder(teacher), teacher, tokenizer, reads="penultimate")
    first = plan_windows(LONG, tokenizer, window=77, context="related").windows[0]
    targets, _ = anchor._targets([LONG], 248)
    expected = states(teacher, first.ids).hidden_states[-2][0, 1:5]
    torch.testing.assert_close(targets.states[-1, 0, 1:5], expected)
    torch.testing.assert_close(targets.pooled, states(teacher, first.ids).pooler_output)


@pytest.mark.parametrize("reads", ["last", "penultimate"])
def test_pooled_features_are_anchored_for_encoders_with_projection(tokenizer, reads):
    teacher = toys.text_encoder_with_projection(77)
    student = stretch_text_encoder(teacher)
    anchor = Anchor(student, teacher, tokenizer, reads=reads)
    before = anchor.loss([SHORT], [SHORT]).item()
    with torch.no_grad():
        student.text_projection.weight.mul_(1.5)
    after = anchor.loss([SHORT], [SHORT]).item()
    # "last" already holds the end row; there the projection is nobody's to train.
    assert (after > before + 0.1) == (reads == "penultimate")


def test_without_ends_a_long_texts_end_row_is_free_and_a_short_ones_is_not(anchor, monkeypatch):
    free = replace(anchor, ends=False)
    before = free.loss([SHORT], [SHORT]).item()
    end = len(plan_windows(SHORT, anchor.tokenizer).windows[0].ids) - 1
    read, lengths = Anchor._read, [num_positions(anchor.student)]

    def moved(self, encoder, ids):
        reading = read(self, encoder, ids)
        if encoder is self.student and ids.shape[1] in lengths:
            reading.states[:, :, end] *= 2
        return reading

    monkeypatch.setattr(Anchor, "_read", moved)
    with torch.no_grad():
        assert free.loss([SHORT], [SHORT]).item() == before
        assert anchor.loss([SHORT], [SHORT]).item() > before + 0.01
        lengths[:] = [anchor.window]
        assert free.loss([SHORT], [SHORT]).item() > before + 0.01


def test_a_short_text_counts_what_is_pooled_once_more(anchor):
    """The end row, where the last layer is read; moved alone it costs what any other row costs, and once more alone."""
    read, moved = Anchor._read, []

    def move(row):
        def reading(self, encoder, ids):
            found = read(self, encoder, ids)
            if encoder is self.student:
                found.states[:, :, row] += 1
            return found

        return reading

    end = len(plan_windows(SHORT, anchor.tokenizer, window=anchor.window).windows[0].ids) - 1
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        still = anchor.short_loss([SHORT]).item()
        for row in (end, end - 1):
            patch.setattr(Anchor, "_read", move(row))
            moved.append(anchor.short_loss([SHORT]).item() - still)
    assert moved[0] > 10 * moved[1] > 0


def test_a_batch_is_the_mean_of_its_parts(anchor):
    longs, shorts = [LONG, SHORT, LONG[:150]], [SHORT, "b", "c d"]
    with torch.no_grad():
        whole = anchor.loss(longs, shorts)
        parts = [anchor.loss([long], [short]) for long, short in zip(longs, shorts, strict=True)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_a_gradient_step_lowers_the_loss(anchor):
    trained = list(anchor.student.parameters())
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    before = anchor.loss([LONG], [SHORT])
    before.backward()
    optimiser.step()
    assert anchor.loss([LONG], [SHORT]).item() < before.item()


def test_on_a_text_that_fits_the_teacher_is_its_own_best_student(teacher, tokenizer, monkeypatch):
    # The rows after the text differ even then: their target is one mean row.
    monkeypatch.setattr(module, "AFTER_TEXT_WEIGHT", 0.0)
    assert Anchor(teacher, teacher, tokenizer).loss([SHORT], [SHORT]).item() == 0
    stranger = Anchor(toys.text_encoder(77, seed=9), teacher, tokenizer)
    assert stranger.loss([SHORT], [SHORT]).item() > 0.1
