"""What is wrong with a checkpoint is named, and where it lies."""

from pathlib import Path

import checkpoint_makers as makers
import pytest
import torch
from checkpoint_layouts import official_pt, saved, text_model
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from longclip_diffusers.checkpoints import load_clip, load_long_text_encoder, load_text_encoder
from longclip_diffusers.errors import CheckpointError
from longclip_diffusers.text_encoder import num_positions


def test_unknown_parts_of_an_image_tower_do_not_hinder_the_text_tower(tmp_path: Path) -> None:
    resnet = {key: value for key, value in makers.openai_state().items() if not key.startswith("visual.")}
    resnet["visual.layer1.0.conv1.weight"] = torch.ones(2, 2)
    path = saved(resnet, tmp_path / "RN50.pt")
    assert num_positions(load_text_encoder(path)) == 77
    with pytest.raises(CheckpointError, match=r"visual\.layer1\.0\.conv1\.weight, which no CLIP has"):
        load_clip(path)


def test_a_stock_encoder_is_refused_where_a_long_one_is_asked_for(tmp_path: Path) -> None:
    assert num_positions(load_long_text_encoder(official_pt(tmp_path), dtype=torch.float16)) == 248
    stock = saved(makers.openai_state(), tmp_path / "longclip-L.pt")
    with pytest.raises(CheckpointError, match=r'has 77 position rows.*longclip="stretch".*longclip=None'):
        load_long_text_encoder(stock)


def _changed(**changes: Tensor | None) -> dict[str, Tensor]:
    state = {**makers.longclip_state(), **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in state.items() if value is not None}


NAN_TABLE = torch.full((248, makers.WIDTH), torch.nan)
BAD = {
    "missing layer weight": (
        _changed(transformer__resblocks__1__ln_2__bias=None),
        r"lacks encoder\.layers\.1\.layer_norm2\.bias",
    ),
    "missing projection input": (_changed(token_embedding__weight=None), "no CLIP text tower"),
    "no position table": (
        _changed(positional_embedding=None, positional_embedding_res=None),
        "lacks a position table",
    ),
    "weights twice": (_changed(module__logit_scale=torch.tensor(4.0)), "holds some weights twice"),
    "table of one axis": (
        _changed(positional_embedding=torch.ones(9), positional_embedding_res=None),
        r"a floating \(rows, width\) tensor",
    ),
    "unexpected": (_changed(transformer__adapter=torch.ones(1)), r"transformer\.adapter, which no CLIP has"),
    "wrong shape": (_changed(ln_final__weight=torch.ones(3)), r"final_layer_norm\.weight has shape \(3,\)"),
    "wrong axes": (_changed(token_embedding__weight=torch.ones(3)), r"token_embedding\.weight has shape \(3,\)"),
    "stacked in odd rows": (
        _changed(transformer__resblocks__0__attn__in_proj_weight=torch.ones(100, 64)),
        r"q_proj\.weight has shape \(34, 64\)",
    ),
    "two tables differ": (_changed(positional_embedding_res=torch.ones(77, 64)), "the two position tables differ"),
    "nan table": (_changed(positional_embedding_res=NAN_TABLE), r"position_embedding\.weight holds NaN"),
    "inf weight": (_changed(ln_final__bias=torch.full((64,), torch.inf)), r"final_layer_norm\.bias holds NaN or inf"),
    "quantised": (
        _changed(transformer__resblocks__0__mlp__c_fc__weight=torch.ones(256, 64, dtype=torch.int8)),
        r"fc1\.weight is torch\.int8; quantised",
    ),
    "image tower only": (
        {key: value for key, value in makers.openai_state().items() if key.startswith("visual.")},
        "an image tower only",
    ),
    "lora": ({"unet.down.lora_A.weight": torch.ones(1)}, "it is a LoRA.*load_lora_weights"),
    "single file": (
        {f"cond_stage_model.transformer.{key}": value for key, value in makers.openai_state().items()},
        "whole Stable Diffusion checkpoint.*from_single_file",
    ),
    "something else": ({"shared.weight": torch.ones(1)}, r"its weights are shared\.weight"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(case: str, tmp_path: Path) -> None:
    state, message = BAD[case]
    path = saved(state, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_text_encoder(path)
    assert str(path) in str(caught.value)


def test_a_float16_overflow_is_named(tmp_path: Path) -> None:
    path = saved(_changed(ln_final__bias=torch.full((64,), 1e6)), tmp_path / "a.pt")
    assert load_text_encoder(path).dtype == torch.float32
    with pytest.raises(CheckpointError, match=r"final_layer_norm\.bias .* in torch\.float16"):
        load_text_encoder(path, dtype=torch.float16)


def test_load_clip_needs_both_towers(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a text tower only"):
        load_clip(text_model(tmp_path))
    without_projection = {key: value for key, value in makers.longclip_state().items() if key != "visual.proj"}
    with pytest.raises(CheckpointError, match=r"lacks visual_projection\.weight"):
        load_clip(saved(without_projection, tmp_path / "a.pt"))
    without_logit_scale = _changed(logit_scale=None)
    with pytest.raises(CheckpointError, match="lacks logit_scale"):
        load_clip(saved(without_logit_scale, tmp_path / "a.pt"))


def test_a_width_without_known_heads_asks_for_a_config(tmp_path: Path) -> None:
    config = CLIPTextConfig(
        vocab_size=96, hidden_size=40, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    CLIPTextModel(config).save_pretrained(tmp_path)
    assert load_text_encoder(tmp_path).config.num_attention_heads == 2
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"40 wide, no multiple of 64.*config\.json"):
        load_text_encoder(tmp_path)
