"""Converted files open in the loaders they are meant for, hold the same weights, and are never left half written."""

from pathlib import Path

import checkpoint_makers as makers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from longclip_diffusers.checkpoints import convert_checkpoint, load_clip, load_text_encoder
from longclip_diffusers.checkpoints.export import _draft_of
from longclip_diffusers.errors import CheckpointError
from longclip_diffusers.positions import stretch_positions
from longclip_diffusers.text_encoder import num_positions, position_table

IDS = makers.token_ids(248)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    torch.save(makers.longclip_state(), tmp_path / "longclip-B.pt")
    return tmp_path / "longclip-B.pt"


def hidden(encoder: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return encoder.eval()(IDS).last_hidden_state


@pytest.mark.parametrize("to", ["hf", "openai", "safetensors", "diffusers"])
def test_every_target_opens_again_and_computes_the_same(to: str, official: Path, tmp_path: Path) -> None:
    out = convert_checkpoint(official, tmp_path / "deep" / "out", to=to)
    assert torch.equal(hidden(load_text_encoder(out)), hidden(load_text_encoder(official)))
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]


def test_hf_is_a_clip_model_for_transformers(official: Path, tmp_path: Path) -> None:
    out = convert_checkpoint(official, tmp_path / "out", to="hf")
    reference, ours = CLIPModel.from_pretrained(out), load_clip(official)
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in reference.state_dict().items())
    assert torch.equal(hidden(CLIPTextModel.from_pretrained(out)), hidden(load_text_encoder(official)))


def test_diffusers_is_a_text_encoder_folder_with_prefixed_keys(official: Path, tmp_path: Path) -> None:
    out = convert_checkpoint(official, tmp_path / "out", to="diffusers")
    encoder = CLIPTextModel.from_pretrained(out, subfolder="text_encoder")
    assert torch.equal(hidden(encoder), hidden(load_text_encoder(official)))
    with safe_open(out / "text_encoder" / "model.safetensors", "pt") as file:
        assert all(key.startswith("text_model.") for key in file.keys())  # noqa: SIM118
    assert not (out / "tokenizer").exists()  # 96 tokens are not CLIP's vocabulary


