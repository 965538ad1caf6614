"""Estimates of memory are near what a step keeps, and decide how many samples are encoded at once."""

import dataclasses

import pytest
import torch
import toys
from torch import nn

from longclip_diffusers.training import memory
from longclip_diffusers.training.memory import auto_micro_batch, step_memory
from longclip_diffusers.training.recipe import Recipe

RECIPE = Recipe(base="toy", batch_size=64)


def kept_bytes(model, encode):
    """What autograd keeps for the backward pass, without the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()  # alive, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        encode()
    return sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in weights)


def test_a_sample_keeps_what_is_estimated():
    # Wide and deep enough for embeddings and attention sums to be small beside the layers.
    model = toys.clip(100, hidden_size=128, intermediate_size=512, num_hidden_layers=6)
    ids = torch.full((2, 100), 513)
    measured = kept_bytes(model, lambda: model.text_model(ids)) / 2
    frozen = dataclasses.replace(RECIPE, freeze_vision=True)
    estimated = (step_memory(model, frozen, 32) - step_memory(model, frozen, 16)) / 16
    assert estimated == pytest.approx(measured, rel=0.1)


def test_a_given_number_is_taken():
    model = toys.clip(40)
    assert auto_micro_batch(model, dataclasses.replace(RECIPE, micro_batch=12), 64) == 12
    assert auto_micro_batch(model, dataclasses.replace(RECIPE, micro_batch=12), 8) == 8


def test_memory_decides(monkeypatch):
    model = toys.clip(40)

    def with_memory(usable):
        monkeypatch.setattr(memory, "_usable_memory", lambda device: usable)
        return auto_micro_batch(model, RECIPE, 64)

    assert with_memory(step_memory(model, RECIPE, 64)) == 64
    assert with_memory(step_memory(model, RECIPE, 64) - 1) == 32
    assert with_memory(step_memory(model, RECIPE, 16)) == 16
    assert with_memory(0) == 1


@pytest.mark.parametrize(
    "less",
    [{"precision": "bf16"}, {"freeze_vision": True}, {"batch_size": 32}],
    ids=lambda less: next(iter(less)),
)
def test_options_take_less(less):
    model = toys.clip(20)
    assert step_memory(model, dataclasses.replace(RECIPE, **less), 64) < step_memory(model, RECIPE, 64)


def test_text_encoders_alone():
    recipe = dataclasses.replace(RECIPE, objective="anchor")
    encoders = nn.ModuleDict({"text_encoder": toys.text_encoder(248), "text_encoder_2": toys.text_encoder(248)})
    one = nn.ModuleDict({"text_encoder": toys.text_encoder(248)})
    assert 0 < step_memory(one, recipe, 8) < step_memory(encoders, recipe, 8) < step_memory(encoders, recipe, 16)


def test_this_machine_has_memory():
    assert auto_micro_batch(toys.clip(20), RECIPE, 64) == 64
