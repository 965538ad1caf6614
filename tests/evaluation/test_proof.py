"""The numbers that README, model card and samples/proof tell are those of the runs kept there, of the bundled model."""

import json
from pathlib import Path

import pytest

from longclip_diffusers import bundled
from longclip_diffusers.evaluation.detail import detail_tables, summary_table
from longclip_diffusers.evaluation.peers import Reading, peer_texts, reading_table
from longclip_diffusers.evaluation.peers.reading import COUNTS
from longclip_diffusers.evaluation.report import Row, hash_model

ROOT = Path(__file__).parent.parent.parent
PROOF = ROOT / "samples/proof"
WAYS = {
    "stock": "truncated",
    "compel": "compel",
    "sd_embed": "sd_embed_repaired",
    "lpw": "lpw_repaired",
    "this package: sentence windows": "windows_sentence",
    "context windows": "windows_context",
    "long encoder": "long",
    "long encoder, context windows": "long_context",
}
TIMES = {"seconds": "{:.1f}", "time / compel's": "{:.2f}"}
RECALL = {
    "storybook: details 0-77 / 77-150 / 150-248": ("0-77", "77-150", "150-248"),
    "storybook: near / far references": ("near_reference", "far_reference"),
}


@pytest.fixture(scope="module")
def run():
    return json.loads((PROOF / "peers.json").read_text())


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def rows_of(content):
    return [Row(**row) for row in content["rows"]]


def test_every_table_of_the_contest_is_that_run(readme):
    contest, reader = (json.loads((PROOF / name).read_text()) for name in ("contest.json", "reader.json"))
    summary, told = summary_table(rows_of(contest)), (PROOF / "README.md").read_text(encoding="utf-8")
    assert summary in readme
    assert summary in (bundled() / "README.md").read_text(encoding="utf-8")
    assert (PROOF / "contest.md").read_text() == f"{summary}\n\n{detail_tables(rows_of(contest))}\n"
    assert all(part in told for part in detail_tables(rows_of(contest)).split("\n\n"))
    assert summary_table(rows_of(reader)) in told
    for content in (contest, reader):
        assert content["sha256"].items() >= hash_model(bundled()).items()
    assert json.loads((bundled() / "evaluation.json").read_text()) == contest
    unet = contest["sha256"]["unet/diffusion_pytorch_model.safetensors"]
    assert unet in told and unet in (bundled() / "README.md").read_text(encoding="utf-8")


def short(value):
    return f"{value:.2f}".removeprefix("0")


def reading(run, way, text):
    """What a run found of a way and a text."""
    rows = {row["column"]: row for row in run["rows"] if row["encoder"] == way}
    failed = rows[f"{text}: failed"]
    counts = {} if failed["value"] else {name: rows[f"{text}: {name}"]["value"] for name in COUNTS}
    return Reading(way, text, failed["n"], **counts, error=run["errors"].get(f"{way}, {text}", ""))


def test_readmes_table_of_the_peers_is_that_run(run, readme):
    rows = {(row["encoder"], row["column"]): row for row in run["rows"]}
    expected = {}
    for text in peer_texts(run["num_words"]):
        readings = [reading(run, way, text.name) for way in WAYS.values()]
        expected[f"{text.name} ({readings[0].tokens})"] = [str(each) for each in readings]
    for label, columns in RECALL.items():
        expected[label] = [" / ".join(short(rows[way, name]["value"]) for name in columns) for way in WAYS.values()]
    for column, form in TIMES.items():
        times = [rows.get((way, column)) for way in WAYS.values()]
        expected[column] = [form.format(row["value"]) if row else "" for row in times]
    (table,) = [part for part in readme.split("\n\n") if part.startswith("| text (tokens) |")]
    head, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert head[1:] == list(WAYS)
    assert {label: cells for label, *cells in lines} == expected


def test_that_run_is_of_the_bundled_model_and_of_the_command_in_readme(run, readme):
    assert run["sha256"] == hash_model(bundled())
    assert f"longclip bench peers --full --num-scenes {run['num_scenes']} --sd-embed" in readme


def test_the_table_of_sdxls_peers_is_that_run():
    run = json.loads((PROOF / "peers_sdxl.json").read_text())
    ways = list(dict.fromkeys(row["encoder"] for row in run["rows"]))
    readings = [reading(run, way, text.name) for way in ways for text in peer_texts(run["num_words"])]
    assert {"sd_embed", "lpw"} < set(ways)
    assert reading_table(readings) in (PROOF / "README.md").read_text(encoding="utf-8")
