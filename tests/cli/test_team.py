"""`longgen --batch` in two processes of torchrun: killed in the middle, started again, and the same as in one.

And of accelerate, started by one launcher, or by two as on two machines that share a folder.
"""

import json
import os
import re
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from folders import miniature
from PIL import Image

from longclip_diffusers.cli import longgen, team
from longclip_diffusers.errors import LongClipError

NUM_GOOD, KILLED_AT = 6, 2

# What a process does when it saves a picture: dies while it writes, or waits until the other has one to save too, so
# that both draw however fast each started; not for ever, or a fault would leave processes behind.
KILLED = f"""
def save(picture, path, metadata):
    if len(list(path.parent.glob("*.png"))) >= {KILLED_AT}:
        path.with_name("." + path.name + ".part").write_bytes(b"half a picture")
        os.kill(os.getpid(), signal.SIGKILL)
    pictures_save(picture, path, metadata)
"""
WAITING = """
def save(picture, path, metadata):
    pathlib.Path("saves-" + os.environ["RANK"]).touch()
    end = time.monotonic() + 60
    while len(list(pathlib.Path().glob("saves-*"))) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    pictures_save(picture, path, metadata)
"""
PROGRAM = """
import os, pathlib, signal, sys, time
from longclip_diffusers import pictures
from longclip_diffusers.cli.longgen import main
pictures_save = pictures.save_picture
{save}
pictures.save_picture = save
sys.exit(main())
"""


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]


def accelerate(num_machines):
    """A launcher for each machine, all of which are this one; two processes in all. Without a GPU they use none."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = ["--main_process_ip=127.0.0.1", f"--main_process_port={free.getsockname()[1]}"]
    shared = ["--multi_gpu", "--num_processes=2", f"--num_machines={num_machines}", *place, "--no_python"]
    return [["accelerate.commands.launch", f"--machine_rank={rank}", *shared] for rank in range(num_machines)]


def launch(launchers, folder, save, *arguments):
    """Each launcher's exit code, and what they printed on stdout and on stderr."""
    program = [sys.executable, "-c", PROGRAM.format(save=save), *map(str, arguments)]
    # Where accelerate looks for a configuration of the user's, there is none.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    settings = {"cwd": folder, "env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [subprocess.Popen([sys.executable, "-m", *launcher, *program], **settings) for launcher in launchers]
    try:
        outputs, errors = zip(*[each.communicate(timeout=240) for each in started], strict=True)
    finally:
        for each in started:
            each.terminate()  # the others, where one hangs
    return SimpleNamespace(
        returncodes=[each.returncode for each in started], stdout="".join(outputs), stderr="".join(errors)
    )


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def assert_same_pictures(folder, other):
    names = {path.name for path in other.glob("*.png")}
    assert {path.name for path in folder.glob("*.png")} == names
    for name in names:
        assert np.array_equal(pixels(folder / name), pixels(other / name)), name


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A batch with two lines that fail, one at the start: killed, gone on with, and drawn by one process."""
    folder = tmp_path_factory.mktemp("team")
    lines = ['{"prompt": ', json.dumps("a (red cat")]  # no JSON; no such syntax, which is seen when it is drawn
    lines += [json.dumps({"prompt": "a red roof. " * (1 + 30 * (seed % 2)), "seed": seed}) for seed in range(NUM_GOOD)]
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options = ["--batch", folder / "prompts.jsonl", "--model", miniature(folder / "model"), "--syntax", "a1111"]
    options += ["--device", "cpu"]
    killed = launch([TORCHRUN], folder, KILLED, *options, "--out", "out")
    kept = {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.png")}
    unfinished = list((folder / "out").glob(".*.part"))
    resumed = launch([TORCHRUN], folder, WAITING, *options, "--out", "out")
    alone = longgen.main([*map(str, options), "--out", str(folder / "alone")])
    return SimpleNamespace(**locals())


def test_kill_leaves_whole_pictures_only(runs):
    assert runs.killed.returncodes != [0]
    assert KILLED_AT <= len(runs.kept) < NUM_GOOD
    assert runs.unfinished


def test_second_start_draws_what_is_missing_once_and_leaves_the_rest(runs):
    drawn = re.findall(r"out/(\S+)\n", runs.resumed.stdout)
    assert sorted([*drawn, *runs.kept]) == sorted(f"{number}.png" for number in range(3, 3 + NUM_GOOD))
    assert {name: (runs.folder / "out" / name).stat().st_mtime_ns for name in runs.kept} == runs.kept
    assert not list((runs.folder / "out").glob(".*"))


def test_both_processes_draw(runs):
    assert {path.name for path in runs.folder.glob("saves-*")} == {"saves-0", "saves-1"}


def test_pictures_are_those_of_one_process(runs):
    assert_same_pictures(runs.folder / "out", runs.folder / "alone")


@pytest.mark.parametrize("num_machines", [1, 2])
def test_processes_of_accelerate_share_the_lines_on_one_machine_and_on_two(runs, tmp_path, num_machines):
    drawn = launch(accelerate(num_machines), tmp_path, WAITING, *runs.options, "--out", "out")
    assert drawn.returncodes == [1] * num_machines  # of the lines that fail
    assert {path.name for path in tmp_path.glob("saves-*")} == {"saves-0", "saves-1"}
    assert sorted(re.findall(r"out/(\S+)\n", drawn.stdout)) == sorted(f"{3 + seed}.png" for seed in range(NUM_GOOD))
    assert drawn.stderr.count(f"pictures drawn: {NUM_GOOD}; lines that could not be drawn: 2; processes: 2.") == 1
    assert_same_pictures(tmp_path / "out", runs.folder / "alone")


def test_failed_lines_are_the_exit_code_and_the_summary_of_the_first_process(runs):
    assert (runs.resumed.returncodes, runs.alone) == ([1], 1)
    told = [line for line in runs.resumed.stderr.splitlines() if line.startswith("longgen: ")]
    num_drawn = NUM_GOOD - len(runs.kept)
    summary = f"longgen: pictures drawn: {num_drawn}; lines that could not be drawn: 2; processes: 2."
    for line in (summary, f"longgen: {len(runs.kept)} of {NUM_GOOD + 1} prompts are drawn already, in out."):
        assert told.count(line) == 1
    assert sum("line 1: not JSON" in line for line in told) == 1
    assert sum("prompts.jsonl, 2:" in line for line in told) == 1


def test_one_prompt_for_several_processes_is_wrong_usage(monkeypatch, capsys):
    monkeypatch.setattr(longgen, "join_team", lambda: team.Team(rank=0, size=2))
    assert longgen.main(["a red roof"]) == 2
    assert "2 processes were launched: they share the lines of a --batch" in capsys.readouterr().err


def test_others_that_are_gone_are_one_error():
    def gone(*_):
        raise torch.distributed.DistNetworkError("connection reset\nsomewhere in C++")

    lost = team.Team(0, 2, SimpleNamespace(add=gone, set=gone))
    for work in (lambda: next(lost.share(3)), lambda: lost.summed([1])):
        with pytest.raises(LongClipError, match=r"cannot be reached \(connection reset\). What is done is kept"):
            work()


def test_each_process_has_its_gpu_and_shares_it_where_there_are_too_few(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert team.Team(3, 4).device("auto") == team.Team(3, 4).device("cuda") == "cuda:1"
    assert chosen == [1, 1]
    assert team.Team(3, 4).device("cpu") == "cpu"
    assert team.Team().device("auto") == "auto"
