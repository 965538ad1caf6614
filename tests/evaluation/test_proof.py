"""README's table of the peers is what `longclip bench peers` wrote into samples/proof, of the bundled model."""

import json
from pathlib import Path

import pytest

from longclip_diffusers import bundled
from longclip_diffusers.evaluation.peers import Reading, peer_texts
from longclip_diffusers.evaluation.report import hash_model

ROOT = Path(__file__).parent.parent.parent
COUNTS = ("dropped", "added", "altered", "words_cut", "sentences_cut")
WAYS = {
    "stock": "truncated",
    "compel": "compel",
    "sd_embed": "sd_embed_repaired",
    "lpw": "lpw_repaired",
    "ours: sentence windows": "windows_sentence",
    "ours: context windows": "windows_context",
    "ours: long encoder": "long",
}
TIMES = ("seconds", "time / compel's")  # of another run
RECALL = {
    "storybook: details 0-77 / 77-150 / 150-248": ("0-77", "77-150", "150-248"),
    "storybook: near / far references": ("near_reference", "far_reference"),
}


@pytest.fixture(scope="module")
def run():
    return json.loads((ROOT / "samples/proof/peers.json").read_text())


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def short(value):
    return f"{value:.2f}".removeprefix("0")


def test_readmes_table_of_the_peers_is_that_run(run, readme):
    rows = {(row["encoder"], row["column"]): row for row in run["rows"]}

    def reading(way, text):
        counts = {name: rows[way, f"{text}: {name}"] for name in COUNTS}
        return Reading(way, text, counts["dropped"]["n"], **{name: row["value"] for name, row in counts.items()})

    expected = {}
    for text in peer_texts(run["num_words"]):
        readings = [reading(way, text.name) for way in WAYS.values()]
        expected[f"{text.name} ({readings[0].tokens})"] = [str(each) for each in readings]
    for label, columns in RECALL.items():
        expected[label] = [" / ".join(short(rows[way, name]["value"]) for name in columns) for way in WAYS.values()]
    (table,) = [part for part in readme.split("\n\n") if part.startswith("| text (tokens) |")]
    head, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert head[1:] == list(WAYS)
    assert {label: cells for label, *cells in lines if label not in TIMES} == expected


def test_that_run_is_of_the_bundled_model_and_of_the_command_in_readme(run, readme):
    assert run["sha256"] == hash_model(bundled())
    assert f"longclip bench peers --full --num-scenes {run['num_scenes']} --sd-embed" in readme
