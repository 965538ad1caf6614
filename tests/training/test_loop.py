"""The optimisation loop: a resumed run is the run that was never interrupted."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from longclip_diffusers import LongClipError
from longclip_diffusers.training.checkpointing import Checkpoints
from longclip_diffusers.training.loop import Schedule, optimise, optimise_state, prepare_state

SCHEDULE = Schedule(steps=12, batch_size=4, learning_rate=0.05, warmup=3, averaging=0.9)


def model():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def loss_of(module):
    def loss(step):
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        return (module(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    return loss


def run(module, path, *, stop=None, schedule=SCHEDULE):
    return list(itertools.islice(optimise(module, loss_of(module), schedule, path), stop))


needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch 2.9 has Muon")
both_optimizers = pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=needs_muon)])


@pytest.fixture
def always_due(monkeypatch):
    monkeypatch.setattr(Checkpoints, "due", lambda self: True)


@both_optimizers
def test_a_resumed_run_ends_bit_equal_to_an_uninterrupted_one(tmp_path, always_due, optimizer):
    schedule = replace(SCHEDULE, optimizer=optimizer)
    whole, broken = model(), model()
    steps = run(whole, tmp_path / "whole", schedule=schedule)
    # Stopped while step 6 is in the caller's hands: it is not saved yet and must be done again.
    first = run(broken, tmp_path / "broken", stop=6, schedule=schedule)
    resumed = model()
    rest = run(resumed, tmp_path / "broken", schedule=schedule)
    assert [step.step for step in rest] == list(range(6, 13))
    assert first + rest[1:] == steps
    assert torch.equal(resumed.weight, whole.weight)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, always_due):
    whole, broken = model(), model()
    run(whole, tmp_path / "whole")
    run(broken, tmp_path / "broken", stop=6)
    assert [path.name for path in Checkpoints(tmp_path / "broken").files] == [
        "step-00000004.safetensors",
        "step-00000005.safetensors",
    ]
    newest = tmp_path / "broken" / "step-00000005.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    resumed = model()
    with pytest.warns(UserWarning, match=r"step-00000005.safetensors cannot be resumed from .*the one before it"):
        rest = run(resumed, tmp_path / "broken")
    assert rest[0].step == 5
    assert torch.equal(resumed.weight, whole.weight)


def test_checkpoints_that_are_all_damaged_stop_the_run(tmp_path, always_due):
    run(model(), tmp_path, stop=2)
    for path in Checkpoints(tmp_path).files:
        path.write_bytes(b"<html>")
    with pytest.raises(LongClipError, match=r"No checkpoint in .* can be resumed from .*delete the folder"):
        run(model(), tmp_path)


def test_a_full_disk_stops_clearly_and_keeps_the_last_good_checkpoint(tmp_path, always_due, monkeypatch):
    run(model(), tmp_path, stop=4)
    good = {path.name: path.read_bytes() for path in Checkpoints(tmp_path).files}

    def full(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("longclip_diffusers.training.checkpointing.save_file", full)
    with pytest.raises(LongClipError, match=r"cannot be written: .*No space left.*step-00000003.* last good one"):
        run(model(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == good


def test_notes_are_saved_with_the_step_in_the_callers_hands(tmp_path, always_due):
    module = model()
    state, checkpoints = prepare_state(module, SCHEDULE), Checkpoints(tmp_path)
    backward = {"loss": 1.0}
    for step in itertools.islice(optimise_state(state, lambda number: backward, SCHEDULE, checkpoints), 5):
        state.notes["best"] = step.step
    again = prepare_state(model(), SCHEDULE)
    checkpoints.restore(again)
    assert (again.step, again.notes) == (4, {"best": 4})


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    module = model()
    with pytest.raises(LongClipError, match="The loss became nan at step 1"):
        list(optimise(module, lambda step: module(torch.full((1, 3), torch.nan)).sum(), SCHEDULE, tmp_path))


def test_training_learns_and_ends_with_the_averaged_weights(tmp_path):
    module = model()
    steps = run(module, tmp_path / "state")
    assert steps[-1].loss < steps[0].loss
    last = model()
    plain = Schedule(steps=12, batch_size=4, learning_rate=0.05, warmup=3)
    list(optimise(last, loss_of(last), plain, tmp_path / "plain"))
    assert not torch.equal(module.weight, last.weight)


def test_a_batch_has_equal_shares_or_is_refused():
    assert replace(SCHEDULE, shares=2).share_size == 2
    with pytest.raises(ValueError, match="a batch of 4 has no 3 equal shares"):
        replace(SCHEDULE, shares=3)


def test_shares_train_as_their_mean_does_even_where_one_leaves_a_part_out(tmp_path):
    def parts():
        torch.manual_seed(0)
        return nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1), nn.Linear(3, 1)])

    def share_of(module):
        def loss(number):
            inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
            used = module[0](inputs) + (module[1](inputs) if number % 2 else 0)  # the third never
            return (used - inputs.sum(1, keepdim=True)).square().mean()

        return loss

    shared, whole = parts(), parts()
    share = share_of(whole)
    schedule = replace(SCHEDULE, shares=2)
    steps = list(optimise(shared, share_of(shared), schedule, tmp_path / "shared"))
    mean = list(optimise(whole, lambda step: (share(2 * step) + share(2 * step + 1)) / 2, SCHEDULE, tmp_path / "whole"))
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in mean], rel=1e-5)
    for one, other in zip(shared.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    again = parts()
    list(optimise(again, share_of(again), schedule, tmp_path / "again"))
    assert all(torch.equal(*pair) for pair in zip(shared.parameters(), again.parameters(), strict=True))


@needs_muon
def test_muon_takes_the_weights_of_linear_layers_and_adamw_the_rest(tmp_path):
    module = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.LayerNorm(8))
    module[2].bias.requires_grad_(False)
    state = prepare_state(module, replace(SCHEDULE, optimizer="muon"))
    taken = {name: optimiser.param_groups[0]["params"] for name, optimiser in state.optimisers.items()}
    assert [each.shape for each in taken["muon"]] == [(8, 8)]
    assert {id(each) for each in taken["adamw"]} == {
        id(each) for each in (module[0].weight, module[1].bias, module[2].weight)
    }


@needs_muon
def test_muon_keeps_the_groups_decay():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    groups = [
        {"params": list(part.parameters()), "weight_decay": decay}
        for part, decay in zip(module, (0.5, 0.0), strict=True)
    ]
    state = prepare_state(module, replace(SCHEDULE, optimizer="muon"), groups=groups)
    for optimiser in state.optimisers.values():
        assert [group["weight_decay"] for group in optimiser.param_groups] == [0.5, 0.0]


def test_a_torch_without_muon_says_so(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(LongClipError, match=r"optimizer 'muon' needs torch 2.9 or later, this is .*; choose adamw"):
        prepare_state(model(), replace(SCHEDULE, optimizer="muon"))


def test_the_rate_warms_up_and_falls_to_its_floor():
    rates = [SCHEDULE.rate(step) for step in range(1, 13)]
    assert max(rates) == SCHEDULE.rate(3) == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.05 * SCHEDULE.floor)
    assert rates[2:] == sorted(rates[2:], reverse=True)