def test_openai_is_what_the_official_code_reads(official: Path, tmp_path: Path) -> None:
    out = convert_checkpoint(official, tmp_path / "out.pt", to="openai")
    state = torch.load(out, weights_only=True)
    assert state.keys() == makers.longclip_state().keys()
    for one, other in zip(
        makers.reference_text_forward(state, IDS),
        makers.reference_text_forward(makers.longclip_state(), IDS),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_safetensors_is_one_text_tower(official: Path, tmp_path: Path) -> None:
    out = convert_checkpoint(official, tmp_path / "out.safetensors", to="safetensors")
    expected = makers.transformers_state(makers.one_table(makers.longclip_state()))
    found = load_file(out)
    assert found.keys() == {key for key in expected if key.startswith(("text_model.", "text_projection."))}
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def test_text_towers_keep_their_class(tmp_path: Path) -> None:
    state = makers.transformers_state(makers.openai_state())
    text = makers.text_only(state)
    makers.folder(tmp_path / "text", text, makers.config_json(77, whole=False))
    projected = {**text, "text_projection.weight": state["text_projection.weight"]}
    makers.folder(tmp_path / "projected", projected, makers.config_json(77, whole=False))
    for name, cls in (("text", CLIPTextModel), ("projected", CLIPTextModelWithProjection)):
        out = convert_checkpoint(tmp_path / name, tmp_path / f"{name}-out", to="hf")
        model = cls.from_pretrained(out)
        assert model.config.architectures == [cls.__name__]
        found = load_file(out / "model.safetensors")
        assert found.keys() == (text if name == "text" else projected).keys()


def test_a_clip_vocabulary_brings_its_tokenizer(tmp_path: Path) -> None:
    config = CLIPTextConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    CLIPTextModel(config).save_pretrained(tmp_path / "clip")
    out = convert_checkpoint(tmp_path / "clip", tmp_path / "out", to="diffusers", stretch=True)
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    assert (len(tokenizer), tokenizer.model_max_length) == (49408, 248)
    with pytest.warns(UserWarning, match="untrained interpolation"):
        assert num_positions(load_text_encoder(out)) == 248


def test_options_reach_the_reader(tmp_path: Path) -> None:
    torch.save(makers.openai_state(), tmp_path / "a.pt")
    out = convert_checkpoint(tmp_path, tmp_path / "out", stretch=True, hidden_act="gelu", weight_name="a.pt")
    model = CLIPModel.from_pretrained(out)
    assert torch.equal(position_table(model), stretch_positions(makers.openai_state()["positional_embedding"]))
    assert model.config.text_config.hidden_act == "gelu"


def test_mixed_dtypes_survive_where_the_layout_can_hold_them(tmp_path: Path) -> None:
    state = makers.longclip_state(dtype=torch.float16)
    state["ln_final.weight"] = state["ln_final.weight"].float()
    torch.save(state, tmp_path / "a.pt")
    out = convert_checkpoint(tmp_path / "a.pt", tmp_path / "b.pt", to="openai")
    assert {key: value.dtype for key, value in torch.load(out, weights_only=True).items()} == {
        key: value.dtype for key, value in state.items()
    }


def test_an_existing_target_is_refused_before_anything_is_read(official: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pt"
    out.write_text("mine")
    with pytest.raises(CheckpointError, match=r"out\.pt exists already.*--overwrite"):
        convert_checkpoint(tmp_path / "not there", out, to="openai")
    assert out.read_text() == "mine"
    convert_checkpoint(official, out, to="openai", overwrite=True)
    assert num_positions(load_text_encoder(out)) == 248


def test_a_folder_is_overwritten_only_if_it_holds_a_model(official: Path, tmp_path: Path) -> None:
    out = convert_checkpoint(official, tmp_path / "model", to="hf")
    (out / "stale").write_text("old")
    convert_checkpoint(official, out, to="hf", overwrite=True)
    assert not (out / "stale").exists()
    with pytest.raises(CheckpointError, match="holds no model, so it is not replaced"):
        convert_checkpoint(official, tmp_path, to="hf", overwrite=True)
    assert official.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["longclip-B.pt", "model"]


def test_a_whole_model_is_not_overwritten_by_its_encoder(official: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    for part in ("unet", "vae", "text_encoder"):
        (model / part).mkdir(parents=True)
        (model / part / "weights").write_text("mine")
    with pytest.raises(CheckpointError, match="model holds unet, vae beside an encoder, so it is not replaced"):
        convert_checkpoint(official, model, to="diffusers", overwrite=True)
    assert (model / "unet" / "weights").read_text() == "mine"
    out = convert_checkpoint(official, tmp_path / "long", to="diffusers")
    convert_checkpoint(official, out, to="diffusers", overwrite=True)


def test_a_link_is_replaced_and_what_it_names_stays(official: Path, tmp_path: Path) -> None:
    real = convert_checkpoint(official, tmp_path / "real", to="hf")
    (tmp_path / "link").symlink_to(real)
    convert_checkpoint(official, tmp_path / "link", to="hf", overwrite=True)
    assert not (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "longclip-B.pt", "real"]
    assert (real / "config.json").is_file()


def test_diffusers_keeps_the_projection_of_big_g_alone(official: Path, tmp_path: Path, monkeypatch) -> None:
    plain = convert_checkpoint(official, tmp_path / "plain", to="diffusers")
    monkeypatch.setattr("longclip_diffusers.checkpoints.export.BIGG_WIDTH", makers.WIDTH)
    big = convert_checkpoint(official, tmp_path / "big", to="diffusers")
    names = [load_file(out / "text_encoder" / "model.safetensors") for out in (plain, big)]
    assert names[1].keys() - names[0].keys() == {"text_projection.weight"}


def test_the_old_comes_back_where_the_new_cannot_be_moved(tmp_path: Path) -> None:
    out = tmp_path / "out.pt"
    out.write_text("old")
    with pytest.raises(CheckpointError, match="cannot be written"), _draft_of(out):
        pass  # nothing is there to be moved
    assert [path.name for path in tmp_path.iterdir()] == ["out.pt"]
    assert out.read_text() == "old"


def test_a_source_can_be_converted_onto_itself(tmp_path: Path) -> None:
    state = makers.longclip_state()
    save_file(state, tmp_path / "a.safetensors")
    convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "a.safetensors", to="safetensors", overwrite=True)
    table = position_table(load_text_encoder(tmp_path / "a.safetensors"))
    assert torch.equal(table[20:], state["positional_embedding_res"][20:])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_an_interrupted_write_leaves_nothing_new_and_keeps_the_old(error: type, tmp_path: Path) -> None:
    out = tmp_path / "out.pt"
    out.write_text("old")
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else CheckpointError), _draft_of(out) as draft:
        draft.write_text("half")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["out.pt"]
    assert out.read_text() == "old"


@pytest.mark.parametrize("to", ["hf", "openai", "safetensors", "diffusers"])
def test_an_unwritable_target_is_named(to: str, official: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        convert_checkpoint(official, official / "out", to=to)  # beneath a file


def test_a_bad_source_writes_nothing(tmp_path: Path) -> None:
    state = makers.longclip_state()
    state["visual.proj"] = torch.full_like(state["visual.proj"], torch.nan)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"visual_projection\.weight holds NaN"):
        convert_checkpoint(tmp_path / "a.pt", tmp_path / "b.pt", to="openai")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_a_weight_without_a_place_is_never_dropped_in_silence(tmp_path: Path) -> None:
    torch.save(
        {**makers.openai_state(vision=False), "visual.proj": makers.openai_state()["visual.proj"]}, tmp_path / "a.pt"
    )
    with pytest.raises(CheckpointError, match=r"holds visual_projection\.weight, which its tower has no place for"):
        convert_checkpoint(tmp_path / "a.pt", tmp_path / "out")
