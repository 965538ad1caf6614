"""`longgen`: a picture from a prompt of any length."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from ..errors import LongClipError
from .drawing import draw, draw_saved, painter_for
from .exits import UsageError, exit_code, quiet_libraries
from .options import DESCRIPTION, Options
from .reading import reader_for, save_read
from .settings import PROGRAM, model_of, note
from .team import Team, join_team

if TYPE_CHECKING:
    from ..prompt_files import Request
    from ..saved_prompts import SavedPrompt

__all__ = ["main"]


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
    if team.size > 1 and (options.tokens or not options.is_batch):
        raise UsageError(
            f"{team.size} processes were launched: they share the lines of a --batch or the files of a folder, and "
            "nothing else."
        )
    requests, num_bad = _requests(options, team)
    if options.tokens:
        _print_windows(options, requests)
        return min(num_bad, 1)
    num_written, num_bad = team.summed(_work_all(options, requests, num_bad, team))
    if options.is_batch and team.is_first:
        lines, verb = "lines" if options.batch else "files", "saved" if options.embeddings else "drawn"
        note(
            f"{'embeddings saved' if options.embeddings else 'pictures drawn'}: {num_written}; {lines} that could not "
            f"be {verb}: {num_bad}; processes: {team.size}."
        )
    return min(num_bad, 1)


def _requests(options: Options, team: Team) -> tuple[list[Any], int]:
    """What is asked for, and how many lines of a batch were reported as bad, which the first process does."""
    from ..prompt_files import Request, decode_prompt, read_batch, read_prompt

    if options.embeddings_from:
        return _saved(options.embeddings_from, debug=options.debug), 0
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
            note(f"{options.batch}, line {line.number}: {line.reason} Skipped.")
    return requests, num_bad


def _saved(place: Path, *, debug: bool) -> list["SavedPrompt"]:
    quiet_libraries(debug=debug)
    from ..saved_prompts import find_saved_prompts

    found = find_saved_prompts(place)
    if not place.is_dir():
        from ..embeddings import read_embeddings

        read_embeddings(place)  # a mistake is told before a model is loaded
    return found


def _print_windows(options: Options, requests: list["Request"]) -> None:
    quiet_libraries(debug=options.debug)
    from ..generation import load_reader

    reader = load_reader(model_of(options), **options.prompt_options)
    texts = {request.name: request.prompt for request in requests} if options.batch else {"": requests[0].prompt}
    for name, text in [*texts.items(), *([("negative", options.negative)] if options.negative else [])]:
        print(*([f"{name}:"] if name else []), reader.plan_prompt(text), sep="\n")


def _work_all(options: Options, requests: Sequence[Any], num_bad: int, team: Team) -> tuple[int, int]:
    """Write this process's share of what is not there yet; returns how many files, and `num_bad` with what failed."""
    with ExitStack() as reserved:
        jobs = _jobs(options, requests, team, reserved)
        if not jobs:
            return 0, num_bad
        return _work(options, jobs, num_bad, team)


def _work(options: Options, jobs: Sequence[tuple[Any, list[Path]]], num_bad: int, team: Team) -> tuple[int, int]:
    write = _writer(options, team)
    from ..repeats import repeats_remembered

    num_written = 0
    with repeats_remembered():
        for request, paths in map(jobs.__getitem__, team.share(len(jobs))):
            try:
                for path in write(request, paths):
                    print(f"{path}\n", end="", flush=True)  # in one piece: print writes a line's end by itself
                    num_written += 1
            except LongClipError as error:
                if not options.is_batch:
                    raise
                num_bad += 1
                note(f"{options.batch or options.embeddings_from}, {request.name}: {error} Skipped.")
    return num_written, num_bad


def _jobs(options: Options, requests: Sequence[Any], team: Team, reserved: ExitStack) -> list[tuple[Any, list[Path]]]:
    """The requests that lack a file, each with its missing files (all of them outside a batch)."""
    from ..pictures import numbered, reserved_path, writable_folder

    folder, count = writable_folder(options.folder), options.num_images
    if not options.is_batch:
        path = options.file_out or reserved.enter_context(reserved_path(folder, count))
        return [(requests[0], numbered(path, count))]
    jobs = [(request, numbered(folder / f"{request.name}{options.suffix}", count)) for request in requests]
    # The first process looks for all: by the time a slower one does, others have drawn.
    unfinished = team.agreed(lambda: [at for at, (_, paths) in enumerate(jobs) if not all(map(Path.exists, paths))])
    if team.is_first and len(unfinished) < len(jobs):
        done = "saved" if options.embeddings else "drawn"
        note(f"{len(jobs) - len(unfinished)} of {len(jobs)} prompts are {done} already, in {folder}.")
    return [jobs[at] for at in unfinished]


def _writer(options: Options, team: Team) -> Callable[[Any, list[Path]], Iterator[Path]]:
    """What writes the files of one request, with the model loaded that it takes."""
    if options.embeddings:
        return partial(save_read, options, reader=reader_for(options, team))
    painter = painter_for(options, team)
    return partial(draw_saved if options.embeddings_from else draw, options, painter=painter)
