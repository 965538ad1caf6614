"""`longclip`: the verbs of an encoder's life, each a module of its own that is imported when it is used."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

import tyro

from .exits import UsageError, exit_code

__all__ = ["main"]

PROGRAM = "longclip"
# A verb's module holds a function of its name, or a table `verbs` of the functions it is followed by. Where the
# defaults depend on what is given, its `defaults` makes the options from the arguments, and the function takes them.
VERBS = {
    "convert": "write a CLIP or Long-CLIP checkpoint in another layout",
    "inspect": "print what a checkpoint is: layout, sizes, position rows, SHA-256",
    "train": "fine-tune a CLIP, or lengthen a text encoder from plain text",
    "evaluate": "detail recall of pictures; retrieval, zero-shot, what each part of the training is worth",
    "bench": "a training step, a step of drawing and the reading of long prompts, beside other ways to do them",
    "storybook": "the bundled miniature model: its picture world and its training",
    "comfy-install": "put the ComfyUI nodes of this installation into a ComfyUI",
}
HELP = "\n".join(
    [
        f"usage: {PROGRAM} VERB [OPTIONS]     ({PROGRAM} VERB --help for its options)",
        "",
        *(f"  {verb.ljust(15)}{summary}" for verb, summary in VERBS.items()),
        "",
        "Any verb takes --debug, which shows the traceback of an error. Pictures are drawn with longgen.",
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = [argument for argument in given if argument != "--debug"]
    if arguments[:1] in (["--help"], ["-h"]):
        print(HELP)
        return 0
    return exit_code(PROGRAM, lambda: _run(arguments), debug="--debug" in given)


def _run(arguments: list[str]) -> None:
    verb = _choose(arguments, VERBS, PROGRAM)
    home, program, rest = verb.replace("-", "_"), f"{PROGRAM} {verb}", arguments[1:]
    module = import_module(f".{home}", __package__)
    function: Callable[..., None] | None = getattr(module, home, None)
    if function is None:
        if rest[:1] in ([], ["--help"], ["-h"]):
            print(f"usage: {program} {{{','.join(module.verbs)}}} [OPTIONS]")
            return
        name = _choose(rest, module.verbs, program)
        function, program, rest = module.verbs[name], f"{program} {name}", rest[1:]
    config = (tyro.conf.FlagCreatePairsOff,)  # --flag only, not --flag and --no-flag
    if hasattr(module, "defaults"):
        options = module.defaults(rest)
        function(tyro.cli(type(options), default=options, prog=program, args=rest, config=config))
    else:
        tyro.cli(function, prog=program, args=rest, config=config)


def _choose(arguments: list[str], known: dict[str, object] | dict[str, str], program: str) -> str:
    if not arguments:
        raise UsageError(f"expected a verb: {', '.join(known)}.")
    if arguments[0] not in known:
        raise UsageError(f"{program} has no verb {arguments[0]!r}. Known: {', '.join(known)}.")
    return arguments[0]
