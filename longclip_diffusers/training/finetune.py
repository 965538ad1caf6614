"""One fine-tuning run: the loop that `longclip train` steps through, from a recipe to `best` and `last`."""

import json
import math
import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.processor import load_image_processor
from ..errors import LongClipError
from .anchor import Anchor
from .checkpointing import Checkpoints
from .contrastive import ContrastiveBatch, autocast, contrastive_backward
from .data import BadSample, Batch, BatchOrder, Sample, TextImageData, batches, open_data, split, without_images
from .distributed import any_process, average, average_gradients, num_processes, rank
from .frozen import FrozenFeatures
from .loop import Schedule, Step, optimise_state, prepare_state
from .memory import auto_micro_batch
from .recipe import Recipe, RecipeError, differences
from .runlog import RunLog
from .subject import MAX_LOGIT_SCALE, Subject, export_subject, open_subject
from .texts import caption_ids, fitting_text, short_text
from .validation import Validation

__all__ = ["Evaluation", "Run", "fine_tune"]

RECIPE = "recipe.json"
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw"},
    "muon": {"optimizer": "muon"},
    "released": {"optimizer": "adamw", "betas": (0.9, 0.999), "clip": math.inf},
}
BAD_TOLD = 3
WARMUP_SHARE = 10  # a warm-up longer than a tenth of the run would be most of a short one


@dataclass(frozen=True)
class Evaluation:
    """What the held-out samples say after a step, by name; `best`: no earlier evaluation had a higher `score`."""

    step: int
    values: Mapping[str, float]
    best: bool


def fine_tune(recipe: Recipe, *, device: str = "cpu") -> Iterator[Step | Evaluation]:
    """Run the recipe, yielding every step and evaluation; goes on where its folder holds a run of the same recipe.

    `output` receives recipe.json, log.jsonl, checkpoints/, and the exports `best/` and `last/`, which
    `StableDiffusionLongPipeline.from_pretrained(longclip=...)` opens. Every process of a distributed run calls this;
    the first one writes.

    Args:
        device: torch device of this process.

    Raises:
        RecipeError: the folder holds a run of another recipe, or the recipe does not fit the data or the processes.
        LongClipError: the base or the data cannot be used, the loss is no number, or the disk is full.
    """
    _refuse_another_run(Path(recipe.output).expanduser(), recipe)
    run = Run.open(recipe, torch.device(device))
    claim_folder(run.folder, recipe)
    any_process(False)  # the others go on when the folder is the first one's
    if recipe.freeze_vision and recipe.first_contrastive_step <= recipe.steps:
        run.keep_features()
    yield from run.steps()


