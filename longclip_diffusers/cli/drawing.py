"""Pictures for `longgen`: the painter that the options ask for, and the pictures of one request."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .exits import quiet_libraries
from .options import Options
from .settings import chosen_generation, chosen_seed, described, model_of, note
from .team import Team

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..generation import Painter, Placement
    from ..prompt_files import Request
    from ..saved_prompts import SavedPrompt

__all__ = ["draw", "draw_saved", "painter_for", "placement_for"]

# What a file's metadata says of how its text was read, in place of what a later run would say.
READ_EARLIER = ("longclip", "window", "context", "syntax", "g_mode")


def placement_for(options: Options, team: Team) -> "Placement":
    """Where this process computes; settings out of range are refused here, before a model is loaded."""
    quiet_libraries(debug=options.debug)
    from ..generation import Placement
    from ..sidecar import Generation

    chosen_generation(Generation(), options)
    return Placement(team.device(options.device), options.dtype, options.attention, options.offload)


def painter_for(options: Options, team: Team) -> "Painter":
    """The model, ready to draw; without text encoders where what it draws from was read earlier."""
    placement = placement_for(options, team)
    from ..generation import Painter, load_painting_part, load_pipeline, truncating_twin

    model = model_of(options, told=team.is_first)
    if options.embeddings_from:
        pipe = load_painting_part(model, placement)
    else:
        pipe = load_pipeline(model, placement, **options.prompt_options)
    twin = truncating_twin(pipe, model, placement) if options.compare else None
    for each in (pipe, twin):
        if each is not None and not team.is_first:
            each.set_progress_bar_config(disable=True)  # bars of several processes overwrite each other
    return Painter(pipe, chosen_generation(pipe.generation, options), options.width_and_height, twin)


def draw(options: Options, request: "Request", paths: list[Path], painter: "Painter") -> Iterator[Path]:
    """Draw and save the pictures of one request; yields each file that was written."""
    label = f"{request.name}: " if options.is_batch else ""
    first = chosen_seed(options, request.seed, label)
    negative = options.negative if request.negative is None else request.negative
    note(f"{label}{str(painter.pipe.plan_prompt(request.prompt)).splitlines()[0]}")
    told = {"prompt": request.prompt, "negative": negative}

    def paint(seed: int) -> "Image":
        return painter(request.prompt, seed=seed, negative=negative)

    yield from _pictures(options, paths, first, paint, {**told, **_settings(options, painter)})


def draw_saved(options: Options, request: "SavedPrompt", paths: list[Path], painter: "Painter") -> Iterator[Path]:
    """The same from embeddings, with the settings that were saved with them where the options have none."""
    from ..embeddings import check_embeddings, read_embeddings
    from ..saved_prompts import saved_settings

    saved = read_embeddings(request.file)
    settings = saved_settings(saved.metadata, str(request.file), painter.pipe.generation)
    painter = replace(
        painter, generation=chosen_generation(settings.generation, options), size=painter.size or settings.size
    )
    check_embeddings(saved.tensors, painter.pipe, guided=painter.generation.guidance > 1)
    label = f"{request.name}: " if options.is_batch else ""
    # Unlike a line's own, a saved seed may be that of a whole earlier run: one that is given now takes its place.
    first = chosen_seed(options, settings.seed if options.seed is None else None, label)
    note(f"{label}{saved.tensors['prompt_embeds'].shape[1]} rows of text")
    earlier = {name: text for name, text in saved.metadata.items() if name in ("prompt", "negative", *READ_EARLIER)}
    now = {name: value for name, value in _settings(options, painter).items() if name not in READ_EARLIER}
    told = {**earlier, **now, "embeddings": request.file.name}

    def paint(seed: int) -> "Image":
        return painter.from_embeddings(saved.tensors, seed=seed)

    yield from _pictures(options, paths, first, paint, told)


def _pictures(
    options: Options,
    paths: list[Path],
    first: int,
    paint: Callable[[int], "Image"],
    told: Mapping[str, Any],
) -> Iterator[Path]:
    from ..pictures import save_picture

    for seed, path in enumerate(paths, first):
        if options.is_batch and path.exists():
            continue
        save_picture(paint(seed), path, {**told, "seed": seed})
        yield path


def _settings(options: Options, painter: "Painter") -> dict[str, object]:
    width, height = painter.size or painter.trained_size
    size = {"size": f"{width}x{height}", "compare": options.compare}
    return {**described(options, painter.pipe, painter.generation), **size}
