"""Workers of a command that is killed do not go on without it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longclip_diffusers.cli.workers import start_workers

PARENT = """
import os, time
from longclip_diffusers.cli.workers import start_workers
if __name__ == "__main__":
    with start_workers(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


def test_they_end_with_it(tmp_path):
    script = tmp_path / "parent.py"  # a worker imports it anew
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    worker = int(parent.stdout.readline())
    assert is_running(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while is_running(worker):
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.05)


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")  # a child of a killed parent may stay as a zombie until it is reaped
    return not state.exists() or state.read_text().split()[2] != "Z"


def test_they_keep_the_memory_they_free_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "4096")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    with start_workers(1) as pool:
        told = [pool.submit(os.getenv, name).result() for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")]
    assert told == ["4096", str(32 * 2**20)]


def test_an_error_does_not_wait_for_what_is_queued():
    began = time.monotonic()
    workers = []
    with pytest.raises(KeyboardInterrupt), start_workers(1) as pool:
        workers.append(pool.submit(os.getpid).result())
        for _ in range(5):
            pool.submit(time.sleep, 60)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 50
    deadline = time.monotonic() + 20
    while is_running(workers[0]):
        assert time.monotonic() < deadline, "the worker goes on"
        time.sleep(0.05)
