"""What a run trains: the base with a long position table, the teachers it is anchored to, and how it is saved."""

import copy
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..checkpoints import load_clip
from ..checkpoints.checkpoint import read_checkpoint
from ..checkpoints.load import model_of, text_encoder_of
from ..checkpoints.sources import find_source
from ..errors import CheckpointError, ModelError
from ..positions import CLIP_LENGTH, KEPT_ROWS, LONG_LENGTH, linear_positions, stretch_positions
from ..text_encoder import (
    CLIP_VOCABULARY,
    TextEncoder,
    inner_text_model,
    num_positions,
    position_table,
    save_text_encoder,
    set_position_table,
)
from ..tokenizer import load_tokenizer
from .anchor import Anchor, Reads
from .recipe import Recipe

__all__ = ["MAX_LOGIT_SCALE", "Subject", "export_subject", "open_subject"]

MAX_LOGIT_SCALE = math.log(100)  # CLIP's own bound
# diffusers' names of a pipeline's text encoders and of their tokenizers.
ENCODERS = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))


@dataclass(frozen=True)
class Subject:
    """The module that is trained: a CLIPModel, or text encoders by diffusers' names; with tokenizers and teachers.

    `kept` are the position tables' rows that must not change, each with a copy of what they hold.
    """

    module: CLIPModel | nn.ModuleDict
    tokenizers: dict[str, CLIPTokenizer]
    anchors: tuple[Anchor, ...]
    kept: tuple[tuple[nn.Parameter, Tensor], ...]

    @property
    def clip(self) -> CLIPModel:
        """Both towers; only where the recipe has contrastive losses."""
        if not isinstance(self.module, CLIPModel):
            raise ModelError("This run trains text encoders alone.")
        return self.module

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """The first tower's."""
        return next(iter(self.tokenizers.values()))

    @property
    def length(self) -> int:
        """Positions of the long encoder."""
        tower = self.module.text_model if isinstance(self.module, CLIPModel) else next(iter(self.module.values()))
        return num_positions(tower)

    def to(self, device: torch.device) -> "Subject":
        """The same subject, everything on `device`."""
        for module in (self.module, *(anchor.teacher for anchor in self.anchors)):
            module.to(device)
        kept = tuple((table, rows.to(device)) for table, rows in self.kept)
        return Subject(self.module, self.tokenizers, self.anchors, kept)

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """AdamW's groups: biases, norms, the logit scale and position tables do not decay, unless `decay` is all."""
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        if recipe.decay == "all":
            return [{"params": trained, "weight_decay": recipe.weight_decay}]
        tables = {id(table) for table, _ in self.kept}
        decays = [parameter.ndim > 1 and id(parameter) not in tables for parameter in trained]
        return [
            {"params": [each for each, decay in zip(trained, decays, strict=True) if decay == wanted], **rate}
            for wanted, rate in ((True, {"weight_decay": recipe.weight_decay}), (False, {"weight_decay": 0.0}))
        ]

    def drop_kept_gradients(self) -> None:
        """Take the kept rows out of the gradient, so that they do not count in its norm."""
        for table, rows in self.kept:
            if table.grad is not None:
                table.grad[: len(rows)] = 0

    @torch.no_grad()
    def restore_kept_rows(self) -> None:
        """Put the kept rows back, bit for bit; AdamW's decay and its momentum move rows without a gradient too."""
        for table, rows in self.kept:
            table[: len(rows)] = rows


def open_subject(recipe: Recipe) -> Subject:
    """The recipe's base, stretched, with what is frozen marked so.

    Raises:
        CheckpointError: the base cannot be read, or has no image tower where pictures are trained on.
        ModelError: the base is long already, where the anchor needs the encoder that the UNet was trained with.
    """
    module: CLIPModel | nn.ModuleDict
    if recipe.uses_images:
        module = load_clip(recipe.source, dtype=torch.float32)
        if recipe.logit_scale == "released":
            module.logit_scale.data.fill_(MAX_LOGIT_SCALE)
        parts = [_part(recipe.source, None, ENCODERS[0], module.text_model, "last")]
        module.vision_model.requires_grad_(not recipe.freeze_vision)
        module.visual_projection.requires_grad_(not recipe.freeze_vision)
    else:
        parts = _text_parts(recipe.source)
        module = nn.ModuleDict({part.name: part.tower for part in parts})
    anchors, kept = [], []
    for part in parts:
        tower = part.tower
        teacher = _teacher(recipe.source, tower) if recipe.uses_anchor else None
        _stretch(module if recipe.uses_images else tower, recipe.stretch)  # type: ignore[arg-type]
        if teacher is not None:
            tower.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
            anchors.append(Anchor(tower, teacher, part.tokenizer, part.reads, ends=not recipe.uses_images))
        rows = KEPT_ROWS if recipe.stretch == "kps" else 0
        kept.append((position_table(tower), position_table(tower).detach()[:rows].clone()))
    tokenizers = {part.tokenizer_name: part.tokenizer for part in parts}
    module.train()
    return Subject(module, tokenizers, tuple(anchors), tuple(kept))