class _Pixels:
    """Makes a sample's picture the pixels that the tower reads, where it is loaded."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, sample: Sample) -> Sample:
        # As numpy's: of a worker's tensors each would hold a file open until its batch is used.
        pixels = self.processor(images=sample.image, return_tensors="np").pixel_values[0]
        return replace(sample, image=pixels)


@dataclass
class Run:
    """One process of a run: what it trains, on what, and how much at once."""

    recipe: Recipe
    subject: Subject
    data: TextImageData
    captions: TextImageData
    order: BatchOrder
    validation: Validation
    processor: Any
    micro_batch: int
    device: torch.device
    features: FrozenFeatures | None = None
    num_told: int = 0  # bad samples that were warned of

    @classmethod
    def open(cls, recipe: Recipe, device: torch.device) -> "Run":
        """Base and data of a recipe, opened; nothing is written."""
        data, held_out = split(open_data(recipe.data, seed=recipe.seed), recipe.num_validation)
        if recipe.uses_images and not data.has_images:
            raise RecipeError(f"{data.name} has no pictures, which objective {recipe.objective!r} needs: try anchor.")
        if not recipe.uses_images:
            data, held_out = without_images(data), without_images(held_out)
        subject = open_subject(recipe).to(device)
        processor = load_image_processor(recipe.source, subject.clip) if recipe.uses_images else None
        order = BatchOrder(len(data), recipe.batch_size, recipe.seed, rank(), num_processes(), data.group_size)
        if recipe.anchor_samples % order.num_processes:
            raise RecipeError(
                f"{recipe.anchor_samples} anchored samples cannot be shared by {num_processes()} processes."
            )
        validation = Validation(subject, held_out, processor)
        micro_batch = auto_micro_batch(subject.module, recipe, order.local_batch_size)
        captions = without_images(data)
        return cls(recipe, subject, data, captions, order, validation, processor, micro_batch, device)

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.recipe.output).expanduser()

    @property
    def text_order(self) -> BatchOrder:
        """The order of the steps that train the anchor alone: no more samples than it reads."""
        return replace(self.order, batch_size=self.recipe.anchor_samples, group_size=1)

    def keep_features(self) -> None:
        """Compute the frozen vision tower's features of all pictures to come, and open no picture from here on."""
        steps = range(self.recipe.first_contrastive_step, self.recipe.steps + 1)
        self.features = FrozenFeatures.compute(
            self.subject.clip, self.processor, self.data, self.order, steps, self.folder
        )
        self.data = self.features.view(self.data)

    def steps(self) -> Iterator[Step | Evaluation]:
        """Every step that is left, and the evaluations."""
        recipe, subject = self.recipe, self.subject
        if recipe.compile:
            for tower in _towers(subject):
                tower.compile()
        schedule = _schedule(recipe)
        groups = subject.parameter_groups(recipe)
        state = prepare_state(subject.module, schedule, groups=groups, fused=self.device.type == "cuda")
        checkpoints = Checkpoints(self.folder / "checkpoints")
        checkpoints.restore(state)
        if any_process(average([state.step])[0] != state.step):
            raise RecipeError(
                f"{self.folder} holds other checkpoints on other machines. Give an --output that all of them see."
            )
        log = RunLog(self.folder, after_step=state.step) if rank() == 0 else None
        stream = self.batches(state.step + 1)
        for step in optimise_state(
            state,
            lambda _: self._backward(stream),
            schedule,
            checkpoints,
            constrain=self._constrain,
            writes=rank() == 0,
        ):
            if log:
                log.write({"step": step.step, "lr": step.learning_rate, **step.measured})
            yield step
            if self._evaluates_after(step.step):
                found = self._evaluate(step.step, state.notes)
                if log:
                    log.write({"event": "evaluation", "step": step.step, "best": found.best, **found.values})
                yield found

    def batches(self, first_step: int) -> Iterator[Batch]:
        """This process's share of each step's batch, from `first_step` on; no pictures where no loss needs them."""
        options: dict[str, Any] = {"captions": self.recipe.captions, "seed": self.recipe.seed}
        num_texts = self.recipe.first_contrastive_step - first_step
        if num_texts > 0:
            yield from islice(batches(self.captions, self.text_order, first_step, **options), num_texts)
            first_step = self.recipe.first_contrastive_step
        pixels = _Pixels(self.processor) if self.processor and not self.features else None
        yield from batches(self.data, self.order, first_step, prepare=pixels, **options)

    def _backward(self, stream: Iterator[Batch]) -> dict[str, Any]:
        """The gradient of the next batch, averaged over the processes, and what was measured on the way."""
        began = time.perf_counter()
        batch = next(stream)
        loaded = time.perf_counter()
        self._tell(batch.bad)
        torch.manual_seed(random.Random(f"{self.recipe.seed} {batch.step} {rank()}").getrandbits(63))
        contrastive = batch.step >= self.recipe.first_contrastive_step
        measured: dict[str, Any] = {"loss_long": None, "loss_short": None, "loss_anchor": None}
        loss = 0.0
        if self.recipe.uses_anchor:
            measured["loss_anchor"] = self.anchor_step(batch)
            loss += measured["loss_anchor"]
        if contrastive:
            weight = self.recipe.contrastive_weight if self.recipe.uses_anchor else 1.0
            told = self.contrastive_step(batch, weight)
            measured |= told
            loss += weight * (told["loss_long"] + self.recipe.short_weight * told["loss_short"])
        average_gradients(self.subject.module.parameters())
        self.subject.drop_kept_gradients()
        seconds = time.perf_counter() - began
        num_samples = len(batch.samples) * self.order.num_processes
        speed = {"samples_per_second": num_samples / seconds, "data_seconds": loaded - began}
        return {"loss": loss, **measured, "num_bad": batch.num_bad, **speed}

    def _tell(self, bad: Sequence[str]) -> None:
        """Warn of the first bad samples of the run; the log counts all of them."""
        for reason in bad[: BAD_TOLD - self.num_told]:
            warnings.warn(f"{reason} Another sample stands in for it.", UserWarning, stacklevel=1)
            self.num_told += 1

    def anchor_step(self, batch: Batch) -> float:
        """Add the anchor's gradient; return its loss, the mean over all processes.

        It reads every n-th sample of the global batch, the same ones however many processes share it.
        """
        samples = batch.samples[:: len(batch.samples) // self.text_order.local_batch_size]
        total = 0.0
        for anchor in self.subject.anchors:
            texts = [self._texts(batch.step, slot, sample, anchor) for slot, sample in enumerate(samples)]
            longs, shorts = zip(*texts, strict=True)
            for start in range(0, len(samples), self.micro_batch):
                part = slice(start, start + self.micro_batch)
                with autocast(self.recipe, self.device):
                    loss = anchor.loss(longs[part], shorts[part]) * len(longs[part]) / len(samples)
                loss.backward()
                total += loss.item()
        return average([total])[0]

    def _texts(self, step: int, slot: int, sample: Sample, anchor: Anchor) -> tuple[str, str]:
        """The long and the short text of the sample in this process's `slot` of those that the anchor reads."""
        rng = random.Random(f"texts {self.recipe.seed} {step} {self.text_order.global_slot(slot)}")
        return (
            fitting_text(sample.caption, anchor.tokenizer, self.subject.length, rng, self._any_caption),
            short_text(sample.short_caption, anchor.tokenizer, anchor.window, rng),
        )

    def _any_caption(self, rng: random.Random) -> str:
        while True:
            try:
                return self.captions[rng.randrange(len(self.captions))].caption
            except BadSample:
                continue

    def contrastive_step(self, batch: Batch, weight: float) -> dict[str, Any]:
        """Add the gradient of the contrastive losses; return what was measured."""
        subject = self.subject
        longs, cut = caption_ids([sample.caption for sample in batch.samples], subject.tokenizer, subject.length)
        shorts, _ = caption_ids([sample.short_caption for sample in batch.samples], subject.tokenizer, subject.length)
        images = self._images(batch)
        told = contrastive_backward(
            subject.clip,
            ContrastiveBatch(images, longs, shorts),
            self.recipe,
            micro_batch=self.micro_batch,
            weight=weight,
        )
        return {**asdict(told), "logit_scale": subject.clip.logit_scale.item(), "num_truncated": cut}

    def _images(self, batch: Batch) -> Tensor:
        if self.features is not None:
            return self.features[batch.indices].to(self.device)
        pixels = torch.from_numpy(np.stack([np.asarray(sample.image) for sample in batch.samples]))
        return pixels.to(self.device, self.subject.clip.dtype)

    @torch.no_grad()
    def _constrain(self) -> None:
        self.subject.restore_kept_rows()
        if self.recipe.uses_images and self.recipe.logit_scale == "bounded":
            self.subject.clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

    def _evaluates_after(self, step: int) -> bool:
        every = self.recipe.evaluate_every
        return step == self.recipe.steps or (every > 0 and step % every == 0)

    def _evaluate(self, step: int, notes: dict[str, Any]) -> Evaluation:
        """Held-out samples in the first process; the others wait at the next gradient."""
        values: dict[str, float] = self.validation.measure() if rank() == 0 else {}
        best = rank() == 0 and values["score"] >= notes.get("best", -float("inf"))
        if rank() == 0:
            extras = [self.processor] if self.processor else []
            export_subject(self.subject, self.folder / "last", extras)
            if best:
                notes["best"] = values["score"]
                export_subject(self.subject, self.folder / "best", extras)
        return Evaluation(step, values, any_process(best))


def _towers(subject: Subject) -> list[torch.nn.Module]:
    module = subject.module
    return [module.text_model, module.vision_model] if hasattr(module, "vision_model") else list(module.values())  # type: ignore[operator,list-item]


def _schedule(recipe: Recipe) -> Schedule:
    warmup = min(recipe.warmup, max(1, recipe.steps // WARMUP_SHARE))
    return Schedule(
        recipe.steps,
        recipe.batch_size,
        recipe.peak_rate,
        warmup,
        floor=0.0,
        weight_decay=recipe.weight_decay,
        **OPTIMIZERS[recipe.optimizer],
    )


def claim_folder(folder: Path, recipe: Recipe) -> None:
    """Write the recipe of a run that is about to begin, unless it is there; the first process does.

    Raises:
        LongClipError: the folder cannot be written.
    """
    file = folder / RECIPE
    if rank() or (file.is_file() and not differences(_read_recipe(file), recipe)):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("image_features-*"):  # of a recipe that came to nothing
            stale.unlink()
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        raise LongClipError(f"{folder} cannot be written: {error}. Give another --output.") from error


def _refuse_another_run(folder: Path, recipe: Recipe) -> None:
    """Where nothing was trained yet, as after a mistake in the command, any recipe may begin."""
    if not Checkpoints(folder / "checkpoints").files:
        return
    if changed := differences(_read_recipe(folder / RECIPE), recipe):
        told = ", ".join(f"{name} {old!r} (now {new!r})" for name, (old, new) in changed.items())
        raise RecipeError(f"{folder} holds a run of another recipe: {told}. Give these again, or another --output.")


def _read_recipe(file: Path) -> Recipe:
    try:
        return Recipe(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RecipeError(f"{file} is not a recipe of this version ({error}); give another --output.") from error
