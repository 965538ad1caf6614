"""The key tables against names written out by hand, both ways."""

import checkpoint_makers as makers
import pytest
import torch

from longclip_diffusers.checkpoints.formats import layer_count, read_layout, to_openai
from longclip_diffusers.errors import CheckpointError


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def test_openai_names_become_transformers_names() -> None:
    layout = read_layout(makers.openai_state())
    assert_same(layout.tensors, makers.transformers_state(makers.openai_state()))
    assert layout.unknown == ()


def test_stock_weights_come_back_as_they_were() -> None:
    assert_same(to_openai(read_layout(makers.openai_state()).tensors), makers.openai_state())


def test_long_weights_come_back_equal_in_every_row_that_is_read() -> None:
    state = makers.longclip_state()
    again = to_openai(read_layout(state).tensors)
    assert again.keys() == state.keys()
    assert torch.equal(again["positional_embedding"][:20], state["positional_embedding"][:20])
    assert torch.equal(again["positional_embedding_res"][20:], state["positional_embedding_res"][20:])
    tables = ("positional_embedding", "positional_embedding_res")
    assert_same(
        {k: v for k, v in again.items() if k not in tables}, {k: v for k, v in state.items() if k not in tables}
    )
    assert again["positional_embedding"].data_ptr() != again["positional_embedding_res"].data_ptr()


def test_transformers_names_stay() -> None:
    state = makers.transformers_state(makers.openai_state())
    assert_same(read_layout(state).tensors, state)
    assert_same(read_layout(to_openai(state)).tensors, state)


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (makers.longclip_state(), "Long-CLIP, two position tables"),
        (makers.gmp_state(makers.longclip_state()), "Long-CLIP, two position tables, GmP"),
        (makers.gmp_state(makers.openai_state()), "OpenAI / open_clip, GmP"),
        (makers.openai_state(), "OpenAI / open_clip"),
        (makers.transformers_state(makers.openai_state()), "transformers CLIPModel"),
        (makers.text_only(makers.transformers_state(makers.openai_state())), "transformers text encoder"),
        (makers.transformers_state(makers.longclip_state()), "longclip-transformers, two position tables"),
    ],
)
def test_layouts_are_told_apart(state: dict[str, torch.Tensor], name: str) -> None:
    assert read_layout(state).name == name


def test_two_tables_of_unlike_dtypes_lose_nothing() -> None:
    state = makers.longclip_state()
    state["positional_embedding"] = state["positional_embedding"].half()
    table = read_layout(state).tensors["text_model.embeddings.position_embedding.weight"]
    assert torch.equal(table[20:], state["positional_embedding_res"][20:])
    assert torch.equal(table[:20], state["positional_embedding"][:20].float())


def test_layers_are_counted() -> None:
    names = read_layout(makers.openai_state()).tensors
    assert (layer_count(names, "text_model"), layer_count(names, "vision_model")) == (2, 2)
    assert layer_count(["text_model.encoder.layers.11.layer_norm1.bias"], "text_model") == 12
    assert layer_count(names, "other") == 0


def test_what_openai_has_no_name_for_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"text_model\.extra is not a weight of a CLIP"):
        to_openai({"text_model.extra": torch.ones(1)})
