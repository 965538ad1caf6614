"""`longclip evaluate detail`, the contest included: what it prints, what it leaves, and that it goes on."""

import json

import pytest
from miniatures import save_miniature

from longclip_diffusers.checkpoints.files import sha256_of
from longclip_diffusers.cli.longclip import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_miniature(tmp_path_factory.mktemp("model"))


def test_a_contest_in_processes_side_by_side_goes_on_where_it_stopped(model, tmp_path, capsys):
    out, work = tmp_path / "out" / "contest.json", tmp_path / "work"
    told = ["evaluate", "detail", "--contest", "--model", str(model), "--num-scenes", "2", "--work", str(work)]
    arguments = [*told, "--encoders", "truncated", "kps", "--json", str(out), "--kinds"]
    assert main([*arguments, "short"]) == 0
    kept = {path: path.stat().st_mtime_ns for path in work.rglob("*.json")}
    assert {path.name for path in kept} == {"truncated-short.json", "kps-short.json"}
    assert main([*arguments, "short", "long"]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    content = json.loads(out.read_text())
    unet = sha256_of(model / "unet" / "diffusion_pytorch_model.safetensors")
    assert content["sha256"]["unet/diffusion_pytorch_model.safetensors"] == unet
    assert {row["encoder"] for row in content["rows"]} == {"truncated", "kps", "chance"}
    assert (content["num_scenes"], content["seed"], content["seeds"], content["by_seed"]) == (2, 0, 3, [])
    shown = capsys.readouterr().out
    assert f"UNet sha256 {unet}, the same for all encoders." in shown
    assert out.with_suffix(".md").read_text() in shown
    assert out.with_suffix(".png").is_file()
    assert (out.parent / "contest-examples.png").is_file()


def test_the_plain_measure_takes_kinds_and_the_untrained_encoders(model, tmp_path, capsys):
    out = tmp_path / "detail.json"
    examples = tmp_path / "looked_at.png"
    told = ["evaluate", "detail", "--model", str(model), "--num-scenes", "2", "--json", str(out)]
    told += ["--examples", str(examples)]
    assert main([*told, "--encoders", "truncated", "windows_context", "long", "--kinds", "long"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert list(dict.fromkeys(row["encoder"] for row in rows)) == ["truncated", "windows_context", "long", "chance"]
    assert {"0-77", "77-150", "150-248"} <= {row["column"] for row in rows}
    assert not {row["column"] for row in rows if row["column"].startswith(("chapter", "short"))}
    assert examples.is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--reader"], 2, "--reader goes with --contest."),
        (["--contest", "--seeds", "0"], 2, "--seeds 0 --jobs 2: expected 1 or more."),
        (["--kinds", "poem"], 1, "no kind of text 'poem'"),
        (["--encoders", "ours"], 1, "fine-tuned first: measure it with --contest."),
        (["--contest", "--encoders", "long"], 1, "no encoder 'long' in the contest"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments, code, message, model, capsys):
    assert main(["evaluate", "detail", "--model", str(model), *arguments]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0], lines
