"""A recipe: presets, a TOML file and options over one another, and every complaint about them."""

import dataclasses
import math

import pytest

from longclip_diffusers import LongClipError
from longclip_diffusers.cli.train import defaults
from longclip_diffusers.training.finetune import _schedule
from longclip_diffusers.training.recipe import PRESETS, Recipe, differences, read_recipe


def test_it_is_small_and_frozen():
    assert len(dataclasses.fields(Recipe)) < 30
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().steps = 2


def test_the_official_preset_is_what_the_released_code_does():
    recipe = read_recipe({}, preset="official")
    assert (recipe.batch_size, recipe.peak_rate, recipe.warmup, recipe.label_smoothing) == (2048, 1e-6, 200, 0.1)
    assert (recipe.pca, recipe.components, recipe.short_weight, recipe.decay) == ("svd", 32, 1.0, "all")
    assert recipe.logit_scale == "released"
    schedule = _schedule(recipe)
    assert (schedule.betas, schedule.clip) == ((0.9, 0.999), math.inf)
    assert (_schedule(Recipe()).betas, _schedule(Recipe()).clip) == ((0.9, 0.98), 1.0)


def test_options_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('steps = 7\nbatch_size = 64\nobjective = "both"\n')
    recipe = read_recipe({"steps": 9}, preset="official", file=file)
    assert (recipe.steps, recipe.batch_size, recipe.objective, recipe.label_smoothing) == (9, 64, "both", 0.1)
    assert defaults(["--preset", "official", "--config", str(file), "--lr", "1"]).recipe == read_recipe(
        {}, preset="official", file=file
    )


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"stepz": 3}, r"no field stepz. Its fields are base, data"),
        ({"objective": "style"}, r"objective is 'style'; choose from contrastive, anchor, both"),
        ({"steps": 2.5}, r"steps is 2.5; it takes int"),
        ({"freeze_vision": 1}, r"freeze_vision is 1; it takes bool"),
        ({"steps": 0}, r"steps is 0; it must be between 1"),
        ({"lr": math.nan}, r"lr is nan; it must be between"),
        ({"batch_size": 8, "micro_batch": 9}, r"micro_batch is 9; it is auto, or 1 to batch_size 8"),
        ({"micro_batch": "all"}, r"micro_batch is all; it is auto, or"),
        ({"objective": "both", "batch_size": 24}, r"anchor_batch 16 does not divide batch_size 24"),
    ],
)
def test_complaints(values, complaint):
    with pytest.raises(LongClipError, match=complaint):
        read_recipe(values)


def test_complaints_about_files_and_presets(tmp_path):
    with pytest.raises(LongClipError, match="no preset 'best'; choose from default, official, storybook"):
        read_recipe({}, preset="best")
    file = tmp_path / "recipe.toml"
    file.write_text("steps = ")
    with pytest.raises(LongClipError, match=r"recipe.toml is no readable TOML file"):
        read_recipe({}, file=file)


def test_differences_leave_out_where_and_how_fast():
    one = Recipe(output="a", micro_batch=4)
    assert differences(one, dataclasses.replace(one, output="b", micro_batch=8, compile=True)) == {}
    assert differences(one, dataclasses.replace(one, seed=3)) == {"seed": (0, 3)}


def test_when_the_contrastive_losses_join():
    firsts = {
        name: Recipe(objective=name, steps=100).first_contrastive_step for name in ("contrastive", "both", "anchor")
    }
    assert firsts == {"contrastive": 1, "both": 66, "anchor": 101}


def test_every_preset_is_a_recipe():
    assert {read_recipe({}, preset=preset).steps for preset in PRESETS} == {1000, 3000}
