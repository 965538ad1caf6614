"""Whole runs on toy models: what they leave, what stays untouched, and that nothing but the recipe decides them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import bases
import numpy as np
import pytest
import torch
import toys
from PIL import Image
from safetensors.torch import load_file, save_file

from longclip_diffusers import LongClipError, load_text_encoder
from longclip_diffusers.positions import linear_positions, stretch_positions
from longclip_diffusers.text_encoder import num_positions
from longclip_diffusers.training import finetune
from longclip_diffusers.training.estimate import estimate
from longclip_diffusers.training.finetune import Evaluation, Run, claim_folder, fine_tune
from longclip_diffusers.training.recipe import Recipe
from longclip_diffusers.training.runlog import plot_curves, read_log
from longclip_diffusers.training.subject import open_subject

pytestmark = pytest.mark.filterwarnings("ignore:PCM does nothing:UserWarning")
TABLE = "text_model.embeddings.position_embedding.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bases.clip(tmp_path_factory.mktemp("base"))


@pytest.fixture
def recipe(base, tmp_path):
    return Recipe(
        base=str(base),
        output=str(tmp_path / "run"),
        steps=4,
        batch_size=8,
        lr=1e-3,
        components=4,
        evaluate_every=2,
        num_validation=6,
    )


def run(recipe):
    events = list(fine_tune(recipe))
    return [event for event in events if not isinstance(event, Evaluation)]


def weights(recipe, name="last"):
    return load_file(f"{recipe.output}/{name}/model.safetensors")


def losses(steps):
    return [[step.measured[name] for name in ("loss_long", "loss_short", "loss_anchor")] for step in steps]


@pytest.mark.parametrize("objective", ["contrastive", "both"])
def test_kept_rows_are_bit_identical_and_the_others_are_trained(recipe, base, objective):
    recipe = replace(recipe, objective=objective, anchor_batch=4, decay="all", weight_decay=0.5)
    run(recipe)
    table, old = weights(recipe)[TABLE], load_file(base / "model.safetensors")[TABLE]
    assert torch.equal(table[:20], old[:20])
    assert not (table[20:] == stretch_positions(old)[20:]).all(dim=1).any()


def test_a_linear_table_keeps_no_row(recipe, base):
    recipe = replace(recipe, stretch="linear", steps=2)
    run(recipe)
    old = linear_positions(load_file(base / "model.safetensors")[TABLE], length=248)
    assert not (weights(recipe)[TABLE] == old)[:200].all(dim=1).any()  # few texts reach the last rows


def test_the_log_the_exports_and_the_curves(recipe):
    steps = run(recipe)
    log = read_log(recipe.output)
    told = [line for line in log if "event" not in line]
    assert [line["step"] for line in told] == [1, 2, 3, 4]
    assert {"loss", "loss_long", "loss_short", "loss_anchor", "lr"} <= set(told[0])
    assert [line["loss"] for line in told] == [step.loss for step in steps]
    assert [(line["event"], line["step"]) for line in log if "event" in line] == [("evaluation", 2), ("evaluation", 4)]
    assert not [line for line in log if "event" in line and "loss" in line]
    assert num_positions(load_text_encoder(recipe.output)) == 248
    assert plot_curves(recipe.output).stat().st_size > 10_000


def test_the_best_export_is_of_the_best_evaluation(recipe, monkeypatch):
    scores = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr(
        "longclip_diffusers.training.validation.Validation.measure", lambda self: {"score": next(scores)}
    )
    events = list(fine_tune(replace(recipe, steps=6)))
    assert [event.best for event in events if isinstance(event, Evaluation)] == [True, True, False]
    best, last = weights(recipe, "best"), weights(recipe, "last")
    assert not torch.equal(best[TABLE], last[TABLE])
    again = replace(recipe, output=recipe.output + "-again")
    monkeypatch.undo()
    stopped = (event.step for event in fine_tune(replace(again, steps=6)))
    while next(stopped) < 5:
        pass
    assert torch.equal(weights(again, "last")[TABLE], best[TABLE])


def test_micro_batches_change_nothing_but_rounding(recipe):
    recipe = replace(recipe, objective="both", anchor_batch=8, anchor_share=0.25)
    whole = losses(run(replace(recipe, output=recipe.output + "-whole")))
    parts = losses(run(replace(recipe, micro_batch=3)))
    assert whole[0][:2] == [None, None]  # the anchor alone
    # Adam divides by small gradients, so that rounding in the first steps grows in the later ones.
    torch.testing.assert_close(torch.tensor(whole[1:]), torch.tensor(parts[1:]), rtol=1e-4, atol=1e-5)


def test_a_frozen_vision_tower_gives_the_same_losses_from_kept_features(recipe, base):
    steps = run(replace(recipe, freeze_vision=True))
    trained = run(replace(recipe, output=recipe.output + "-both-towers"))
    torch.testing.assert_close(torch.tensor(steps[0].loss), torch.tensor(trained[0].loss))
    old, new = load_file(base / "model.safetensors"), weights(recipe)
    vision = [name for name in old if name.startswith("vis")]
    assert vision
    assert all(torch.equal(old[name], new[name]) for name in vision)
    features = load_file(f"{recipe.output}/image_features-0-of-1.safetensors")
    assert features["features"].shape == (4 * 8, 24)


def test_processes_that_resume_at_different_steps_are_refused(recipe, monkeypatch):
    run(replace(recipe, steps=1))
    monkeypatch.setattr(finetune, "average", lambda values: [value / 2 for value in values])  # the other one has none
    with pytest.raises(LongClipError, match="holds other checkpoints on other machines"):
        run(replace(recipe, steps=1))


def pictures(folder, count):
    """Files of noise, and the rows of a table that names them."""
    rows = []
    for number in range(count):
        picture = Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8))
        picture.save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": f"a picture of {number}"})
    return rows


def test_a_bad_picture_in_the_last_batch_is_replaced_where_features_are_kept(recipe, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pictures(tmp_path, 120)))
    recipe = replace(recipe, data=str(data), freeze_vision=True, steps=2)
    opened = Run.open(recipe, torch.device("cpu"))
    assert opened.order.steps_per_epoch > 4  # stand-ins are of later batches, whose features are not kept
    held_out = 120 - len(opened.data)
    bad = opened.order.indices(2)[3]
    (tmp_path / f"{held_out + bad}.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"\.png.* Another sample stands in for it"):
        steps = run(recipe)
    assert [step.measured["num_bad"] for step in steps] == [0, 1]


def test_pixels_leave_the_workers_without_a_file_for_each(recipe):
    opened = Run.open(recipe, torch.device("cpu"))
    batch = next(opened.batches(1))
    assert all(isinstance(sample.image, np.ndarray) for sample in batch.samples)
    assert opened._images(batch).shape[:2] == (8, 3)


def test_other_processes_hold_no_held_out_pictures(recipe, monkeypatch):
    monkeypatch.setattr("longclip_diffusers.training.validation.rank", lambda: 1)
    assert Run.open(recipe, torch.device("cpu")).validation.samples == []


def test_kept_features_are_computed_anew_where_the_data_changed(recipe, tmp_path):
    rows, data = pictures(tmp_path, 40), tmp_path / "data.jsonl"

    def features(rows):
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = Run.open(replace(recipe, data=str(data), freeze_vision=True), torch.device("cpu"))
        claim_folder(run.folder, run.recipe)
        run.keep_features()
        return {index: run.features[[index]] for step in range(1, 5) for index in run.order.indices(step)}

    before = features(rows)
    (file,) = Path(recipe.output).glob("image_features*")
    written = file.stat().st_mtime_ns
    assert features(rows).keys() == before.keys()
    assert file.stat().st_mtime_ns == written  # read
    after = features([rows[1], rows[0], *rows[3:], rows[2]])
    assert after.keys() == before.keys()
    assert file.stat().st_mtime_ns != written
    assert not all(torch.equal(after[index], before[index]) for index in before)
    file.write_bytes(b"cut off")
    again = features([rows[1], rows[0], *rows[3:], rows[2]])
    assert all(torch.equal(again[index], after[index]) for index in after)


@pytest.mark.parametrize(("share", "num_steps"), [(0.25, 3), (1.0, 0)])
def test_kept_features_are_of_the_steps_that_look_at_pictures(recipe, share, num_steps):
    steps = run(replace(recipe, objective="both", anchor_batch=4, anchor_share=share, freeze_vision=True))
    assert sum(step.measured["loss_long"] is not None for step in steps) == num_steps
    files = list(Path(recipe.output).glob("image_features*"))
    assert sum(len(load_file(file)["indices"]) for file in files) == num_steps * 8


@pytest.mark.parametrize(
    "change",
    [{"label_smoothing": 0.1}, {"margin": 0.5}, {"captions": "debias"}, {"captions": "sub"}, {"components": 0}],
)
def test_every_option_has_an_effect(recipe, change):
    plain = run(replace(recipe, output=recipe.output + "-plain", steps=2))
    changed = run(replace(recipe, steps=2, **change))
    # The first loss is the same for the SVD's gradient, which differs from ours by rounding only.
    assert (plain[0].loss != changed[0].loss) or (
        change == {"pca": "svd"} and plain[0].loss == pytest.approx(changed[0].loss)
    )


def test_the_logit_scale_is_bounded_unless_as_released(recipe, base, tmp_path):
    run(replace(recipe, steps=1, logit_scale="released", lr=1e-9))
    assert weights(recipe)["logit_scale"].item() == pytest.approx(4.6052, abs=1e-4)
    hot = tmp_path / "hot"
    shutil.copytree(base, hot)
    tensors = load_file(hot / "model.safetensors")
    save_file({**tensors, "logit_scale": torch.tensor(5.0)}, hot / "model.safetensors", metadata={"format": "pt"})
    bounded = replace(recipe, base=str(hot), output=recipe.output + "-bounded", steps=1)
    run(bounded)
    assert weights(bounded)["logit_scale"].item() == pytest.approx(4.6052, abs=1e-4)


def test_bf16_is_near_fp32(recipe):
    recipe = replace(recipe, objective="both", anchor_batch=4, anchor_share=0.0, steps=2)
    exact = losses(run(replace(recipe, output=recipe.output + "-fp32")))
    rounded = losses(run(replace(recipe, precision="bf16")))
    assert exact != rounded
    torch.testing.assert_close(torch.tensor(rounded), torch.tensor(exact), rtol=0.1, atol=0.05)


def test_both_encoders_of_an_sdxl_are_lengthened_from_plain_text(tmp_path):
    base = bases.sdxl_encoders(tmp_path / "sdxl")
    recipe = Recipe(
        base=str(base),
        data=f"txt:{bases.texts(tmp_path / 'texts.txt')}",
        output=str(tmp_path / "run"),
        objective="anchor",
        steps=12,
        batch_size=6,
        lr=1e-3,
    )
    steps = run(recipe)
    assert steps[-1].loss < steps[0].loss
    for name in ("text_encoder", "text_encoder_2"):
        old, new = (
            load_file(base / name / "model.safetensors"),
            load_file(f"{recipe.output}/best/{name}/model.safetensors"),
        )
        assert new[TABLE].shape[0] == 248
        assert torch.equal(new[TABLE][:20], old[TABLE][:20])
        token = "text_model.embeddings.token_embedding.weight"
        assert torch.equal(new[token], old[token])
        trained = "text_model.encoder.layers.0.mlp.fc1.weight"
        assert not torch.equal(new[trained], old[trained])
    second = toys.CLIPTokenizer.from_pretrained(f"{recipe.output}/best/tokenizer_2")
    assert (second.pad_token, second.model_max_length) == ("!", 248)


def test_a_lone_encoder_with_projection_is_read_where_sdxl_reads_it(tmp_path):
    base = bases.sdxl_encoders(tmp_path / "sdxl")
    data = f"txt:{bases.texts(tmp_path / 'texts.txt')}"
    recipe = Recipe(str(base / "text_encoder_2"), data, str(tmp_path / "run"), "anchor", steps=1, batch_size=2)
    assert [anchor.reads for anchor in open_subject(recipe).anchors] == ["penultimate"]
    assert [anchor.reads for anchor in open_subject(replace(recipe, base=str(base / "text_encoder"))).anchors] == [
        "last"
    ]


def test_short_texts_are_joined_until_they_fill_the_encoder(recipe, tmp_path):
    data = f"txt:{bases.texts(tmp_path / 'texts.txt')}"
    opened = Run.open(replace(recipe, data=data, objective="anchor", num_validation=4), torch.device("cpu"))
    batch = next(opened.batches(1))
    texts = [opened._texts(1, *each, opened.subject.anchors[0])[0] for each in enumerate(batch.samples)]
    lengths = [len(opened.subject.tokenizer(text).input_ids) for text in texts]
    assert max(lengths) <= 248
    assert sum(length > 180 for length in lengths) >= 2
    assert any(text == sample.caption for text, sample in zip(texts, batch.samples, strict=True))


def test_steps_of_the_anchor_alone_load_what_it_reads(recipe):
    recipe = replace(recipe, objective="both", steps=4, anchor_share=0.5, batch_size=4, anchor_batch=2)
    stream = Run.open(recipe, torch.device("cpu")).batches(1)
    assert [len(next(stream).samples) for _ in range(4)] == [2, 2, 4, 4]


def test_a_finished_run_does_nothing_and_another_recipe_is_refused(recipe):
    run(recipe)
    before = weights(recipe)
    assert list(fine_tune(replace(recipe, micro_batch=2))) == []
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(recipe).items())
    with pytest.raises(LongClipError, match=r"another recipe: steps 4 \(now 5\), seed 0 \(now 1\)"):
        next(fine_tune(replace(recipe, steps=5, seed=1)))


def test_complaints(recipe, tmp_path):
    data = f"txt:{bases.texts(tmp_path / 'texts.txt')}"
    with pytest.raises(LongClipError, match="has no pictures, which objective 'contrastive' needs: try anchor"):
        next(fine_tune(replace(recipe, data=data)))
    long = bases.clip(tmp_path / "long", length=248)
    with pytest.raises(LongClipError, match=r"has 248 positions already. The anchor learns from the encoder"):
        next(fine_tune(replace(recipe, base=str(long), objective="anchor", output=str(tmp_path / "other"))))
    lone = bases.sdxl_encoders(tmp_path / "sdxl") / "text_encoder"
    with pytest.raises(LongClipError, match="holds a text tower only"):
        next(fine_tune(replace(recipe, base=str(lone), output=str(tmp_path / "another"))))


def test_a_mistaken_command_may_be_put_right(recipe):
    with pytest.raises(LongClipError, match=r"nowhere"):
        next(fine_tune(replace(recipe, data="txt:nowhere.txt")))
    begun = fine_tune(replace(recipe, freeze_vision=True))
    next(begun)  # stopped before anything was saved
    begun.close()
    assert [step.step for step in run(replace(recipe, seed=1, freeze_vision=True))] == [1, 2, 3, 4]


def test_an_estimate_writes_nothing(recipe, tmp_path):
    report = estimate(replace(recipe, objective="both", anchor_batch=4))
    assert "the anchor alone for 3 steps, then with contrastive losses for 1" in report
    assert "4 of 8 samples" in report
    assert not (tmp_path / "run").exists()


def test_a_line_that_a_killed_run_left_half_written_is_dropped(recipe):
    run(replace(recipe, steps=4))
    log = Path(recipe.output, "log.jsonl")
    log.write_text(log.read_text() + '{"step": 5, "lo')
    assert list(fine_tune(recipe)) == []
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 2, 3, 4, 4]


def test_the_teacher_is_not_trained(recipe):
    opened = Run.open(replace(recipe, objective="both", anchor_batch=4, anchor_share=0.0), torch.device("cpu"))
    teacher = opened.subject.anchors[0].teacher
    before = [parameter.clone() for parameter in teacher.parameters()]
    claim_folder(opened.folder, opened.recipe)
    assert len([event for event in opened.steps() if not isinstance(event, Evaluation)]) == 4
    assert all(torch.equal(old, new) for old, new in zip(before, teacher.parameters(), strict=True))
