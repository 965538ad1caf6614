"""What the options of `longgen` mean together with the environment and the model, and what its files say of them."""

import os
import secrets
import sys
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from ..models import bundled
from .options import Options

if TYPE_CHECKING:
    from ..mixin import LongMixin
    from ..sidecar import Generation

__all__ = ["PROGRAM", "chosen_generation", "chosen_seed", "described", "model_of", "note"]

PROGRAM = "longgen"
MODEL_VARIABLE = "LONGGEN_MODEL"
EXAMPLE_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"
RANDOM_SEEDS = 2**32  # short enough to be typed again


def note(message: str) -> None:
    """One line on stderr, in one piece: print writes a line's end by itself, and lines of several processes mix."""
    print(f"{PROGRAM}: {message}\n", end="", file=sys.stderr, flush=True)


def model_of(options: Options, *, told: bool = True) -> str:
    """The model that is meant; says so where it is only the bundled one, if that is to be `told`."""
    named = options.model or os.environ.get(MODEL_VARIABLE)
    if named:
        return named
    if told:
        note(
            "drawing with the bundled storybook miniature, which knows only its own bay. "
            f"For a real model: --model ID_OR_FOLDER or {MODEL_VARIABLE}=..., such as {EXAMPLE_MODEL}."
        )
    return str(bundled())


def chosen_generation(suited: "Generation", options: Options) -> "Generation":
    """Steps and guidance: those given, else those that `suited` has.

    Raises:
        PromptError: one given is out of range.
    """
    steps = suited.steps if options.steps is None else options.steps
    guidance = suited.guidance if options.guidance is None else options.guidance
    return replace(suited, steps=steps, guidance=guidance)


def chosen_seed(options: Options, own: int | None, label: str) -> int:
    """The first seed of a request: its `own`, else the one given, else a random one, which is told behind `label`."""
    given = options.seed if own is None else own
    if given is not None:
        return given
    seed = secrets.randbelow(RANDOM_SEEDS)
    note(f"{label}seed {seed}")
    return seed


def described(options: Options, pipe: "LongMixin", generation: "Generation") -> dict[str, object]:
    """What every file says beside prompt, seed and size: enough to make it again."""
    unused = () if "text_encoder_2" in pipe.clip_encoders else ("g_mode",)
    return {
        "steps": generation.steps,
        "guidance": generation.guidance,
        "model": options.model or os.environ.get(MODEL_VARIABLE) or "storybook (bundled)",
        "longclip": options.longclip,
        **{name: value for name, value in vars(pipe.prompt_options).items() if name not in unused},
        "software": f"longclip-diffusers {version('longclip-diffusers')}",
    }
