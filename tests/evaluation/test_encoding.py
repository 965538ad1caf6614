"""`longclip bench encode` counts and compares ways that read the same."""

import json

import pytest

from longclip_diffusers.cli import longclip
from longclip_diffusers.evaluation.encoding import bench_encode

SMALL = ["--model", "tiny", "--pages", "4", "--shortest", "20", "--longest", "500"]  # 1, 1, 2 and 3 windows


def test_bench_encode(tmp_path, capsys):
    file = tmp_path / "new" / "encode.json"
    assert longclip.main(["bench", "encode", *SMALL, "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert (written["pages"], written["model"], written["dtype"]) == (4, "tiny", "float32")
    alone, remembered, batched = written["rows"]
    # Four pages and as many negatives, of which two have empty windows behind their own; two widths, 77 and 248.
    assert (alone["passes"], alone["windows"]) == (4 + 4 + 2, 7 + 4 + 2)
    assert (remembered["passes"], remembered["windows"]) == (4 + 2, 7 + 2)
    assert batched["windows"] == remembered["windows"]
    assert remembered["difference"] == 0
    assert batched["difference"] < 1e-4
    printed = capsys.readouterr().out
    for row in written["rows"]:
        assert f"| {row['passes']} | {row['windows']} | {row['seconds']:.3f} ({row['seconds_ratio']:.2f}x) |" in printed


def test_difference_is_seen(monkeypatch):
    from longclip_diffusers.evaluation import encoding

    batched = encoding._Book.batched
    monkeypatch.setattr(encoding._Book, "batched", lambda book: [2 * each for each in batched(book)])
    rows = bench_encode(model="tiny", pages=2, shortest=5, longest=9)
    assert rows[1].difference == 0
    assert rows[2].difference > 0.1


@pytest.mark.parametrize("wrong", [{"pages": 0}, {"repeats": 0}, {"shortest": 9, "longest": 8}])
def test_nonsense_is_refused(capsys, wrong):
    arguments = [part for name, value in wrong.items() for part in (f"--{name}", str(value))]
    assert longclip.main(["bench", "encode", *arguments]) == 1
    assert "expected 1 or more of each" in capsys.readouterr().err
