"""`longclip storybook`: the picture world, and the training of the bundled miniature."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory
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
        jobs: processes of one thread each, for stages side by side and for the batches of a stage alone; 1 runs one
            after another on all threads.
    """
    quiet_libraries()
    from ..training.miniature.stages import SHARED, STAGES, WAVES, Workshop, assemble

    shop = Workshop(work, seed, device)
    for wave in WAVES:
        todo = [(shop, name, STAGES[name][1]) for name in wave if not shop.stage(name).is_dir()]
        if len(todo) == 1 and todo[0][1] in SHARED and jobs > 1 and device == "cpu":
            _share(*todo[0], jobs)
        elif jobs == 1 or len(todo) == 1:
            for stage in todo:
                _run(*stage)
        elif todo:
            with start_workers(jobs) as pool:
                for done in [pool.submit(_run, *stage, line=line, threads=1) for line, stage in enumerate(todo)]:
                    done.result()
    assemble(shop, output)
    print(f"The model is in {output}. Look at a picture: longgen --model {output} 'A picture of a bay ...'")


def _run(
    shop: "Workshop",
    name: str,
    schedule: "Schedule",
    *,
    line: int = 0,
    threads: int | None = None,
    silent: bool = False,
) -> None:
    import torch

    from ..training.miniature.stages import run_stage

    if threads:
        torch.set_num_threads(threads)
    with tqdm(total=schedule.steps, desc=name.ljust(11), position=line, unit="step", disable=silent) as bar:
        for step in run_stage(shop, name, schedule):
            bar.set_postfix(loss=f"{step.loss:.4f}", refresh=False)
            bar.update(step.step - bar.n)


def _share(shop: "Workshop", name: str, schedule: "Schedule", jobs: int) -> None:
    with TemporaryDirectory() as folder, start_workers(jobs) as pool:
        meeting = Path(folder, "meeting").as_uri()
        for done in [pool.submit(_run_share, shop, name, schedule, meeting, number, jobs) for number in range(jobs)]:
            done.result()


def _run_share(shop: "Workshop", name: str, schedule: "Schedule", meeting: str, number: int, jobs: int) -> None:
    from torch import distributed

    distributed.init_process_group("gloo", init_method=meeting, rank=number, world_size=jobs)
    try:
        _run(shop, name, schedule, threads=1, silent=number > 0)
    finally:
        distributed.destroy_process_group()  # the others would wait for one that failed


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
