"""`longclip storybook`: the picture world, and the training of the bundled miniature."""

import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tqdm.auto import tqdm
from tyro.conf import Positional, arg

from .exits import quiet_libraries
from .workers import start_workers

if TYPE_CHECKING:
    from ..training.loop import Schedule
    from ..training.miniature.stages import Workshop

__all__ = ["verbs"]


def train(
    output: Path = Path("runs/storybook/model"),
    *,
    work: Path = Path("runs/storybook"),
    seed: int = 0,
    device: str = "cpu",
    jobs: int = 2,
) -> None:
    """Train the miniature Stable Diffusion and its long text encoder from a seed; goes on where it stopped.

    Args:
        output: folder of the finished model, a diffusers folder in fp16.
        work: folder of the stages, their resume files, logs and sample pictures.
        seed: everything that is drawn follows from it.
        device: cpu or cuda.
        jobs: processes, for stages that do not need each other; 1 runs one stage after another, with the same result.
            A process has one thread; where it trains the CLIP's text tower or the UNet, two share each batch.
    """
    quiet_libraries()
    from ..training.miniature.stages import STAGES, WAVES, Workshop, assemble

    shop = Workshop(work, seed, device)
    shop.claim()
    for chains in WAVES:
        plans = [{name: STAGES[name][1] for name in chain if not shop.stage(name).is_dir()} for chain in chains]
        with start_workers(jobs) as pool:
            for done in [pool.submit(_run, shop, plan, line) for line, plan in enumerate(plans) if plan]:
                done.result()
    assemble(shop, output)
    print(f"The model is in {output}. Look at a picture: longgen --model {output} 'A picture of a bay ...'")


def _run(shop: "Workshop", plan: "dict[str, Schedule]", line: int) -> None:
    import torch

    from ..training.miniature.stages import run_stage

    torch.set_num_threads(1)  # with more, sums are rounded in another order
    for name, schedule in plan.items():
        with tqdm(total=schedule.steps, desc=name.ljust(13), position=line, unit="step") as bar:
            for step in run_stage(shop, name, schedule):
                bar.set_postfix(loss=f"{step.loss:.4f}", refresh=False)
                bar.update(step.step - bar.n)


def scene(
    seed: Positional[int] = 0,
    *,
    output: Path = Path("scene.png"),
    text: Annotated[str, arg(help="short, long or chapter")] = "long",
) -> None:
    """Save the true picture of a scene and print it in words, to try `longgen` with.

    Args:
        seed: number of the scene.
        output: the picture, PNG.
    """
    from ..errors import LongClipError
    from ..storybook.captions import chapter, long_caption, short_caption
    from ..storybook.render import render
    from ..storybook.scene import draw_scene

    kinds = {"short": short_caption, "long": long_caption, "chapter": chapter}
    if text not in kinds:
        raise LongClipError(f"--text is {text!r}; choose from {', '.join(kinds)}.")
    rng = random.Random(f"{seed}/scene")
    drawn = draw_scene(rng)
    render(drawn).save(output)
    print(kinds[text](drawn, rng))


def tokenizer(wheel: Positional[Path], output: Positional[Path], *, length: int = 77) -> None:
    """Build CLIP's tokenizer folder from the merges that the open_clip_torch wheel ships.

    Args:
        wheel: from `pip download --no-deps open_clip_torch`; it is read, not installed.
        output: folder for tokenizer.json and tokenizer_config.json.
        length: the longest text in tokens.
    """
    from ..storybook.vocabulary import build_tokenizer, read_merges

    build_tokenizer(read_merges(wheel), max_length=length).save_pretrained(output)
    print(f"CLIP's tokenizer at length {length} is in {output}.")


verbs = {"train": train, "scene": scene, "tokenizer": tokenizer}
