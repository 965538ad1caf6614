"""The contest: arms are trained once for each seed, measurements kept while nothing changed, one judge for all."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from miniatures import save_miniature
from safetensors.torch import load_file, save_file

from longclip_diffusers import LongClipError
from longclip_diffusers.checkpoints.files import sha256_of
from longclip_diffusers.evaluation import reader as reader_module
from longclip_diffusers.evaluation.detail import describe_scenes
from longclip_diffusers.storybook.checker import read_picture
from longclip_diffusers.training import contest as contest_module
from longclip_diffusers.training.contest import (
    ARMS,
    CONTESTANTS,
    Contest,
    Measurement,
    contest_examples,
    contest_rows,
    seed_rows,
)
from longclip_diffusers.training.recipe import read_recipe

TINY = {"steps": 2, "batch_size": 4, "anchor_batch": 2, "components": 2, "num_validation": 4}


@pytest.fixture(autouse=True)
def tiny_arms(monkeypatch):
    monkeypatch.setattr(contest_module, "ARMS", {arm: {**changes, **TINY} for arm, changes in ARMS.items()})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model, and a work folder in which both arms are trained from two seeds."""
    model, work = (tmp_path_factory.mktemp(name) for name in ("model", "work"))
    held = Contest(save_miniature(model), work, num_scenes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contest_module, "ARMS", {arm: {**changes, **TINY} for arm, changes in ARMS.items()})
        for training in held.trainings(CONTESTANTS, 2):
            assert set(training.run()) == {1, 2}
    return held


def test_the_arms_are_what_was_published_and_what_won():
    objectives = {name: read_recipe(changes, preset="storybook").objective for name, changes in ARMS.items()}
    assert objectives == {"longclip": "contrastive", "ours": "both"}


def test_every_arm_and_seed_is_a_run_of_its_own_from_the_models_own_clip(trained):
    trainings = trained.trainings(CONTESTANTS, 2)
    assert {each.name for each in trainings} == {"longclip-0", "longclip-1", "ours-0", "ours-1"}
    assert len({sha256_of(each.export) for each in trainings}) == 4
    assert {each.recipe.base for each in trainings} == {str(trained.model / "clip")}
    assert {each.recipe.stretch for each in trainings} == {"kps"}
    assert [each.name for each in trained.trainings(("truncated", "ours_context"), 1)] == ["ours-0"]
    assert not (trainings[0].folder / "checkpoints").exists()


def test_a_finished_arm_is_not_trained_again_and_one_of_another_recipe_or_base_is(trained, tmp_path, monkeypatch):
    work = replace(trained, work=tmp_path / "work")
    (training,) = work.trainings(["longclip"], 1)
    assert list(islice(training.run(), 1)) == [1]  # stopped after a step
    assert set(training.run()) >= {2}
    before = sha256_of(training.export)
    assert list(training.run()) == []
    monkeypatch.setitem(contest_module.ARMS, "longclip", {**contest_module.ARMS["longclip"], "lr": 1e-3})
    (other,) = work.trainings(["longclip"], 1)
    assert set(other.run()) == {1, 2}
    assert sha256_of(other.export) != before


def test_a_stopped_arm_goes_on_unless_its_base_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr("longclip_diffusers.training.checkpointing.Checkpoints.due", lambda self: True)
    held = Contest(save_miniature(tmp_path / "model"), tmp_path / "work")
    stopped, other = held.trainings(["longclip"], 2)
    for training in (stopped, other):
        assert list(islice(training.run(), 2)) == [1, 2]
    assert 1 not in set(stopped.run())
    file = held.model / "clip" / "model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    assert 1 in set(other.run())


def test_only_what_is_fine_tuned_is_measured_from_several_seeds(trained):
    names = [each.name for each in trained.measurements(("kps", "ours"), ("long", "short"), 2)]
    assert names == ["kps-long", "kps-short", "ours-0-long", "ours-1-long", "ours-0-short", "ours-1-short"]


@pytest.fixture(scope="module")
def measured(trained):
    todo = trained.measurements(("truncated", "windows_sentence", "kps", "ours"), ("long", "short"), 2)
    for measurement in todo:
        assert list(measurement.run()) == [1, 2]
    return todo


def test_rows_are_over_all_seeds_beside_chance_and_one_unet(trained, measured):
    rows, facts, judge = contest_rows(measured)
    assert judge == sha256_of(trained.model / "unet" / "diffusion_pytorch_model.safetensors")
    assert list(dict.fromkeys(row.encoder for row in rows)) == [
        "truncated",
        "windows_sentence",
        "kps",
        "ours",
        "chance",
    ]
    counts = {(row.encoder, row.column): row.n for row in rows}
    assert counts["ours", "77-150"] == 2 * counts["truncated", "77-150"] == 2 * counts["kps", "77-150"]
    assert len(facts["ours"]) == 2 * len(facts["kps"])
    by_seed = seed_rows(measured)
    assert {row.encoder for row in by_seed} == {"ours-0", "ours-1"}
    for column in ("77-150", "short"):
        mean = np.mean([row.value for row in by_seed if row.column == column])
        assert mean == pytest.approx(next(row.value for row in rows if (row.encoder, row.column) == ("ours", column)))


