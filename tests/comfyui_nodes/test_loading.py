"""Which encoder a file holds, and what is said of a file that holds none; core's own loading is tested in ComfyUI."""

import checkpoint_makers as makers
import pytest
import torch
from safetensors.torch import save_file

from longclip_diffusers.checkpoints.formats import POSITION_TABLE
from longclip_diffusers.comfyui import loading
from longclip_diffusers.comfyui.loading import TowerFile, check_kind, read_tower, table_lengths
from longclip_diffusers.errors import CheckpointError


@pytest.fixture(autouse=True)
def small_towers(monkeypatch):
    """The makers' width and depth stand for L's; the real ones are those of ComfyUI."""
    monkeypatch.setattr(loading, "_WIDTHS", {makers.WIDTH: "l"})
    monkeypatch.setattr(loading, "_LAYERS", {"l": (makers.LAYERS,)})


def tower(name, rows=77):
    return TowerFile(f"{name}.safetensors", name, rows, "OpenAI / open_clip", {})


def test_two_tables_become_one_and_the_image_tower_goes(tmp_path):
    state = makers.longclip_state()
    torch.save(state, tmp_path / "longclip-L.pt")
    read = read_tower(tmp_path / "longclip-L.pt")
    assert (read.tower, read.rows) == ("l", 248)
    assert str(read) == "CLIP-L (width 768): 248 tokens, Long-CLIP, two position tables, from longclip-L.pt"
    assert torch.equal(read.tensors[POSITION_TABLE], makers.one_table(state)["positional_embedding"])
    assert not [key for key in read.tensors if key.startswith(("vision", "visual", "logit"))]
    assert torch.equal(read.tensors["text_projection.weight"], state["text_projection"].T)


def test_every_layout_gives_the_same_names(tmp_path):
    state = makers.openai_state()
    save_file(state, tmp_path / "openai.safetensors")
    save_file(makers.text_only(makers.transformers_state(state)), tmp_path / "text.safetensors")
    first, second = (read_tower(tmp_path / name).tensors for name in ("openai.safetensors", "text.safetensors"))
    assert first.keys() - {"text_projection.weight"} == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in second)


def lacking(state):
    return {key: value for key, value in state.items() if "resblocks.1.mlp.c_fc.bias" not in key}


def shallow(state):
    return {key: value for key, value in state.items() if "resblocks.1." not in key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacking, r"encoder\.safetensors is CLIP-L.*lacks text_model\.encoder\.layers\.1\.mlp\.fc1\.bias"),
        (shallow, "has 1 layers: it is incomplete"),
        (lambda state: {"lora_te.down": state["ln_final.bias"]}, r"encoder\.safetensors: no CLIP text tower.*a LoRA"),
        (
            lambda state: {"cond_stage_model.x": state["ln_final.bias"]},
            r"encoder\.safetensors: no CLIP text tower.*models/checkpoints",
        ),
    ],
)
def test_a_file_without_a_whole_encoder_is_named(change, message, tmp_path):
    save_file(change(makers.openai_state()), tmp_path / "encoder.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read_tower(tmp_path / "encoder.safetensors")


def test_another_width_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_WIDTHS", {768: "l"})
    save_file(makers.openai_state(), tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.safetensors is a CLIP, but it is 64 wide\. Stable Diffusion reads"):
        read_tower(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("kind", "towers"),
    [("sd15", "l"), ("sd2", "h"), ("sdxl", "lg"), ("sdxl", "gl"), ("sd3", "lg"), ("sd3", "g"), ("flux", ("t5", "l"))],
)
def test_the_files_that_a_kind_of_model_reads(kind, towers):
    check_kind(kind, [tower(name) for name in towers])


@pytest.mark.parametrize(
    ("kind", "towers", "message"),
    [
        ("sd15", "g", r"sd15 reads CLIP-L \(width 768\); the files chosen are g\.safetensors \(CLIP-G"),
        ("sdxl", "l", "reads CLIP-L.* and CLIP-G.*missing in clip_name2"),
        ("sd15", "ll", r"reads CLIP-L \(width 768\); the files chosen are l\.safetensors .* and l\.safetensors"),
        ("sdxl", "ll", r"l\.safetensors .* and l\.safetensors"),
        ("flux", "l", "reads T5 and CLIP-L"),
    ],
)
def test_files_of_another_kind_are_refused(kind, towers, message):
    with pytest.raises(CheckpointError, match=message):
        check_kind(kind, [tower(name) for name in towers])


def test_rows_of_a_checkpoint_s_tables_by_their_width(monkeypatch):
    monkeypatch.undo()
    key = "embeddings.position_embedding.weight"
    assert table_lengths({f"cond_stage_model.transformer.text_model.{key}": (248, 768)}) == {"l": 248}
    assert table_lengths({f"cond_stage_model.transformer.{key}": (77, 768)}) == {"l": 77}
    assert table_lengths({"cond_stage_model.model.positional_embedding": (248, 1024)}) == {"h": 248}
    assert table_lengths(
        {
            f"conditioner.embedders.0.transformer.text_model.{key}": (248, 768),
            "conditioner.embedders.1.model.positional_embedding": (300, 1280),
            "conditioner.embedders.1.model.text_projection": (1280, 1280),
            "embedder.model.visual.positional_embedding": (257, 1280),
            "model.diffusion_model.positional_embedding": (9,),
        }
    ) == {"l": 248, "g": 300}


def test_a_projection_as_older_saves_wrote_it_is_read(tmp_path):
    state = makers.openai_state()
    ours = {key: value for key, value in makers.transformers_state(state).items() if key.startswith("text_model.")}
    save_file({**ours, "text_projection": state["text_projection"]}, tmp_path / "old.safetensors")
    read = read_tower(tmp_path / "old.safetensors")
    assert torch.equal(read.tensors["text_projection.weight"], state["text_projection"].T)


def test_what_is_no_weight_is_not_left_out_in_silence(tmp_path):
    ours = makers.text_only(makers.transformers_state(makers.openai_state()))
    scale = {"text_model.encoder.layers.0.mlp.fc1.scale_weight": torch.ones(1)}
    save_file({**ours, **scale}, tmp_path / "scaled.safetensors")
    with pytest.raises(CheckpointError, match=r"scaled\.safetensors holds .*scale_weight.*ComfyUI's own CLIP loader"):
        read_tower(tmp_path / "scaled.safetensors")


def test_g_without_its_projection_is_incomplete(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_WIDTHS", {makers.WIDTH: "g"})
    monkeypatch.setattr(loading, "_LAYERS", {"g": (makers.LAYERS,)})
    save_file(makers.text_only(makers.transformers_state(makers.openai_state())), tmp_path / "g.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks text_projection\.weight: it is incomplete"):
        read_tower(tmp_path / "g.safetensors")
