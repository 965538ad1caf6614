"""Every layout gives the same encoder; what it computes is Long-CLIP's own forward."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import checkpoint_makers as makers
import pytest
import torch
from checkpoint_layouts import (
    LAYOUTS,
    clip_model,
    flat_text_model,
    longclip_transformers,
    official_pt,
    saved,
    text_model,
    wanted,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from longclip_diffusers.checkpoints import load_clip, load_text_encoder
from longclip_diffusers.positions import stretch_positions
from longclip_diffusers.text_encoder import num_positions, position_table, save_text_encoder, stretch_text_encoder


def assert_holds(encoder: CLIPTextModel, expected: dict[str, Tensor], exact: bool = True) -> None:
    found = encoder.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # GmP's weight is a product of three roundings.
        torch.testing.assert_close(found[key], value, **({"rtol": 0, "atol": 0} if exact else {}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_long_encoder(layout: str, tmp_path: Path) -> None:
    encoder = load_text_encoder(LAYOUTS[layout](tmp_path))
    assert_holds(encoder, wanted(makers.one_table(makers.longclip_state())))
    config = encoder.config
    assert (config.max_position_embeddings, config.hidden_size, config.num_hidden_layers) == (248, 64, 2)
    assert (config.num_attention_heads, config.hidden_act, config.eos_token_id) == (1, "quick_gelu", 95)
    assert not encoder.training


def test_gmp_pairs_become_weights(tmp_path: Path) -> None:
    encoder = load_text_encoder(saved(makers.gmp_state(makers.longclip_state()), tmp_path / "gmp.pt"))
    assert_holds(encoder, wanted(makers.one_table(makers.longclip_state())), exact=False)


@pytest.mark.parametrize("length", [5, 20, 21, 77, 248])
def test_the_merged_table_computes_what_two_masked_tables_do(length: int, tmp_path: Path) -> None:
    state, ids = makers.longclip_state(), makers.token_ids(length)
    hidden, projected = makers.reference_text_forward(state, ids)
    with torch.no_grad():
        output = load_text_encoder(saved(state, tmp_path / "a.pt"))(ids)
        features = load_clip(tmp_path / "a.pt").get_text_features(ids)
    # Float32 sums in another order, through two layers and a layer norm.
    torch.testing.assert_close(output.last_hidden_state, hidden, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(features.pooler_output, projected, atol=2e-5, rtol=1e-4)


def test_both_tables_are_read(tmp_path: Path) -> None:
    state = makers.longclip_state()
    table = position_table(load_text_encoder(saved(state, tmp_path / "a.pt")))
    assert torch.equal(table[:20], state["positional_embedding"][:20])
    assert torch.equal(table[20:], state["positional_embedding_res"][20:])
    assert not torch.allclose(table[20:], state["positional_embedding"][20:], atol=0.05)


def test_a_recorded_keep_length_is_honoured(tmp_path: Path) -> None:
    folder = longclip_transformers(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["interpolation_keep_length"] = 30
    (folder / "config.json").write_text(json.dumps(config))
    table = position_table(load_text_encoder(folder))
    assert torch.equal(table[:30], makers.longclip_state()["positional_embedding"][:30])
    assert torch.equal(table[30:], makers.longclip_state()["positional_embedding_res"][30:])


def test_both_towers_equal_what_transformers_loads(tmp_path: Path) -> None:
    reference = CLIPModel.from_pretrained(clip_model(tmp_path / "hf")).eval()
    ours = load_clip(saved(makers.longclip_state(), tmp_path / "longclip-L@336px.pt"))
    assert {key: value.tolist() for key, value in ours.state_dict().items()} == {
        key: value.tolist() for key, value in reference.state_dict().items()
    }
    assert ours.config.vision_config.image_size == makers.PATCH * makers.GRID
    assert ours.config.projection_dim == makers.PROJECTION
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (model(makers.token_ids(40), images).logits_per_image for model in (ours, reference))
    assert torch.equal(one, other)


def test_longclip_transformers_gives_both_towers(tmp_path: Path) -> None:
    model = load_clip(longclip_transformers(tmp_path))
    expected = makers.transformers_state(makers.one_table(makers.longclip_state()))
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_the_length_is_the_tensors_and_not_the_names(tmp_path: Path) -> None:
    stock = saved(makers.openai_state(), tmp_path / "longclip-L.pt")
    assert num_positions(load_text_encoder(stock)) == 77
    long = saved(makers.longclip_state(), tmp_path / "ViT-L-14.pt")
    assert num_positions(load_text_encoder(long)) == 248


@pytest.mark.parametrize("load", [load_text_encoder, load_clip])
def test_stretch_stretches_stock_tables_only(load: Callable, tmp_path: Path) -> None:
    stock = saved(makers.openai_state(), tmp_path / "a.pt")
    stretched = load(stock, stretch=True)
    assert torch.equal(position_table(stretched), stretch_positions(makers.openai_state()["positional_embedding"]))
    assert num_positions(stretched) == 248
    assert torch.equal(stretched.state_dict()[_token_table(stretched)], makers.openai_state()["token_embedding.weight"])
    long = saved(makers.longclip_state(), tmp_path / "b.pt")
    assert torch.equal(position_table(load(long, stretch=True)), position_table(load(long)))


def _token_table(model: torch.nn.Module) -> str:
    return next(key for key in model.state_dict() if key.endswith("token_embedding.weight"))


def test_loading_stretched_equals_stretching_loaded(tmp_path: Path) -> None:
    stock = saved(makers.openai_state(), tmp_path / "a.pt")
    one, other = load_text_encoder(stock, stretch=True), stretch_text_encoder(load_text_encoder(stock))
    assert_holds(one, other.state_dict())
    assert one.config.to_dict() == other.config.to_dict()


def test_dtype_is_the_files_where_it_has_one_and_float32_where_mixed(tmp_path: Path) -> None:
    half = saved(makers.longclip_state(dtype=torch.float16), tmp_path / "half.pt")
    assert load_text_encoder(half).dtype == load_clip(half).dtype == torch.float16
    assert load_text_encoder(half, dtype=torch.float32).dtype == torch.float32

    mixed = makers.longclip_state(dtype=torch.float16)
    mixed["token_embedding.weight"] = makers.longclip_state()["token_embedding.weight"]
    encoder = load_text_encoder(saved(mixed, tmp_path / "mixed.pt"))
    assert {value.dtype for value in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder.embeddings.token_embedding.weight, mixed["token_embedding.weight"])
    assert load_text_encoder(tmp_path / "mixed.pt", dtype=torch.float16).dtype == torch.float16


def test_fp8_is_widened(tmp_path: Path) -> None:
    state = {key: value.to(torch.float8_e4m3fn) for key, value in makers.longclip_state().items()}
    encoder = load_text_encoder(saved(state, tmp_path / "a.pt"))
    assert encoder.dtype == torch.float32
    assert torch.equal(encoder.embeddings.token_embedding.weight, state["token_embedding.weight"].float())


def test_nothing_is_random_and_nothing_stays_on_meta(tmp_path: Path) -> None:
    path = official_pt(tmp_path)
    torch.manual_seed(0)
    model = load_clip(path)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    assert not any(value.is_meta for value in (*model.parameters(), *model.buffers()))
    assert torch.equal(model.text_model.embeddings.position_ids, torch.arange(248)[None])
    assert torch.equal(model.vision_model.embeddings.position_ids, torch.arange(10)[None])
    assert all(value.requires_grad for value in model.parameters())


def test_the_model_owns_its_weights(tmp_path: Path) -> None:
    path = text_model(tmp_path)
    encoder = load_text_encoder(path)
    before = encoder.final_layer_norm.weight.clone()
    (path / "model.safetensors").write_bytes(b"overwritten")
    assert torch.equal(encoder.final_layer_norm.weight, before)


def test_a_loaded_encoder_saves_with_the_prefix(tmp_path: Path) -> None:
    load_text_encoder(flat_text_model(tmp_path / "flat")).save_pretrained(tmp_path / "saved")
    again = CLIPTextModel.from_pretrained(tmp_path / "saved")
    assert_holds(again, wanted(makers.one_table(makers.longclip_state())))
    from safetensors import safe_open

    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as file:
        assert all(key.startswith("text_model.") for key in file.keys())  # noqa: SIM118


def test_a_clip_vocabulary_pools_at_49407(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = CLIPTextConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    config.eos_token_id = 2
    save_text_encoder(CLIPTextModelWithProjection(config), tmp_path)
    assert load_text_encoder(tmp_path).config.eos_token_id == 49407


@pytest.mark.parametrize("place", [".", "text_encoder", "best", "last/text_encoder", "longclip/text_encoder"])
def test_model_folders_and_training_output(place: str, tmp_path: Path) -> None:
    text_model(tmp_path / place)
    root = tmp_path / "longclip" if place.startswith("longclip") else tmp_path
    assert_holds(load_text_encoder(root), wanted(makers.one_table(makers.longclip_state())))


def test_a_diffusers_folder_means_its_text_encoder_whatever_else_it_holds(tmp_path: Path) -> None:
    state = makers.text_only(makers.transformers_state(makers.openai_state()))
    makers.folder(tmp_path / "text_encoder", state, makers.config_json(77, whole=False))
    text_model(tmp_path / "longclip" / "text_encoder")
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "longclip_config.json").write_text('{"longclip": "longclip"}')
    save_file({"unet": torch.ones(1)}, tmp_path / "v1-5-pruned.safetensors")
    assert num_positions(load_text_encoder(tmp_path)) == 77
    assert num_positions(load_text_encoder(tmp_path, subfolder="longclip/text_encoder")) == 248


def test_best_is_preferred_to_last(tmp_path: Path) -> None:
    text_model(tmp_path / "best")
    shutil.copytree(clip_model(tmp_path / "other", 248), tmp_path / "last")
    (tmp_path / "last" / "model.safetensors").write_bytes(b"never read")
    assert num_positions(load_text_encoder(tmp_path)) == 248


def test_hidden_act_can_be_told(tmp_path: Path) -> None:
    path = official_pt(tmp_path)
    assert load_text_encoder(path).config.hidden_act == "quick_gelu"
    told = load_clip(path, hidden_act="gelu").config
    assert told.text_config.hidden_act == told.vision_config.hidden_act == "gelu"
    assert load_text_encoder(path, hidden_act="gelu").config.hidden_act == "gelu"


def test_untrained_interpolation_is_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    stretched = stretch_text_encoder(load_text_encoder(saved(makers.openai_state(), tmp_path / "a.pt")))
    save_text_encoder(stretched, tmp_path / "stretched")
    official_pt(tmp_path)
    load_text_encoder(tmp_path / "a.pt", stretch=True)
    load_text_encoder(tmp_path / "longclip-B.pt")
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"stretched: its position rows are untrained interpolation"):
        load_text_encoder(tmp_path / "stretched")
