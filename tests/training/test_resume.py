"""A run that is killed and started again is the run that nobody killed, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import bases
from safetensors.torch import load_file

# Saves after every step, and shows each one to the test before the next begins.
CHILD = """
import sys, json, time
from longclip_diffusers.training.checkpointing import Checkpoints
from longclip_diffusers.training.finetune import fine_tune
from longclip_diffusers.training.recipe import Recipe
Checkpoints.due = lambda self: True
for event in fine_tune(Recipe(**json.loads(sys.argv[1]))):
    print(event.step, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def recipe(base, output):
    return {
        "base": str(base),
        "output": str(output),
        "objective": "both",
        "steps": 6,
        "batch_size": 8,
        "anchor_batch": 4,
        "anchor_share": 0.5,
        "lr": 1e-3,
        "components": 4,
        "captions": "debias",
        "evaluate_every": 2,
        "num_validation": 6,
    }


def start(values, *, pause=0.0):
    command = [sys.executable, "-c", CHILD, json.dumps(values), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(process):
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return [int(line) for line in printed.split()]


def losses(folder):
    lines = [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]
    timing = ("samples_per_second", "data_seconds")
    return [{name: value for name, value in line.items() if name not in timing} for line in lines]


def test_killed_at_any_moment_and_started_again(tmp_path):
    base = bases.clip(tmp_path / "base")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    uninterrupted = start(recipe(base, whole))
    victim = start(recipe(base, killed), pause=0.2)
    for line in victim.stdout:
        if line.strip() == "4":  # step 4, its evaluation still to come: not saved yet
            time.sleep(0.05)
            os.kill(victim.pid, signal.SIGKILL)
            break
    victim.wait()
    victim.stdout.close()
    resumed = finish(start(recipe(base, killed)))
    assert resumed[0] in (4, 5)  # the kill may have come after the save
    assert finish(uninterrupted) == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert losses(killed) == losses(whole)
    for export in ("best", "last"):
        one, other = (load_file(folder / export / "model.safetensors") for folder in (whole, killed))
        assert one.keys() == other.keys()
        assert all((one[name] == other[name]).all() for name in one)
