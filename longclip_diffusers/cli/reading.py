"""Embeddings for `longgen`: what the text encoder makes of a prompt, in a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .drawing import placement_for
from .options import Options
from .settings import chosen_generation, described, model_of, note
from .team import Team

if TYPE_CHECKING:
    from ..mixin import LongMixin
    from ..prompt_files import Request

__all__ = ["reader_for", "save_read"]


def reader_for(options: Options, team: Team) -> "LongMixin":
    """The part of the model that reads."""
    placement = placement_for(options, team)
    from ..generation import load_reader

    return load_reader(model_of(options, told=team.is_first), placement, **options.prompt_options)


def save_read(options: Options, request: "Request", paths: list[Path], reader: "LongMixin") -> Iterator[Path]:
    """Save what a request's prompt and negative become; yields the file that was written."""
    from ..embeddings import encode_embeddings, save_embeddings

    (path,) = paths
    negative = options.negative if request.negative is None else request.negative
    generation = chosen_generation(reader.generation, options)
    label = f"{request.name}: " if options.is_batch else ""
    note(f"{label}{str(reader.plan_prompt(request.prompt)).splitlines()[0]}")
    tensors = encode_embeddings(reader, request.prompt, negative=negative, guided=generation.guidance > 1)
    told = {"prompt": request.prompt, "negative": negative, **described(options, reader, generation)}
    seed, size = options.seed if request.seed is None else request.seed, options.width_and_height
    if seed is not None:
        told["seed"] = seed
    if size is not None:
        told["size"] = f"{size[0]}x{size[1]}"
    save_embeddings(tensors, path, told)
    yield path
