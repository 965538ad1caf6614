"""`longclip bench train` compares steps that do the same, and says so."""

import json
import re

import pytest
from peers_stand_in import write_lpw, write_sd_embed

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


def test_bench_peers(tmp_path, capsys):
    file = tmp_path / "new" / "peers.json"
    options = ["--shape", "tiny", "--full", "--num-words", "40", "--repeats", "2", "--num-scenes", "2"]
    checkout = str(write_sd_embed(tmp_path / "sd_embed"))
    assert longclip.main(["bench", "peers", *options, "--sd-embed", checkout, "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    rows = {(row["encoder"], row["column"]): row["value"] for row in written["rows"]}
    assert written["errors"]["sd_embed, pictures"].startswith("AttributeError: 'CLIPTextModel' object has no attr")
    assert rows["sd_embed", "chapter: failed"] == 1
    assert rows["long", "prose, 300 tokens: dropped"] == 0 < rows["truncated", "prose, 300 tokens: dropped"]
    seconds = {way: value for (way, column), value in rows.items() if column == "seconds"}
    assert len(seconds) == 8
    for way in seconds:
        assert rows[way, "time / compel's"] == pytest.approx(seconds[way] / seconds["compel"])
    assert rows["windows_context", "time / unet_step's"] > 0
    assert ("truncated", "seconds") in rows  # 40 words fit 77 tokens
    assert ("sd_embed", "0-77") not in rows
    assert 0 <= rows["sd_embed_repaired", "0-77"] <= 1
    assert (written["num_words"], written["repeats"], written["num_scenes"]) == (40, 2, 2)
    assert "unet/diffusion_pytorch_model.safetensors" in written["sha256"]
    printed = capsys.readouterr().out
    assert "Left out: --lpw was not given." in printed
    assert "| encoder | seconds (n=2) | time / compel's (n=2) |" in printed
    assert re.search(r"^\| compel \| .* \| 1\.000 \[1\.000, 1\.000\] \|", printed, re.MULTILINE)
    assert "sd_embed draws nothing: AttributeError" in printed


def test_bench_peers_times_only_what_reads_the_whole_chapter(tmp_path):
    file = tmp_path / "peers.json"
    options = ["--shape", "tiny", "--num-words", "100", "--repeats", "1", "--num-scenes", "0", "--json", str(file)]
    assert longclip.main(["bench", "peers", *options]) == 0
    timed = [row["encoder"] for row in json.loads(file.read_text())["rows"] if row["column"] == "seconds"]
    assert timed == ["compel", "windows_sentence", "windows_context", "long", "long_context"]


def test_bench_peers_reads_with_sdxls_two_encoders(tmp_path, capsys):
    file = tmp_path / "peers.json"
    options = ["--family", "sdxl", "--shape", "tiny", "--num-words", "40", "--repeats", "1", "--json", str(file)]
    assert longclip.main(["bench", "peers", *options, "--lpw", str(write_lpw(tmp_path / "lpw"))]) == 0
    written = json.loads(file.read_text())
    rows = {(row["encoder"], row["column"]): row["value"] for row in written["rows"]}
    assert rows["lpw", "chapter: rows_apart"] > rows["long", "chapter: rows_apart"] == 0
    assert rows["long", "prose, 300 tokens: dropped"] == 0 < rows["truncated", "prose, 300 tokens: dropped"]
    assert rows["windows_context", "time / compel's"] > 0
    assert ("long", "0-77") not in rows  # no storybook model is an SDXL
    assert (written["family"], written["sha256"], written["num_scenes"]) == ("sdxl", {}, 0)
    assert "No scenes drawn" in capsys.readouterr().out
    assert longclip.main(["bench", "peers", *options, "--full"]) == 1
    assert "--full times a step of SD 1.5's UNet: leave it out with --family sdxl." in capsys.readouterr().err


def test_bench_peers_refuses_a_folder_that_is_no_checkout(tmp_path, capsys):
    assert longclip.main(["bench", "peers", "--lpw", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"longclip: --lpw {tmp_path} holds no lpw_stable_diffusion.py")


@pytest.mark.parametrize("wrong", [("--num-scenes", "1"), ("--num-words", "0"), ("--repeats", "-1")])
def test_bench_peers_refuses_nonsense_before_any_work(wrong, capsys):
    assert longclip.main(["bench", "peers", *wrong]) == 1
    assert "expected 1 word or more" in capsys.readouterr().err
