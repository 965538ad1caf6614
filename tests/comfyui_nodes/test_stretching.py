"""A stretched clone reads with a longer table; whatever it came from reads as before."""

import sys
from types import SimpleNamespace

import pytest
import torch
from comfyui_stand_in import PATH, Clip, Patcher

from longclip_diffusers.comfyui.stretching import clip_towers, set_max_length, stretch_clip
from longclip_diffusers.errors import ModelError
from longclip_diffusers.positions import stretch_positions, stretch_to


def lengths(clip):
    return {tower: getattr(clip.tokenizer, f"clip_{tower}").max_length for tower in clip.towers}


def test_every_tower_is_stretched_and_the_input_stays():
    clip = Clip(l=77, g=77)
    before = {tower: clip.table(tower).clone() for tower in "lg"}
    long, report = stretch_clip(clip)
    assert report == "L 77 -> 248, G 77 -> 248"
    assert lengths(long) == {"l": 248, "g": 248}
    assert lengths(clip) == {"l": 77, "g": 77}
    for tower in "lg":
        assert torch.equal(long.table(tower), stretch_positions(before[tower]))
        assert torch.equal(clip.table(tower), before[tower])


def test_stretching_while_a_stretched_clone_is_loaded_starts_from_the_original():
    clip = Clip(l=77)
    first, _ = stretch_clip(clip)
    first.patcher.load()
    second, report = stretch_clip(clip, max_tokens=500)
    assert report == "L 77 -> 500"
    original = clip.table("l").clone()
    assert torch.equal(second.table("l"), stretch_to(original, 500))


def test_stretching_a_stretched_clone_starts_from_the_original():
    clip = Clip(l=77)
    original = clip.table("l").clone()
    once, _ = stretch_clip(clip)
    twice, report = stretch_clip(once, max_tokens=300, keep=10)
    assert report == "L 77 -> 300"
    assert torch.equal(twice.table("l"), stretch_to(original, 300, keep=10))
    assert len(once.table("l")) == 248


def test_weights_that_another_clone_patched_in_place_are_read_from_the_backup():
    clip = Clip(l=77)
    original = clip.table("l").detach().clone()
    clip.patcher.backup[PATH.format("l") + ".weight"] = type("Backup", (), {"weight": original})
    clip.table("l").data += 1
    long, _ = stretch_clip(clip)
    assert torch.equal(long.table("l")[:20], original[:20])


def test_weight_patches_of_the_table_are_applied_before_it_grows(monkeypatch):
    def doubled(patches, weight, key):
        assert (patches, weight.dtype, key) == (["twice"], torch.float32, f"{PATH.format('l')}.weight")
        return 2 * weight

    monkeypatch.setitem(sys.modules, "comfy.lora", SimpleNamespace(calculate_weight=doubled))
    clip = Clip(l=77)
    clip.patcher.patches[f"{PATH.format('l')}.weight"] = ["twice"]
    long, _ = stretch_clip(clip)
    assert torch.equal(long.table("l"), stretch_positions(2 * clip.table("l")))
    assert not long.patcher.patches
    assert clip.patcher.patches


def test_the_new_table_is_of_the_old_one_s_class_and_dtype():
    class Cast(torch.nn.Embedding):
        pass

    clip = Clip(l=77)
    holder = clip.cond_stage_model.get_submodule(PATH.format("l").rpartition(".")[0])
    holder.position_embedding = Cast(77, 8, dtype=torch.float16)
    patch = stretch_clip(clip)[0].patcher.object_patches[PATH.format("l")]
    assert type(patch) is Cast
    assert (patch.weight.dtype, patch.weight.requires_grad) == (torch.float16, False)


def test_a_tower_can_be_chosen_and_unequal_ones_are_reported():
    long, report = stretch_clip(Clip(l=77, g=77), encoders="l")
    assert lengths(long) == {"l": 248, "g": 77}
    assert report.startswith("L 77 -> 248\nThe encoders differ in length (L 248, G 77)")


def test_a_tower_that_was_loaded_long_stays():
    clip = Clip(l=248, g=77)
    long, report = stretch_clip(clip)
    assert report == "L 248, as it was, G 77 -> 248"
    assert PATH.format("l") not in long.patcher.object_patches
    assert stretch_clip(Clip(l=248), max_tokens=100)[1] == "L 248, long already"


@pytest.mark.parametrize(
    ("clip", "encoders", "message"),
    [
        (Clip(l=77), "g", "no tower G to stretch: this CLIP has only L"),
        (Clip(others=("t5xxl",)), "all", "no CLIP tower to stretch: this CLIP has no CLIP tower"),
    ],
)
def test_a_tower_that_is_not_there_is_an_error(clip, encoders, message):
    with pytest.raises(ModelError, match=message):
        stretch_clip(clip, encoders=encoders)


def test_a_tower_that_the_model_leaves_out_is_none():
    clip = Clip(l=77, g=77)
    clip.cond_stage_model.clip_g = None  # as in core's SD3 with one file
    assert clip_towers(clip) == ("l",)


def test_a_shared_tokenizer_is_never_changed():
    clip = Clip(l=77)
    shared, inner = clip.tokenizer, clip.tokenizer.clip_l
    set_max_length(clip, {"l": 100})
    assert (inner.max_length, shared.clip_l.max_length, clip.tokenizer.clip_l.max_length) == (77, 77, 100)


def test_the_stand_in_loads_and_unloads():
    # Guards the tests above: patches must really come and go.
    clip = Clip(l=77)
    twin = clip.clone()
    twin.patcher.add_object_patch(PATH.format("l"), torch.nn.Embedding(99, 8))
    assert isinstance(twin.patcher, Patcher)
    assert [len(each.table("l")) for each in (clip, twin, clip, twin)] == [77, 99, 77, 99]
