"""Two processes of torchrun train as one does; what splits a model is refused."""

import json
import subprocess
import sys
from pathlib import Path

import bases
import pytest
import torch

from longclip_diffusers import LongClipError
from longclip_diffusers.training import processes

SCRIPT = Path(__file__).with_name("train_in_processes.py")


def train(base, output, num_processes):
    recipe = {
        "base": str(base),
        "output": str(output),
        "objective": "both",
        "anchor_share": 0.34,  # one step of the anchor alone, two of everything
        "anchor_batch": 8,
        "steps": 3,
        "batch_size": 32,
        "components": 8,
        "lr": 1e-3,
        "evaluate_every": 0,
        "num_validation": 4,
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    command = [sys.executable, *(launcher if num_processes > 1 else []), SCRIPT, json.dumps(recipe)]
    output.mkdir()
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return {
        dtype: [torch.load(output / f"torch.{dtype}-{rank}.pt") for rank in range(num_processes)]
        for dtype in ("float32", "float64")
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    base = bases.clip(folder / "base")
    return train(base, folder / "one", 1), train(base, folder / "two", 2)


def flat(update):
    return torch.cat([part.flatten() for part in update.values()])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.01), ("float64", 1e-9)])
def test_the_same_losses_and_the_same_update_after_three_steps(results, dtype, tolerance):
    (one,), two = (result[dtype] for result in results)
    assert one["told"][-1]["kept_variance"] < 0.99  # or PCM would be an identity
    for process in two:
        for mine, theirs in zip(one["told"], process["told"], strict=True):
            for name in ("loss", "loss_long", "loss_short", "loss_anchor"):
                assert theirs[name] == (None if mine[name] is None else pytest.approx(mine[name], rel=1e-6))
        expected = flat(one["update"])
        assert ((flat(process["update"]) - expected).norm() / expected.norm()).item() < tolerance


def test_what_splits_a_model_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(LongClipError, match="FSDP splits a model over processes, which this trainer does not do"):
        processes.join_processes("cpu")


def test_devices(monkeypatch):
    assert processes.join_processes("cpu") == processes.Process("cpu", True)
    with pytest.raises(LongClipError, match="--device is 'tpu'; choose auto, cpu or cuda"):
        processes.join_processes("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert processes.join_processes("auto").device == "cuda"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # accelerate launch --cpu
    assert processes.join_processes("auto").device == "cpu"
    assert processes.join_processes("cuda").device == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processes.join_processes("auto").device == "cpu"
    with pytest.raises(LongClipError, match="There is no CUDA device here"):
        processes.join_processes("cuda")
