"""What a fine-tuning run does: one frozen dataclass, from the command line or a TOML file; unknown keys are errors."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ..errors import LongClipError
from ..models import bundled

__all__ = ["PRESETS", "Recipe", "RecipeError", "differences", "read_recipe"]

Objective = Literal["contrastive", "anchor", "both"]


class RecipeError(LongClipError):
    """A recipe with an unknown field, a value out of range, or fields that do not go together."""


@dataclass(frozen=True)
class Recipe:
    """One run of `longclip train`. The sizes are global: what all processes do together.

    Args:
        base: what is lengthened: a CLIP (both towers) for the contrastive objectives; for the anchor alone also a text
            encoder or a whole Stable Diffusion folder or hub id, SDXL's two encoders included. Without one it is the
            bundled miniature's CLIP, to try things out with preset storybook.
        data: storybook, folder:DIR, jsonl:FILE, csv:FILE, txt:FILE, sharegpt4v:JSON:IMAGE_ROOT, wds:PATTERN or
            hf:NAME[:SPLIT]; a bare path is recognised by what it is.
        output: folder of checkpoints, log and exports. Where it holds a run of this recipe, that run goes on.
        objective: contrastive (Long-CLIP's losses on pictures), anchor (text alone, token states kept) or both.
        steps: optimiser steps.
        batch_size: samples a step, all processes together.
        micro_batch: samples encoded at once, or auto, by memory; it changes memory and time, never the result.
        lr: peak learning rate; 0 takes 1e-6 (the paper's) for contrastive losses alone, 1e-5 with the anchor.
        seed: everything that is drawn follows from it.
        warmup: steps of linear warm-up, at most a tenth of the run; then the rate falls to zero on a cosine.
        optimizer: adamw (second beta .98, gradients clipped to a norm of 1); muon (torch 2.9 or later) for the towers'
            linear layers, with AdamW for the rest: in the storybook a third of the steps lead as far; or released,
            AdamW as the released code has it (.999, nothing clipped).
        weight_decay: of either.
        decay: matrices (not biases, norms, the logit scale, position tables) or all, as released.
        precision: fp32, or bf16 autocast; losses and PCA are fp32 in both.
        compile: torch.compile each tower.
        stretch: kps (20 rows kept) or linear, the ablation's baseline; a long base stays as it is.
        components: principal components of the short loss (PCM); 0 compares short captions with whole features.
        pca: global batch; rank (each process its own, as released); or svd, the same through the SVD's own gradient.
        short_weight: of the short loss beside the long one.
        label_smoothing: of all contrastive cross-entropies.
        logit_scale: bounded (the base's own, at most CLIP's bound of ln 100) or released (from ln 100, unbounded).
        margin: hard-negative margin: adds margin x text similarity to the negatives' logits' cosine.
        captions: as-written; debias (no first sentence in the short caption, sentences dropped and shuffled in the long
            one); sub (the short caption is a run of the long one's sentences).
        freeze_vision: train the text tower alone; picture features are computed once and kept.
        anchor_batch: objective both: how many of a step's samples the anchor reads; it must divide batch_size.
        contrastive_weight: objective both: of the contrastive losses, beside 1 of the anchor.
        anchor_share: objective both: share of the steps that train the anchor alone before the contrastive losses join.
        evaluate_every: steps between evaluations on held-out samples; 0 evaluates at the end only.
        num_validation: held-out samples, at most a tenth of the data.
    """

    base: str = ""
    data: str = "storybook"
    output: str = "runs/train"
    objective: Objective = "contrastive"
    steps: int = 1000
    batch_size: int = 128
    micro_batch: int | Literal["auto"] = "auto"
    lr: float = 0.0
    seed: int = 0
    warmup: int = 200
    optimizer: Literal["adamw", "muon", "released"] = "adamw"
    weight_decay: float = 1e-2
    decay: Literal["matrices", "all"] = "matrices"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    stretch: Literal["kps", "linear"] = "kps"
    components: int = 32
    pca: Literal["global", "rank", "svd"] = "global"
    short_weight: float = 1.0
    label_smoothing: float = 0.0
    logit_scale: Literal["bounded", "released"] = "bounded"
    margin: float = 0.0
    captions: Literal["as-written", "debias", "sub"] = "as-written"
    freeze_vision: bool = False
    anchor_batch: int = 16
    contrastive_weight: float = 0.06
    anchor_share: float = 0.65
    evaluate_every: int = 200
    num_validation: int = 1000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if get_origin(field.type) is Literal and value not in get_args(field.type):
                raise RecipeError(f"{field.name} is {value!r}; choose from {', '.join(get_args(field.type))}.")
            if field.name == "micro_batch":
                continue
            kind = field.type if isinstance(field.type, type) else str
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise RecipeError(f"{field.name} is {value!r}; it takes {kind.__name__}.")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise RecipeError(f"{name} is {value}; it must be between {low} and {high}.")
        at_once = self.micro_batch
        if at_once != "auto" and not (isinstance(at_once, int) and 1 <= at_once <= self.batch_size):
            raise RecipeError(f"micro_batch is {at_once}; it is auto, or 1 to batch_size {self.batch_size}.")
        if self.objective == "both" and self.batch_size % self.anchor_samples:
            raise RecipeError(f"anchor_batch {self.anchor_batch} does not divide batch_size {self.batch_size}.")

    @property
    def source(self) -> str:
        """Where the base lies."""
        return self.base or str(bundled() / "clip")

    @property
    def uses_images(self) -> bool:
        """Whether any of the losses needs pictures."""
        return self.objective != "anchor"

    @property
    def uses_anchor(self) -> bool:
        """Whether the anchor is one of the losses."""
        return self.objective != "contrastive"

    @property
    def anchor_samples(self) -> int:
        """How many of a step's samples the anchor reads."""
        return self.batch_size if self.objective == "anchor" else min(self.anchor_batch, self.batch_size)

    @property
    def peak_rate(self) -> float:
        """The learning rate after warm-up."""
        return self.lr or (1e-5 if self.uses_anchor else 1e-6)

    @property
    def first_contrastive_step(self) -> int:
        """The first step, from 1, that has contrastive losses; `steps` + 1 where none has."""
        share = {"contrastive": 0.0, "anchor": 1.0, "both": self.anchor_share}[self.objective]
        return round(share * self.steps) + 1


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("steps", 1, 10**9),
    ("batch_size", 1, 10**6),
    ("lr", 0, 1),
    ("warmup", 0, 10**9),
    ("weight_decay", 0, 1),
    ("components", 0, 10**4),
    ("short_weight", 0, 1e3),
    ("label_smoothing", 0, 0.999),
    ("margin", 0, 10),
    ("anchor_batch", 1, 10**6),
    ("contrastive_weight", 0, 1e3),
    ("anchor_share", 0, 1),
    ("evaluate_every", 0, 10**9),
    ("num_validation", 0, 10**6),
)

# `official` is what the released code does (its train.md and model_longclip.py), whatever its README says.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {"objective": "both"},  # what won the storybook's contest (samples/proof)
    "official": {
        "batch_size": 2048,
        "lr": 1e-6,
        "optimizer": "released",
        "decay": "all",
        "pca": "svd",
        "label_smoothing": 0.1,
        "logit_scale": "released",
    },
    # For models as small as the bundled one, which learn from a thousand times the rate; and a batch so small has few
    # components.
    "storybook": {
        "objective": "both",
        "freeze_vision": True,  # else it forgets what its pictures were called (zero-shot)
        "steps": 3000,
        "anchor_share": 0.88,
        "anchor_batch": 4,  # the same texts in more and smaller steps: more references are understood
        "batch_size": 32,
        "optimizer": "muon",
        "lr": 1.5e-3,
        "warmup": 20,
        "weight_decay": 0.0,
        "components": 8,
        "num_validation": 200,
    },
}


def read_recipe(values: Mapping[str, Any], *, preset: str = "default", file: str | Path | None = None) -> Recipe:
    """A recipe from a preset, a TOML file over it and `values` over both.

    Raises:
        RecipeError: unknown preset or field, unreadable file, a value that does not fit.
    """
    if preset not in PRESETS:
        raise RecipeError(f"There is no preset {preset!r}; choose from {', '.join(PRESETS)}.")
    told = {**PRESETS[preset], **(_read_toml(Path(file)) if file else {}), **values}
    names = [field.name for field in fields(Recipe)]
    if unknown := sorted(set(told) - set(names)):
        raise RecipeError(f"A recipe has no field {', '.join(unknown)}. Its fields are {', '.join(names)}.")
    return Recipe(**told)


def differences(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Fields in which two recipes differ, without those that say where and how fast it runs."""
    free = {"output", "micro_batch", "compile"}
    mine, yours = asdict(one), asdict(other)
    return {name: (mine[name], yours[name]) for name in mine if name not in free and mine[name] != yours[name]}


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} is no readable TOML file: {error}") from error
