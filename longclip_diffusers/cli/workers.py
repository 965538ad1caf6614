"""Long work in processes side by side; none of them outlives the command that started it."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

__all__ = ["start_workers"]


def start_workers(jobs: int) -> ProcessPoolExecutor:
    """A pool of fresh processes: torch's thread pool does not survive a fork."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    # A killed command cannot stop its workers: they would train on, and write into what the next command resumes from.
    Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    if parent := parent_process():
        parent.join()
    os._exit(1)
