"""`longgen`: a picture from a prompt of any length."""

import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ..errors import LongClipError
from ..models import bundled
from .exits import UsageError, exit_code, quiet_libraries
from .options import DESCRIPTION, Options
from .team import Team, join_team

if TYPE_CHECKING:
    from ..generation import Painter
    from ..prompt_files import Request
    from ..sidecar import Generation

__all__ = ["main"]

PROGRAM = "longgen"
MODEL_VARIABLE = "LONGGEN_MODEL"
EXAMPLE_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"
RANDOM_SEEDS = 2**32  # short enough to be typed again


def main(argv: Sequence[str] | None = None) -> int:
    """Draw what the arguments ask for; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return exit_code(PROGRAM, lambda: _run(_parse(arguments)), debug="--debug" in arguments)


def _parse(arguments: list[str]) -> Options:
    # Flags are --flag only, not --flag and --no-flag.
    config = (tyro.conf.FlagCreatePairsOff,)
    return tyro.cli(Options, prog=PROGRAM, args=arguments, description=DESCRIPTION, config=config)


def _run(options: Options) -> int:
    team = join_team()
    if team.size > 1 and (options.tokens or not options.batch):
        raise UsageError(f"{team.size} processes were launched: they share the lines of a --batch, and nothing else.")
    requests, num_bad = _requests(options, team)
    if options.tokens:
        _print_windows(options, requests)
        return min(num_bad, 1)
    num_drawn, num_bad = team.summed(_draw_all(options, requests, num_bad, team))
    if options.batch and team.is_first:
        _note(f"pictures drawn: {num_drawn}; lines that could not be drawn: {num_bad}; processes: {team.size}.")
    return min(num_bad, 1)


def _requests(options: Options, team: Team) -> tuple[list["Request"], int]:
    """What is asked for, and how many lines of a batch were reported as bad, which the first process does."""
    from ..prompt_files import Request, decode_prompt, read_batch, read_prompt

    if not options.batch:
        if "-" in (options.prompt, str(options.file)):
            prompt = decode_prompt(sys.stdin.buffer.read(), "standard input")
        else:
            prompt = read_prompt(options.file) if options.file else options.prompt
        return [Request(prompt, name=PROGRAM, seed=options.seed)], 0
    requests, num_bad = [], 0
    for line in read_batch(options.batch):
        if isinstance(line, Request):
            requests.append(line)
        elif team.is_first:
            num_bad += 1
            _note(f"{options.batch}, line {line.number}: {line.reason} Skipped.")
    return requests, num_bad


def _print_windows(options: Options, requests: list["Request"]) -> None:
    quiet_libraries(debug=options.debug)
    from ..generation import load_reader

    reader = load_reader(_model(options), **options.prompt_options)
    texts = {request.name: request.prompt for request in requests} if options.batch else {"": requests[0].prompt}
    for name, text in [*texts.items(), *([("negative", options.negative)] if options.negative else [])]:
        print(*([f"{name}:"] if name else []), reader.plan_prompt(text), sep="\n")


def _draw_all(options: Options, requests: list["Request"], num_bad: int, team: Team) -> tuple[int, int]:
    """Draw this process's share of what is not there yet; returns how many pictures, and `num_bad` with what failed."""
    jobs = _jobs(options, requests, team)
    num_drawn = 0
    if not jobs:
        return num_drawn, num_bad
    painter = _painter(options, team)
    for request, paths in map(jobs.__getitem__, team.share(len(jobs))):
        try:
            for path in _draw(options, request, paths, painter):
                print(f"{path}\n", end="", flush=True)  # in one piece: print writes a line's end by itself
                num_drawn += 1
        except LongClipError as error:
            if not options.batch:
                raise
            num_bad += 1
            _note(f"{options.batch}, {request.name}: {error} Skipped.")
    return num_drawn, num_bad


