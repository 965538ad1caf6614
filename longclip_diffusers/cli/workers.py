"""Long work in processes side by side; none of them outlives the command that started it."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread

from .exits import quiet_libraries

__all__ = ["start_workers"]

# glibc gives freed blocks of megabytes back to the system, and the next step of a training faults them in anew, a tenth
# of its time. It reads this when a process starts; other C libraries do not.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


@contextmanager
def start_workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh, quiet processes: torch's thread pool does not survive a fork. They keep the memory they free.

    An error, or Ctrl-C, ends them at once, whatever they are at: what they do can be taken up again.
    """
    for name, value in MEMORY.items():
        os.environ.setdefault(name, value)
    others = active_children()
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_prepare)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in active_children():
            if worker not in others:
                worker.terminate()
        raise
    pool.shutdown()


def _prepare() -> None:
    quiet_libraries()  # here, since the first task's arguments import them before the task begins
    # A killed command cannot stop its workers: they would train on, and write into what the next command resumes from.
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
    os._exit(1)