@dataclass(frozen=True)
class _Part:
    """One text encoder of a base, diffusers' names for it and its tokenizer, the tokenizer, and what pipelines read."""

    tower: nn.Module
    name: str
    tokenizer_name: str
    tokenizer: CLIPTokenizer
    reads: Reads


def _part(base: str, subfolder: str | None, names: tuple[str, str], tower: nn.Module, reads: Reads) -> _Part:
    vocabulary = inner_text_model(tower).config.vocab_size  # type: ignore[union-attr]
    return _Part(tower, *names, _tokenizer(base, subfolder, vocabulary), reads)  # type: ignore[arg-type]


def _text_parts(base: str) -> list[_Part]:
    """The text encoders of a base: SDXL's two, the second alone (its refiner, a lone bigG), or the one there is."""
    found = [pair for pair in ENCODERS if _exists(base, pair[0])]
    if not found:
        tower = _text_encoder(base, None)
        reads: Reads = "penultimate" if isinstance(tower, CLIPTextModelWithProjection) else "last"
        return [_part(base, None, ENCODERS[0], tower, reads)]
    reads = "penultimate" if ENCODERS[1] in found else "last"
    return [_part(base, names[1], names, _text_encoder(base, names[0]), reads) for names in found]


def _exists(base: str, subfolder: str) -> bool:
    if Path(base).expanduser().exists():
        return (Path(base).expanduser() / subfolder).is_dir()
    try:
        find_source(base, subfolder=subfolder)
    except CheckpointError:
        return False  # nothing there, or nothing reachable: then opening the base itself says so
    return True


def _text_encoder(source: str, subfolder: str | None) -> TextEncoder:
    checkpoint = read_checkpoint(source, subfolder=subfolder, warn=False)
    model = text_encoder_of(checkpoint, dtype=torch.float32) if checkpoint.has_vision else model_of(checkpoint)
    return model.float()


def _teacher(base: str, tower: nn.Module) -> nn.Module:
    """The tower as it is before it is stretched."""
    if (length := num_positions(tower)) > CLIP_LENGTH:
        raise ModelError(
            f"{base} has {length} positions already. The anchor learns from the encoder that the UNet was "
            "trained with: give the stock CLIP or Stable Diffusion as base."
        )
    return copy.deepcopy(tower).eval().requires_grad_(False)


def _stretch(model: CLIPModel | TextEncoder, stretch: str) -> None:
    tower = inner_text_model(model)
    old = position_table(tower).detach()
    if len(old) <= CLIP_LENGTH:
        table = stretch_positions(old) if stretch == "kps" else linear_positions(old, length=LONG_LENGTH)
        set_position_table(model, table)


def _tokenizer(base: str, subfolder: str | None, vocabulary: int) -> CLIPTokenizer:
    """The base's own tokenizer, or that beside a lone encoder's folder; CLIP's where there is none and it fits."""
    place = Path(base).expanduser()
    beside = place.parent / dict(ENCODERS).get(place.name, "tokenizer")
    try:
        if place.name in dict(ENCODERS) and beside.is_dir():
            return load_tokenizer(beside)
        return load_tokenizer(place if place.is_dir() else base, subfolder=subfolder)
    except CheckpointError:
        if vocabulary != CLIP_VOCABULARY:
            raise
        return load_tokenizer()


def export_subject(subject: Subject, folder: Path, extras: Sequence[Any] = ()) -> None:
    """Write what `longclip=` opens: a CLIPModel folder with its tokenizer, or `text_encoder[_2]/`, `tokenizer[_2]/`.

    The folder takes its name only when it is complete.

    Args:
        extras: what else has `save_pretrained`, such as an image processor.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    if isinstance(subject.module, CLIPModel):
        subject.module.save_pretrained(unfinished)
        subject.tokenizer.save_pretrained(unfinished)
        for extra in extras:
            extra.save_pretrained(unfinished)
    else:
        for name, encoder in subject.module.items():
            save_text_encoder(encoder, unfinished / name)  # type: ignore[arg-type]
        for name, tokenizer in subject.tokenizers.items():
            tokenizer.save_pretrained(unfinished / name)
    replaced = folder.with_name(f"{folder.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.replace(replaced)
    unfinished.replace(folder)
    shutil.rmtree(replaced, ignore_errors=True)
