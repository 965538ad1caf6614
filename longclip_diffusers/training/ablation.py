"""What each part of the training is worth, on the storybook: the same few steps with and without it, three seeds each.

Every run starts from one base and ends in front of one UNet, which no run trains. A finished run is kept in its folder
and not done again.
"""

import json
import random
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from ..checkpoints import load_text_encoder
from ..checkpoints.processor import load_image_processor
from ..errors import LongClipError
from ..evaluation.detail import describe_scenes, recall_rows, score
from ..evaluation.encoders import draw_pictures, load_encoder
from ..evaluation.features import Encoder, open_encoder
from ..evaluation.report import Row
from ..evaluation.retrieval import retrieval_scores
from ..evaluation.slots import storybook_zeroshot
from ..models import bundled
from ..pipelines import StableDiffusionLongPipeline
from ..positions import CLIP_LENGTH
from ..sidecar import read_generation
from ..storybook.captions import short_caption
from ..storybook.checker import read_picture
from ..storybook.scene import draw_scene
from ..tokenizer import load_tokenizer
from .data.storybook import StorybookData
from .finetune import fine_tune
from .recipe import Recipe
from .subject import export_subject, open_subject

__all__ = ["ARMS", "BASELINES", "Arm", "Task", "ablation_rows", "plot_ablation", "run_task", "tasks"]

# Contrastive losses alone at the anchor's rate undo in ten steps what the base has learned.
RATES = {"contrastive": 2e-4, "both": 1e-3}
# Student's t of a 95 % interval, by the number of seeds.
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}


@dataclass(frozen=True)
class Arm:
    """One way to train: its name in the table and the recipe's fields that make it; none are trained in `BASELINES`."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)


BASE = "base, 77 tokens"
BASELINES = (Arm(BASE), Arm("linear, untrained", {"stretch": "linear"}), Arm("KPS, untrained"))
ARMS = (
    Arm("linear", {"stretch": "linear", "components": 0}),
    Arm("linear + PCM", {"stretch": "linear"}),
    Arm("KPS", {"components": 0}),
    Arm("KPS + PCM (the paper)"),
    Arm("KPS + PCM + debias", {"captions": "debias"}),
    Arm("KPS + PCM + sub-captions", {"captions": "sub"}),
    Arm("KPS + PCM + margin", {"margin": 0.5}),
    Arm("KPS + PCM, vision frozen", {"freeze_vision": True}),
    Arm("anchor alone", {"objective": "both", "anchor_share": 1.0}),
    Arm("anchor, then with KPS + PCM", {"objective": "both"}),
    Arm("anchor and KPS + PCM throughout", {"objective": "both", "anchor_share": 0.0}),
    Arm("anchor, then with KPS + PCM + debias", {"objective": "both", "captions": "debias"}),
)


@dataclass(frozen=True)
class Task:
    """One run of one arm: where it is kept, and how much is trained and measured."""

    arm: Arm
    seed: int
    folder: Path
    steps: int
    num_scenes: int  # drawn for detail recall
    num_pairs: int = 200  # pictures told apart, and scenes classified

    @property
    def recipe(self) -> Recipe:
        """The run's recipe: the storybook preset's, with fewer components since the batch is small."""
        told: dict[str, Any] = {
            "output": str(self.folder),
            "steps": self.steps,
            "batch_size": 32,
            "lr": RATES[self.arm.changes.get("objective", "contrastive")],
            "warmup": 10,
            "weight_decay": 0.0,
            "components": 8,
            "seed": self.seed,
            "evaluate_every": 0,
            "num_validation": 20,
        }
        return Recipe(**{**told, **self.arm.changes})

    @property
    def result_file(self) -> Path:
        """Its measurements, once it is finished."""
        return self.folder / "result.json"


def tasks(folder: Path, *, steps: int, num_scenes: int, seeds: Sequence[int]) -> list[Task]:
    """All runs, seed by seed, so that an interrupted ablation has whole columns.

    Raises:
        LongClipError: fewer than two seeds, of which no interval can be made, or more than five.
    """
    if len(seeds) not in T_95:
        raise LongClipError(f"{len(seeds)} seeds: give 2 to 5, for an interval over them.")
    return [
        Task(arm, seed, folder / f"{_slug(arm.name)}-{seed}", steps, num_scenes)
        for seed in seeds
        for arm in (*BASELINES, *ARMS)
    ]


def run_task(task: Task) -> dict[str, float]:
    """Train and measure one run; a finished one of the same recipe is read from its folder.

    Returns the measurements by column: retrieval R@1, HiMo@3, zero-shot accuracy, detail recall by token position,
    drift of short prompts' token states from the base, and the CPU minutes of training.
    """
    settings = {**asdict(task.recipe), "output": None, "num_scenes": task.num_scenes, "num_pairs": task.num_pairs}
    if task.result_file.is_file():
        found = json.loads(task.result_file.read_text())
        if found["settings"] == settings:
            return found["values"]
    shutil.rmtree(task.folder, ignore_errors=True)  # a run that was stopped would not tell its whole time
    began = time.process_time()
    if task.arm in BASELINES:
        _export_untrained(task)
    else:
        for _ in fine_tune(task.recipe):
            pass
    minutes = (time.process_time() - began) / 60
    values = {**measure(task), "CPU minutes": minutes}
    for name in ("best", "checkpoints", "tensorboard"):  # `last` is what was measured
        shutil.rmtree(task.folder / name, ignore_errors=True)
    task.result_file.write_text(json.dumps({"settings": settings, "values": values}, indent=2) + "\n")
    return values


def measure(task: Task) -> dict[str, float]:
    """What a run's encoder is good for, on samples that no training saw; they depend on the seed alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the baselines are untrained, which is what they are for
        source = bundled() / "clip" if task.arm.name == BASE else task.folder / "last"
        encoder = open_encoder(source)
        values = _retrieval(encoder, task)
        zeroshot = storybook_zeroshot(encoder.clip, encoder.tokenizer, encoder.processor, task.num_pairs, task.seed)
        values["zero-shot slots"] = zeroshot[0].value
        return values | _details(_pipeline(task), task) | {"drift": _drift(source, task)}


