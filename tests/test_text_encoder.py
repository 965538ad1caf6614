"""Stretching an encoder: what it computes, what it leaves alone, and what its files look like to others."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from longclip_diffusers.errors import ModelError
from longclip_diffusers.positions import stretch_positions
from longclip_diffusers.text_encoder import (
    CLIP_EOS,
    inner_text_model,
    num_positions,
    position_table,
    save_text_encoder,
    stretch_text_encoder,
)

CLASSES = [CLIPTextModel, CLIPTextModelWithProjection]


def build(cls: type = CLIPTextModel, **changes: int) -> CLIPTextModel | CLIPTextModelWithProjection:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return cls(CLIPTextConfig(**{**sizes, "projection_dim": 12, "eos_token_id": 2, **changes})).eval()


def ids_of(length: int) -> torch.Tensor:
    ids = torch.randint(1000, 40000, (2, length), generator=torch.Generator().manual_seed(length))
    ids[:, 0], ids[:, -1] = 49406, CLIP_EOS
    return ids


def keys_of(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("cls", CLASSES)
def test_stretching_changes_positions_config_and_buffer_and_not_its_input(cls: type) -> None:
    short = build(cls)
    before = {name: value.clone() for name, value in short.state_dict().items()}
    long = stretch_text_encoder(short)

    assert type(long) is cls
    assert (num_positions(short), num_positions(long)) == (77, 248)
    assert (short.config.max_position_embeddings, long.config.max_position_embeddings) == (77, 248)
    assert (short.config.eos_token_id, long.config.eos_token_id) == (2, CLIP_EOS)
    assert torch.equal(inner_text_model(long).embeddings.position_ids, torch.arange(248)[None])
    assert torch.equal(position_table(long), stretch_positions(position_table(short)))
    assert position_table(long).requires_grad
    assert not hasattr(CLIPTextModel, "text_model")
    for name, value in short.state_dict().items():
        assert torch.equal(value, before[name])
        if "position_embedding" not in name:
            assert torch.equal(value, long.state_dict()[name])


@pytest.mark.parametrize("cls", CLASSES)
def test_the_first_twenty_tokens_read_as_before_and_248_tokens_run(cls: type) -> None:
    short, long = build(cls), stretch_text_encoder(build(cls))
    with torch.no_grad():
        assert torch.equal(short(ids_of(20)).last_hidden_state, long(ids_of(20)).last_hidden_state)
        assert not torch.allclose(short(ids_of(77)).last_hidden_state, long(ids_of(77)).last_hidden_state)
        assert long(ids_of(248)).last_hidden_state.shape == (2, 248, 16)


def test_pooling_takes_eos_and_not_a_textual_inversion_token() -> None:
    long = stretch_text_encoder(build(vocab_size=49410))
    ids = ids_of(30)
    ids[:, 5] = 49409
    with torch.no_grad():
        output = long(ids)
    assert torch.equal(output.pooler_output, output.last_hidden_state[:, -1])


def test_another_vocabulary_keeps_its_eos() -> None:
    long = stretch_text_encoder(build(vocab_size=514, eos_token_id=513))
    assert long.config.eos_token_id == long.eos_token_id == 513


def test_a_long_encoder_is_never_stretched_twice() -> None:
    long = stretch_text_encoder(build())
    again = stretch_text_encoder(long)
    assert again is not long
    assert torch.equal(position_table(again), position_table(long))


def test_dtype_training_mode_and_frozen_table_are_kept() -> None:
    short = build().half().train()
    position_table(short).requires_grad_(False)
    long = stretch_text_encoder(short, keep=30, factor=3)
    assert long.dtype == torch.float16
    assert long.training
    assert not position_table(long).requires_grad
    assert num_positions(long) == 171


def test_accelerate_hooks_are_not_copied() -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    short = build()
    add_hook_to_module(short, ModelHook())
    long = stretch_text_encoder(short)
    assert not hasattr(long, "_hf_hook")
    assert hasattr(short, "_hf_hook")
    with torch.no_grad():
        position_table(short).zero_()
        position_table(long).fill_(torch.nan)
        assert not short(ids_of(9)).last_hidden_state.isnan().any()  # each runs its own forward
        assert long(ids_of(9)).last_hidden_state.isnan().any()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("save", [save_text_encoder, lambda encoder, folder: encoder.save_pretrained(folder)])
def test_saved_keys_start_with_text_model_and_load_bit_equal(cls: type, save, tmp_path: Path) -> None:
    long = stretch_text_encoder(build(cls))
    save(long, tmp_path)
    assert all(key.startswith(("text_model.", "text_projection.")) for key in keys_of(tmp_path))
    assert "text_model.embeddings.position_embedding.weight" in keys_of(tmp_path)
    again = cls.from_pretrained(tmp_path)
    assert again.config.max_position_embeddings == 248
    for name, value in long.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    with torch.no_grad():
        assert torch.equal(long(ids_of(248)).last_hidden_state, again(ids_of(248)).last_hidden_state)


@pytest.mark.parametrize("cls", CLASSES)
def test_saving_twice_or_after_loading_never_doubles_the_prefix(cls: type, tmp_path: Path) -> None:
    save_text_encoder(build(cls), tmp_path / "one")
    loaded = cls.from_pretrained(tmp_path / "one")
    save_text_encoder(stretch_text_encoder(stretch_text_encoder(loaded)), tmp_path / "two")
    assert keys_of(tmp_path / "one") == keys_of(tmp_path / "two")


def test_a_pipeline_saves_the_prefix_too(tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    class TextOnlyPipeline(DiffusionPipeline):
        def __init__(self, text_encoder: CLIPTextModel) -> None:
            super().__init__()
            self.register_modules(text_encoder=text_encoder)

    TextOnlyPipeline(stretch_text_encoder(build())).save_pretrained(tmp_path)
    assert all(key.startswith("text_model.") for key in keys_of(tmp_path / "text_encoder"))


def test_what_cannot_be_stretched_is_named() -> None:
    with pytest.raises(ModelError, match="not a Linear"):
        stretch_text_encoder(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="offloaded"):
        stretch_text_encoder(build().to("meta"))
    with pytest.raises(ModelError, match="keep must be"):
        stretch_text_encoder(build(max_position_embeddings=16))
