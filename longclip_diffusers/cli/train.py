"""`longclip train`: fine-tune a CLIP on pictures and texts, or lengthen a text encoder from plain text."""

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tqdm.auto import tqdm
from tyro.conf import OmitArgPrefixes, arg

from ..training.recipe import Recipe, read_recipe
from .exits import quiet_libraries

if TYPE_CHECKING:
    from ..training.finetune import Evaluation

__all__ = ["Options", "defaults", "train"]


@dataclass(frozen=True)
class Options:
    """Fine-tune a CLIP on pictures and long captions, or lengthen a text encoder from plain text (objective anchor).

    longclip train --preset storybook --steps 300 tries it out on the bundled miniature.
    """

    recipe: OmitArgPrefixes[Recipe] = field(default_factory=Recipe)

    preset: Annotated[str, arg(metavar="default|official|storybook")] = "default"
    """Values to start from: the anchor, then both losses; what the released Long-CLIP code does; or the first at the
    miniature's sizes and rates."""

    config: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """A TOML file of recipe fields, taken over the preset's; options given here win over both."""

    device: Annotated[str, arg(metavar="auto|cpu|cuda")] = "auto"
    """Where to train; auto takes CUDA where there is one."""

    dry_run: bool = False
    """Print parameters, steps, memory and time, and train nothing."""

    plot: bool = False
    """Draw the curves of the run in --output, finished or not, and train nothing."""


def defaults(arguments: Sequence[str]) -> Options:
    """Options with the values of the preset and of the file that the arguments name."""
    early = ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", default="default")
    early.add_argument("--config", default=None)
    given, _ = early.parse_known_args(arguments)
    return Options(read_recipe({}, preset=given.preset, file=given.config))


def train(options: Options) -> None:
    """Run the recipe to its end, showing every step; or look at a run without training."""
    quiet_libraries()
    recipe = options.recipe
    if options.plot:
        from ..training.runlog import plot_curves

        print(f"The curves are in {plot_curves(recipe.output)}.")
        return
    from ..training.processes import join_processes

    process = join_processes(options.device)
    if options.dry_run:
        from ..training.estimate import estimate

        print(estimate(recipe, device=process.device))
        return
    from ..training.finetune import Evaluation, fine_tune

    score = ""
    with tqdm(total=recipe.steps, unit="step", disable=not process.is_first) as bar:
        for event in fine_tune(recipe, device=process.device):
            if isinstance(event, Evaluation):
                score = f" Score of the last evaluation: {event.values.get('score', 0):.4f}."
                if process.is_first:
                    bar.write(_evaluation_line(event))
            else:
                bar.set_postfix(_shown(event.measured), refresh=False)
                bar.update(event.step - bar.n)
    if process.is_first:
        print(f"Finished.{score} Open it with longclip={Path(recipe.output) / 'best'}")


def _shown(measured: Any) -> dict[str, str]:
    names = {"loss": "loss", "kept_variance": "kept", "samples_per_second": "samples/s", "data_seconds": "data s"}
    return {label: f"{measured[name]:.3g}" for name, label in names.items() if measured.get(name) is not None}


def _evaluation_line(found: "Evaluation") -> str:
    values = "  ".join(f"{name} {value:.4f}" for name, value in found.values.items())
    return f"step {found.step}: {values}{'  (best so far)' if found.best else ''}"