def test_short_prompts_drift_only_where_the_encoder_is_another(measured):
    rows = contest_rows(measured)[0]
    drift = {row.encoder: row.value for row in rows if row.column == "short_drift"}
    assert drift["truncated"] == 0
    assert drift["windows_sentence"] < 0.01  # windows of another batch are rounded otherwise
    assert 0.05 < drift["kps"] < 255
    own, stock = (
        np.load(each.pictures)["pixels"] for each in measured if each.name in ("kps-short", "truncated-short")
    )
    assert own.shape == (2, 128, 128, 3)
    assert drift["kps"] == pytest.approx(np.abs(own.astype(float) - stock.astype(float)).mean())
    without = [each for each in measured if each.encoder != "truncated"]
    assert "short_drift" not in {row.column for row in contest_rows(without)[0]}


def test_examples_are_the_first_text_of_each_kind_with_its_picture_and_facts(trained, measured):
    examples = contest_examples(measured)
    assert [each.kind for each in examples] == ["long", "short"]
    for example in examples:
        scene, caption = describe_scenes(2, seed=trained.seed, kind=example.kind)[0]
        assert (example.scene, example.caption) == (scene, caption)
        assert list(example.drawn) == ["truncated", "windows_sentence", "kps", "ours"]
        for picture, facts in example.drawn.values():
            found = read_picture(picture)
            assert facts and all(fact.shown == (found[fact.slot] == scene[fact.slot]) for fact in facts)


def test_a_measurement_is_done_again_where_scenes_or_weights_changed(trained, tmp_path):
    model = save_miniature(tmp_path / "model")
    held = Contest(model, tmp_path / "work", num_scenes=2)
    measurement = Measurement(held, "kps", "short")
    assert list(measurement.run()) == [1, 2]
    assert list(measurement.run()) == []
    assert list(Measurement(replace(held, num_scenes=3), "kps", "short").run()) == [1, 2, 3]
    assert list(Measurement(replace(held, seed=1), "kps", "short").run()) == [1, 2]
    for part in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        file = model / f"{part}.safetensors"
        save_file({name: tensor * 1.01 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
        assert list(Measurement(replace(held, seed=1), "kps", "short").run()) == [1, 2]
    assert list(Measurement(replace(held, seed=1), "kps", "short").run()) == []


def test_a_measurement_is_done_again_where_the_texts_are_other_ones(trained, tmp_path, monkeypatch):
    measurement = Measurement(replace(trained, work=tmp_path), "truncated", "short")
    assert list(measurement.run()) == [1, 2]
    describe = contest_module.describe_scenes
    monkeypatch.setattr(contest_module, "describe_scenes", lambda *given, **how: describe(*given, **how)[::-1])
    assert list(measurement.run()) == [1, 2]


def test_a_judge_that_changed_meanwhile_is_an_error(trained, measured, tmp_path):
    for each in measured[:2]:
        content = json.loads(each.file.read_text())
        copy = replace(each, contest=replace(trained, work=tmp_path))
        copy.file.parent.mkdir(parents=True, exist_ok=True)
        content["key"]["unet"] = each.name
        copy.file.write_text(json.dumps(content))
    changed = [replace(each, contest=replace(trained, work=tmp_path)) for each in measured[:2]]
    with pytest.raises(LongClipError, match="judge changed while the contest ran"):
        contest_rows(changed)


def test_what_was_not_measured_and_who_does_not_take_part_are_named(trained, tmp_path):
    with pytest.raises(LongClipError, match="kps-long is not measured"):
        contest_rows([Measurement(replace(trained, work=tmp_path), "kps", "long")])
    with pytest.raises(LongClipError, match="no encoder 'long' in the contest; choose from truncated, windows"):
        trained.measurements(("long",), ("long",), 1)


def test_a_reader_takes_the_unets_place(trained, monkeypatch):
    train = reader_module.train_reader
    monkeypatch.setattr(contest_module, "train_reader", lambda *given, seed: train(*given, seed=seed, steps=2))
    held = replace(trained, reader=True)
    (training,) = held.trainings(("truncated", "kps"), 1)
    assert list(training.run()) == [1]
    assert list(training.run()) == []
    todo = held.measurements(("truncated", "kps"), ("long", "short"), 1)
    for measurement in todo:
        assert len(list(measurement.run())) == 2
    rows, facts, judge = contest_rows(todo)
    assert judge == sha256_of(held.reader_file)
    assert "short_drift" not in {row.column for row in rows}
    assert {fact.kind for fact in facts["kps"]} == {"long", "short"}
    assert not {each.file for each in todo} & {
        each.file for each in trained.measurements(("truncated", "kps"), ("long", "short"), 1)
    }
