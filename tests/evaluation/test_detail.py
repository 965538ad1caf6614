"""Detail recall: it counts what is shown where it is told, and says how sure it is."""

import json

import pytest

from longclip_diffusers.evaluation.detail import COLUMNS, Fact, describe_scenes, recall_rows, score
from longclip_diffusers.evaluation.report import hash_model, plot_recall, table, write_json
from longclip_diffusers.storybook.render import render


def facts(*, shown, position=100, count=40):
    return [Fact(index // 4, "door", position, shown=index < shown) for index in range(count)]


def test_true_pictures_have_full_recall_and_another_scenes_text_has_chance():
    pairs = describe_scenes(40, seed=0)
    told = score(pairs, [render(scene) for scene, _ in pairs])
    assert {row.column for row in recall_rows("true", told)} == set(COLUMNS)
    assert [row.value for row in recall_rows("true", told)] == [1, 1, 1]
    for row in recall_rows("chance", told, chance=True):
        assert row.value == pytest.approx(1 / 6, abs=0.08)  # some 240 facts a column
        assert row.low < 1 / 6 < row.high


def test_pictures_of_other_scenes_have_chance_recall():
    pairs = describe_scenes(40, seed=0)
    told = score(pairs, [render(scene) for scene, _ in pairs[1:] + pairs[:1]])
    assert all(row.value < 0.3 for row in recall_rows("wrong", told))
    assert [row.value for row in recall_rows("chance", told, chance=True)] == [1, 1, 1]


def test_a_row_holds_share_interval_and_count():
    (row,) = recall_rows("some", facts(shown=30))
    assert (row.encoder, row.column, row.value, row.n) == ("some", "77-150", 0.75, 40)
    assert row.low < 0.75 < row.high
    (sure,) = recall_rows("all", facts(shown=40))
    assert (sure.low, sure.value, sure.high) == (1, 1, 1)


@pytest.mark.parametrize(("position", "column"), [(76, "0-77"), (77, "77-150"), (149, "77-150"), (150, "150-248")])
def test_a_fact_counts_in_the_column_of_its_sentences_last_token(position, column):
    assert [row.column for row in recall_rows("x", facts(shown=1, position=position))] == [column]


def test_evaluation_scenes_are_their_own_and_repeatable():
    assert describe_scenes(3, seed=1) == describe_scenes(3, seed=1)
    assert describe_scenes(3, seed=1) != describe_scenes(3, seed=2)


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
    assert "| long | 0.750 [" in table(rows)
    plot_recall(tmp_path / "out" / "plot.png", {"long": facts(shown=30)}, chance=1 / 6)
    assert (tmp_path / "out" / "plot.png").stat().st_size > 10_000
