"""`longclip bench train` compares steps that do the same, and says so."""

import json

import pytest

from longclip_diffusers.cli import longclip
from longclip_diffusers.training import bench


@pytest.fixture
def small(monkeypatch):
    """The same comparison at the size of a toy."""
    monkeypatch.setattr(bench, "WIDTHS", {"b16": (32, 2, 48, 2, 56, 1)})
    monkeypatch.setattr(bench, "CLIP_VOCABULARY", 600)
    monkeypatch.setattr(bench, "CLIP_EOS", 599)


def test_bench_train(small, tmp_path, capsys):
    file = tmp_path / "new" / "bench.json"
    options = ["--batch-size", "48", "--micro-batch", "8", "--repeats", "1", "--json", str(file)]
    assert longclip.main(["bench", "train", *options]) == 0
    written = json.loads(file.read_text())
    assert (written["batch_size"], written["micro_batch"], written["width"]) == (48, 8, "b16")
    plain, ours, accumulation = written["rows"]
    assert [plain["step"], ours["step"], accumulation["step"]] == ["plain", "ours", "accumulation"]
    assert ours["gradient_error"] < 1e-5  # the bound, in fp32
    assert 0.1 < accumulation["gradient_error"] < 2  # each micro-batch saw a sixth of the negatives
    assert plain["flops"] > 1.3 * ours["flops"]
    assert plain["flops"] > accumulation["flops"]  # which encodes nothing twice
    printed = capsys.readouterr().out
    assert f"({plain['flops'] / ours['flops']:.2f}x)" in printed
    assert all(row["seconds"] > 0 for row in written["rows"])


def test_counted_work_at_the_papers_size():
    # The target of 1.5 at a batch of 2048: shapes alone, no bench.
    counted = [bench.large_flops("b16", step) for step in ("plain", "ours")]
    assert counted[0] / counted[1] > 1.5


def test_nonsense_is_refused(capsys):
    assert longclip.main(["bench", "train", "--depth", "0"]) == 1
    assert capsys.readouterr().err == "longclip: depth is 0; it must be 1 at least.\n"


def test_bench_generate(tmp_path, capsys):
    file = tmp_path / "new" / "speed.json"
    options = ["--model", "tiny", "--size", "64", "--lengths", "77", "496", "--repeats", "1", "--dtype", "bfloat16"]
    assert longclip.main(["bench", "generate", *options, "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert (written["lengths"], written["dtype"], written["repeats"]) == ([77, 496], "bfloat16", 1)
    assert [(row["tokens"], row["cache"]) for row in written["rows"]] == [
        (77, False),
        (77, True),
        (496, False),
        (496, True),
    ]
    printed = capsys.readouterr().out
    for row in written["rows"]:
        assert f"({row['flops_ratio']:.3f}x) | {row['seconds']:.4f} ({row['seconds_ratio']:.2f}x) |" in printed
