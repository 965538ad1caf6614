"""Detail recall: it counts what is shown where and how it is told, and says how sure it is."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from longclip_diffusers import LongClipError, load_tokenizer
from longclip_diffusers.evaluation.detail import (
    COLUMNS,
    DRIFT,
    Fact,
    describe_scenes,
    detail_tables,
    drift_row,
    recall_rows,
    score,
    summary_table,
)
from longclip_diffusers.evaluation.report import hash_model, plot_recall, write_json
from longclip_diffusers.storybook.checker import read_picture
from longclip_diffusers.storybook.phrases import UNSEEN
from longclip_diffusers.storybook.render import render
from longclip_diffusers.storybook.slots import OPENING_SLOTS, SLOTS

KINDS = ("long", "chapter", "short")
CHANCE = np.mean([1 / len(slot.words) for slot in SLOTS])


@pytest.fixture(scope="module")
def told():
    return {kind: describe_scenes(30, seed=0, kind=kind) for kind in KINDS}


def facts(*, shown, position=100, count=40, kind="long", **more):
    return [Fact(index // 4, "door", kind, position, shown=index < shown, **more) for index in range(count)]


def test_true_pictures_have_full_recall_and_another_scenes_words_have_chance(told):
    found = [read_picture(render(scene)) for scene, _ in told["long"]]
    every = [fact for kind in KINDS for fact in score(told[kind], found, kind=kind)]
    rows = recall_rows("true", every)
    assert [row.column for row in rows] == list(COLUMNS)
    assert {row.value for row in rows} == {1}
    for row in recall_rows("chance", every, chance=True):
        assert row.low - 0.1 < CHANCE < row.high + 0.1  # the smallest column has some 60 facts
    assert np.mean([fact.by_chance for fact in every]) == pytest.approx(CHANCE, abs=0.05)


def test_other_scenes_pictures_have_chance_recall(told):
    pairs = told["long"]
    found = [{slot.name: scene[slot.name] for slot in SLOTS} for scene, _ in pairs[1:] + pairs[:1]]
    every = score(pairs, found)
    assert np.mean([fact.shown for fact in every]) == pytest.approx(CHANCE, abs=0.05)
    assert all(fact.by_chance for fact in every)


@pytest.mark.parametrize("kind", KINDS)
def test_positions_and_distances_are_those_of_the_text_tokenised_as_a_whole(told, kind):
    tokenizer = load_tokenizer()
    pairs = told[kind][:5]
    found = [{slot.name: scene[slot.name] for slot in SLOTS} for scene, _ in pairs]
    counted = iter(score(pairs, found, kind=kind))
    for _, caption in pairs:
        encoded = tokenizer(str(caption), truncation=False, verbose=False, return_offsets_mapping=True)
        ends = [end for _, end in encoded.offset_mapping]  # BOS, which has none, is number 0
        starts = [start for start, _ in encoded.offset_mapping]
        begin, spans = 0, []
        for sentence in caption.sentences:
            spans.append((begin, begin + len(sentence.text)))
            begin += len(sentence.text) + 1
        for (_, stop), sentence in zip(spans, caption.sentences, strict=True):
            for slot in (each for each in sentence.slots if each not in OPENING_SLOTS):
                fact = next(counted)
                assert (fact.slot, ends[fact.position]) == (slot, stop)
                assert (fact.quarter - 1) / 4 < fact.position / (len(ends) - 2) <= fact.quarter / 4
                assert (fact.distance is None) == (sentence.antecedent is None)
                if fact.distance is not None:
                    assert starts[fact.position - fact.distance + 1] == spans[sentence.antecedent][0]
    assert next(counted, None) is None


@pytest.mark.parametrize(
    ("fact", "column"),
    [
        ({"position": 76}, "0-77"),
        ({"position": 77}, "77-150"),
        ({"position": 149}, "77-150"),
        ({"position": 150}, "150-248"),
        ({"position": 200, "distance": 75}, "near_reference"),
        ({"position": 200, "distance": 76}, "far_reference"),
        ({"kind": "chapter", "quarter": 3}, "chapter_3"),
        ({"kind": "chapter", "distance": 247}, "chapter_reference"),
        ({"kind": "chapter", "distance": 246}, None),
        ({"kind": "short"}, "short"),
    ],
)
def test_a_fact_counts_in_the_column_of_its_kind_place_and_distance(fact, column):
    assert [row.column for row in recall_rows("x", facts(shown=1, **fact))] == ([column] if column else [])


def test_a_row_holds_share_interval_and_count():
    (row,) = recall_rows("some", facts(shown=30))
    assert (row.encoder, row.column, row.value, row.n) == ("some", "77-150", 0.75, 40)
    assert row.low < 0.75 < row.high
    (sure,) = recall_rows("all", facts(shown=40))
    assert (sure.low, sure.value, sure.high) == (1, 1, 1)


def test_three_runs_on_the_same_scenes_are_no_surer_than_one():
    (one,), (three,) = recall_rows("x", facts(shown=20)), recall_rows("x", facts(shown=20) * 3)
    assert (three.value, three.low, three.high) == (one.value, one.low, one.high)
    assert three.n == 3 * one.n


def test_texts_are_in_phrases_that_no_training_uses_and_have_their_kinds_lengths(told):
    tokenizer = load_tokenizer()
    beginnings = tuple(pattern.partition("{")[0] for pattern in UNSEEN.openings)
    bounds = {"short": (10, 75), "long": (190, 245), "chapter": (550, 2100)}
    for kind, (fewest, most) in bounds.items():
        for _, caption in told[kind]:
            assert str(caption).startswith(beginnings)
            length = len(tokenizer(str(caption), add_special_tokens=False, truncation=False, verbose=False).input_ids)
            assert fewest <= length <= most, (kind, length)


def test_scenes_are_the_same_for_every_kind_and_repeatable(told):
    assert len({tuple(scene for scene, _ in told[kind]) for kind in KINDS}) == 1
    assert describe_scenes(3, seed=0, kind="chapter") == told["chapter"][:3]
    assert describe_scenes(3, seed=1)[0] != told["long"][0]


def test_an_unknown_kind_and_a_single_scene_are_refused():
    with pytest.raises(LongClipError, match="no kind of text 'poem'; choose from long, chapter, short"):
        describe_scenes(2, seed=0, kind="poem")
    with pytest.raises(LongClipError, match="num_scenes is 1; chance is measured against another scene"):
        describe_scenes(1, seed=0)


def test_tables_are_one_for_each_kind_with_the_drift_beside_the_short_prompts():
    told = facts(shown=30) + facts(shown=4, kind="short")
    rows = [*recall_rows("long", told), drift_row("long", [0, 1], [2.0, 4.0])]
    long, short = detail_tables(rows).split("\n\n")
    assert "| long | 0.750 [" in long and "77-150 (n=40)" in long
    assert "| encoder | short (n=40) | short_drift (n=2) |" in short and "| 3.000 [2.000, 4.000] |" in short
    assert DRIFT == "short_drift"


def test_the_summary_is_one_table_of_values_and_an_encoder_without_one_leaves_its_place_empty():
    told = facts(shown=30) + facts(shown=4, kind="short")
    rows = [*recall_rows("long", told), drift_row("long", [0, 1], [2.0, 4.06]), *recall_rows("chance", facts(shown=40))]
    assert summary_table(rows).splitlines() == [
        "| encoder | 77-150 | short | drift |",
        "|---|---|---|---|",
        "| long | .750 | .100 | 3.0 |",
        "| chance | 1.000 |  |  |",
    ]


def test_report_files_say_what_was_measured(tmp_path):
    rows = recall_rows("long", facts(shown=30)) + recall_rows("chance", facts(shown=5))
    model = tmp_path / "model"
    (model / "unet").mkdir(parents=True)
    (model / "unet" / "w.safetensors").write_bytes(b"weights")
    hashes = hash_model(model)
    write_json(tmp_path / "out" / "detail.json", rows, hashes, seed=3)
    content = json.loads((tmp_path / "out" / "detail.json").read_text())
    assert set(content["rows"][0]) == {"encoder", "column", "value", "low", "high", "n"}
    assert content["sha256"].keys() == {"unet/w.safetensors"}
    assert content["seed"] == 3
    (model / "unet" / "w.safetensors").write_bytes(b"other weights")
    assert hash_model(model) != hashes


def test_the_plot_has_a_panel_for_each_kind_of_fact_there_is(tmp_path):
    sizes = []
    told = facts(shown=30)
    referred = [replace(fact, distance=100) for fact in told]
    for every in (told, told + facts(shown=9, kind="chapter", quarter=2), told + referred):
        plot_recall(tmp_path / "plot.png", {"long": every})
        with Image.open(tmp_path / "plot.png") as drawn:
            sizes.append(drawn.size)
    assert sizes[0][0] > 500
    assert sizes[1][0] > 1.5 * sizes[0][0]
    assert sizes[2] == sizes[1]