def ablation_rows(results: Sequence[tuple[Task, Mapping[str, float]]]) -> list[Row]:
    """A row for every arm and column: the mean over its seeds with a 95 % interval (Student's t)."""
    rows = []
    for arm in (*BASELINES, *ARMS):
        runs = [values for task, values in results if task.arm == arm]
        for column in runs[0] if runs else ():
            told = np.array([values[column] for values in runs])
            reach = T_95[len(told)] * told.std(ddof=1) / len(told) ** 0.5 if len(told) > 1 else float("nan")
            rows.append(Row(arm.name, column, float(told.mean()), told.mean() - reach, told.mean() + reach, len(told)))
    return rows


def plot_ablation(path: Path, rows: Sequence[Row]) -> None:
    """A panel for every column, an arm a line with its interval, as a PNG; CPU minutes are left out."""
    from matplotlib.figure import Figure

    columns = [column for column in dict.fromkeys(row.column for row in rows) if column != "CPU minutes"]
    arms = list(dict.fromkeys(row.encoder for row in rows))
    figure = Figure(figsize=(15, 9), layout="constrained")
    panels = figure.subplots(2, -(-len(columns) // 2), sharey=True)
    for panel in panels.flat[len(columns) :]:
        panel.set_visible(False)
    for panel, column in zip(panels.flat, columns, strict=False):
        told = {row.encoder: row for row in rows if row.column == column}
        for place, arm in enumerate(arms):
            row = told[arm]
            colour = "tab:grey" if place < len(BASELINES) else "tab:orange" if "anchor" in arm else "tab:blue"
            panel.plot([row.low, row.high], [place, place], color=colour, alpha=0.5)
            panel.plot(row.value, place, "o", color=colour)
        panel.set(title=column, yticks=range(len(arms)), yticklabels=arms)
        panel.grid(axis="x", alpha=0.3)
        panel.set_xlim(*((0, 1.03) if column != "drift" else (0, None)))
    panels.flat[0].invert_yaxis()  # shared: the first arm on top everywhere
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _slug(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def _export_untrained(task: Task) -> None:
    subject = open_subject(task.recipe)
    task.folder.mkdir(parents=True, exist_ok=True)
    export_subject(subject, task.folder / "last", [load_image_processor(task.recipe.source, subject.clip)])


def _retrieval(encoder: Encoder, task: Task) -> dict[str, float]:
    data = StorybookData(task.seed, part="ablation", num_scenes=task.num_pairs)
    samples = [data[index] for index in range(len(data))]
    scores = retrieval_scores(encoder.clip, encoder.tokenizer, encoder.processor, samples, ks=(1,))
    return {name.replace("_", " ", 1): value for name, value in scores.items()}


def _pipeline(task: Task) -> DiffusionPipeline:
    if task.arm.name == BASE:
        return load_encoder(bundled(), "truncated")
    pipe = StableDiffusionLongPipeline.from_pretrained(bundled(), longclip=task.folder / "last")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _details(pipe: DiffusionPipeline, task: Task) -> dict[str, float]:
    pairs = describe_scenes(task.num_scenes, seed=1000 + task.seed)
    texts = [str(caption) for _, caption in pairs]
    pictures = dict(draw_pictures(pipe, texts, read_generation(bundled()), seed=task.seed))
    found = [read_picture(pictures[number]) for number in range(len(texts))]
    return {f"detail {row.column}": row.value for row in recall_rows("", score(pairs, found))}


@torch.no_grad()
def _drift(source: Path, task: Task) -> float:
    """Relative squared error of what the UNet reads of short prompts, all 77 rows, against the base encoder's."""
    tokenizer, rng = load_tokenizer(max_length=CLIP_LENGTH), random.Random(f"{task.seed}/drift")
    prompts = [str(short_caption(draw_scene(rng), rng)) for _ in range(64)]
    ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    encoders = (load_text_encoder(each, dtype=torch.float32) for each in (bundled() / "clip", source))
    base, states = (encoder(ids).last_hidden_state for encoder in encoders)
    return ((states - base).square().sum(-1) / base.square().sum(-1)).mean().item()