def _jobs(options: Options, requests: list["Request"], team: Team) -> list[tuple["Request", list[Path]]]:
    """The requests that lack a picture, each with its missing files (all of them outside a batch)."""
    from ..pictures import free_path, numbered, writable_folder

    folder, count = writable_folder(options.folder), options.num_images
    if not options.batch:
        return [(requests[0], numbered(options.file_out or free_path(folder, count), count))]
    jobs = [(request, numbered(folder / f"{request.name}.png", count)) for request in requests]
    # The first process looks for all: by the time a slower one does, others have drawn.
    unfinished = team.agreed(lambda: [at for at, (_, paths) in enumerate(jobs) if not all(map(Path.exists, paths))])
    if team.is_first and len(unfinished) < len(jobs):
        _note(f"{len(jobs) - len(unfinished)} of {len(jobs)} prompts are drawn already, in {folder}.")
    return [jobs[at] for at in unfinished]


def _painter(options: Options, team: Team) -> "Painter":
    quiet_libraries(debug=options.debug)
    from ..generation import Painter, Placement, load_pipeline, truncating_twin
    from ..sidecar import Generation

    placement = Placement(team.device(options.device), options.dtype, options.attention, options.offload)
    _chosen(Generation(), options)  # a setting out of range is refused before a model is loaded
    model = _model(options, told=team.is_first)
    pipe = load_pipeline(model, placement, **options.prompt_options)
    twin = truncating_twin(pipe, model, placement) if options.compare else None
    for each in (pipe, twin):
        if each is not None and not team.is_first:
            each.set_progress_bar_config(disable=True)  # bars of several processes overwrite each other
    return Painter(pipe, _chosen(pipe.generation, options), options.width_and_height, twin)


def _chosen(generation: "Generation", options: Options) -> "Generation":
    steps = generation.steps if options.steps is None else options.steps
    guidance = generation.guidance if options.guidance is None else options.guidance
    return replace(generation, steps=steps, guidance=guidance)


def _draw(options: Options, request: "Request", paths: list[Path], painter: "Painter") -> Iterator[Path]:
    """Draw and save the pictures of one request; yields each file that was written."""
    from ..pictures import save_picture

    seeds = (request.seed, options.seed, secrets.randbelow(RANDOM_SEEDS))
    first = next(seed for seed in seeds if seed is not None)
    line = f"{request.name}: " if options.batch else ""  # lines of several processes mix
    if first is seeds[-1]:
        _note(f"{line}seed {first}")
    negative = options.negative if request.negative is None else request.negative
    plan = painter.pipe.plan_prompt(request.prompt)
    _note(f"{line}{str(plan).splitlines()[0]}")
    for seed, path in enumerate(paths, first):
        if options.batch and path.exists():
            continue
        picture = painter(request.prompt, seed=seed, negative=negative)
        settings = {"prompt": request.prompt, "negative": negative, "seed": seed, **_settings(options, painter)}
        save_picture(picture, path, settings)
        yield path


def _settings(options: Options, painter: "Painter") -> dict[str, object]:
    """What a picture's file says beside prompt and seed: enough to draw it again."""
    width, height = painter.size or painter.trained_size
    unused = () if "text_encoder_2" in painter.pipe.clip_encoders else ("g_mode",)
    return {
        "steps": painter.generation.steps,
        "guidance": painter.generation.guidance,
        "size": f"{width}x{height}",
        "model": _model_name(options),
        "longclip": options.longclip,
        **{name: value for name, value in vars(painter.pipe.prompt_options).items() if name not in unused},
        "compare": options.compare,
        "software": f"longclip-diffusers {version('longclip-diffusers')}",
    }


def _model_name(options: Options) -> str:
    return options.model or os.environ.get(MODEL_VARIABLE) or "storybook (bundled)"


def _model(options: Options, *, told: bool = True) -> str:
    """The model that is meant; says so where it is only the bundled one, if that is to be `told`."""
    named = options.model or os.environ.get(MODEL_VARIABLE)
    if named:
        return named
    if told:
        _note(
            "drawing with the bundled storybook miniature, which knows only its own bay. "
            f"For a real model: --model ID_OR_FOLDER or {MODEL_VARIABLE}=..., such as {EXAMPLE_MODEL}."
        )
    return str(bundled())


def _note(message: str) -> None:
    print(f"{PROGRAM}: {message}\n", end="", file=sys.stderr, flush=True)  # in one piece, as paths are
