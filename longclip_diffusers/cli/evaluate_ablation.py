"""`longclip evaluate ablation`: what each part of the training is worth."""

from concurrent.futures import as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from .exits import quiet_libraries
from .workers import start_workers

if TYPE_CHECKING:
    from ..training.ablation import Task

__all__ = ["ablation"]


def ablation(
    *,
    work: Path = Path("runs/ablation"),
    json: Path = Path("outputs/ablation.json"),
    plot: Path = Path("outputs/ablation.png"),
    steps: int = 120,
    num_scenes: int = 60,
    seeds: tuple[int, ...] = (0, 1, 2),
    jobs: int = 2,
) -> None:
    """Train the storybook's CLIP with and without each part, from three seeds, and measure every run.

    Finished runs are kept in --work, so an interrupted ablation goes on where it stopped.

    Args:
        work: folder of the runs, one each for arm and seed.
        json: where the rows and the sha256 of the model's files go; the same as a Markdown table beside it.
        plot: where the plot goes.
        steps: optimiser steps of a run.
        num_scenes: scenes drawn by each run's pipeline for detail recall.
        seeds: of the runs; 2 to 5, for intervals.
        jobs: runs side by side, one thread each.
    """
    quiet_libraries()
    from ..evaluation.report import hash_model, table, write_json
    from ..models import bundled
    from ..training.ablation import ablation_rows, plot_ablation, tasks

    todo = tasks(work, steps=steps, num_scenes=num_scenes, seeds=seeds)
    with start_workers(jobs) as pool, tqdm(total=len(todo), desc="ablation", unit="run") as bar:
        running = {pool.submit(_run, task): task for task in todo}
        for done in as_completed(running):
            done.result()
            bar.set_postfix_str(running[done].arm.name, refresh=False)
            bar.update()
    rows = ablation_rows([(task, future.result()) for future, task in running.items()])
    write_json(json, rows, hash_model(bundled()), steps=steps, num_scenes=num_scenes, seeds=list(seeds))
    json.with_suffix(".md").write_text(table(rows) + "\n")
    plot_ablation(plot, rows)
    print(table(rows))
    print(f"Rows in {json}, table in {json.with_suffix('.md')}, plot in {plot}.")


def _run(task: "Task") -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    from ..training.ablation import run_task

    return run_task(task)
