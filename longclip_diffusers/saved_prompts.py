"""Prompts that were encoded earlier: which files hold them, and the settings that were saved with them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import CheckpointError, PromptError
from .prompt_files import MAX_SEED
from .sidecar import Generation

__all__ = ["SUFFIX", "SavedPrompt", "SavedSettings", "find_saved_prompts", "saved_settings"]

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class SavedPrompt:
    """A file of embeddings; `name` is its stem, and that of its pictures."""

    name: str
    file: Path


@dataclass(frozen=True)
class SavedSettings:
    """How the embeddings of a file are meant to be drawn; None leaves `seed` and `size` (width, height) open."""

    generation: Generation
    seed: int | None = None
    size: tuple[int, int] | None = None


def find_saved_prompts(place: Path) -> list[SavedPrompt]:
    """The file that `place` is, or all of the folder that it is, in the order of their names.

    Raises:
        PromptError: a folder without such a file, or one that cannot be read.
    """
    if not place.is_dir():
        return [SavedPrompt(place.stem, place)]
    try:
        files = sorted(file for file in place.iterdir() if file.suffix == SUFFIX and not file.name.startswith("."))
    except OSError as error:
        raise PromptError(f"{place} cannot be read: {error.strerror or error}.") from error
    if not files:
        raise PromptError(f"{place} holds no {SUFFIX} file. Expected a folder that --batch with --embeddings wrote.")
    return [SavedPrompt(file.stem, file) for file in files]


def saved_settings(metadata: Mapping[str, str], source: str, suited: Generation) -> SavedSettings:
    """The settings in a file's metadata, `suited` where it names no steps or no guidance.

    Raises:
        CheckpointError: one of them is not what such a file says; `source` names it.
    """
    try:
        steps, guidance = metadata.get("steps", suited.steps), metadata.get("guidance", suited.guidance)
        seed = int(metadata["seed"]) if "seed" in metadata else None
        if seed is not None and not 0 <= seed <= MAX_SEED:
            raise PromptError(f"seed {seed} is out of range: expected 0 to {MAX_SEED}.")
        return SavedSettings(Generation(int(steps), float(guidance)), seed, _size(metadata.get("size")))
    except ValueError as error:  # ours, and those of int and float
        raise CheckpointError(f"{source}: its metadata cannot be used ({error}). Save the embeddings again.") from error


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if (sides := re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)) is None:
        raise PromptError(f"size {text!r:.40}: expected WIDTHxHEIGHT.")
    return int(sides[1]), int(sides[2])
