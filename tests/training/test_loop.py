"""The optimisation loop: a resumed run is the run that was never interrupted."""

import itertools

import pytest
import torch
from torch import nn

from longclip_diffusers import LongClipError
from longclip_diffusers.training.loop import Schedule, optimise

SCHEDULE = Schedule(steps=12, batch_size=4, learning_rate=0.05, warmup=3, averaging=0.9)


def model():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def loss_of(module):
    def loss(step):
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        return (module(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    return loss


def run(module, path, *, stop=None, monkeypatch=None):
    return list(itertools.islice(optimise(module, loss_of(module), SCHEDULE, path), stop))


def test_a_resumed_run_ends_bit_equal_to_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr("longclip_diffusers.training.loop.SECONDS_BETWEEN_SAVES", -1)
    whole, broken = model(), model()
    steps = run(whole, tmp_path / "whole.safetensors")
    # Stopped while step 6 is in the caller's hands: it is not saved yet and must be done again.
    first = run(broken, tmp_path / "broken.safetensors", stop=6)
    resumed = model()
    rest = run(resumed, tmp_path / "broken.safetensors")
    assert [step.step for step in rest] == list(range(6, 13))
    assert first + rest[1:] == steps
    assert torch.equal(resumed.weight, whole.weight)


def test_training_learns_and_ends_with_the_averaged_weights(tmp_path):
    module = model()
    steps = run(module, tmp_path / "state.safetensors")
    assert steps[-1].loss < steps[0].loss
    last = model()
    plain = Schedule(steps=12, batch_size=4, learning_rate=0.05, warmup=3)
    list(optimise(last, loss_of(last), plain, tmp_path / "plain.safetensors"))
    assert not torch.equal(module.weight, last.weight)


def test_the_rate_warms_up_and_falls_to_its_floor():
    rates = [SCHEDULE.rate(step) for step in range(1, 13)]
    assert max(rates) == SCHEDULE.rate(3) == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.05 * SCHEDULE.floor)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    module = model()
    with pytest.raises(LongClipError, match="became nan at step 1"):
        list(optimise(module, lambda step: module.weight.sum() * float("nan"), SCHEDULE, tmp_path / "s.safetensors"))


def test_a_damaged_state_is_refused_and_kept(tmp_path):
    path = tmp_path / "state.safetensors"
    path.write_bytes(b"not a state")
    with pytest.raises(LongClipError, match="cannot be resumed from"):
        run(model(), path)
    assert path.read_bytes() == b"not a state"
