"""`longclip bench peers`: other ways to get a long prompt into an unchanged Stable Diffusion 1.x or XL, and ours."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tqdm.auto import tqdm

from ..errors import LongClipError
from .exits import quiet_libraries

if TYPE_CHECKING:
    from ..evaluation.peers import Pipes, Reading, Way
    from ..evaluation.report import Row

__all__ = ["peers"]

SIZE = 512  # pixels of the picture whose denoising step is timed, for SD 1.5's shape
TINY_SIZE = 64


def peers(
    *,
    sd_embed: Path | None = None,
    lpw: Path | None = None,
    family: Literal["sd15", "sdxl"] = "sd15",
    model: Path | None = None,
    num_words: int = 2000,
    repeats: int = 3,
    full: bool = False,
    shape: Literal["full", "tiny"] = "full",
    num_scenes: int = 50,
    seed: int = 0,
    device: str = "cpu",
    json: Path = Path("outputs/peers.json"),
) -> None:
    """What compel, sd_embed and diffusers' lpw pipeline drop, misread or fail on; their cost; their detail recall.

    The code in the folders given with --sd-embed and --lpw is imported and run: give only what you trust. A peer
    that is not given is left out; one that fails is a row with its error.

    Args:
        sd_embed: a checkout of github.com/xhinker/sd_embed (it needs the package lark as well).
        lpw: diffusers' lpw_stable_diffusion.py (of SDXL lpw_stable_diffusion_xl.py), or a checkout of
            github.com/huggingface/diffusers.
        family: sd15, or sdxl with its two text encoders: that one draws no scenes, as no storybook model is of it.
        model: a storybook model that draws the scenes; the bundled one if not given.
        num_words: words of the chapter that is read and timed.
        repeats: how often each way is timed, all of them in turn; the fastest counts, in seconds of the processor where
            it does the work. 0 leaves the timing out.
        full: time a denoising step beside them, of SD 1.5's UNet at 512 pixels: the slowest of all on a CPU.
        shape: of the models that are timed, random weights: the family's own, or a toy's.
        num_scenes: storybook scenes to draw each way, 2 or more; 0 leaves the recall out.
        seed: of random weights, scenes and noise.
        device: cpu or cuda.
        json: where the rows and the sha256 of the model's files go.
    """
    if num_words < 1 or repeats < 0 or num_scenes < 0 or num_scenes == 1:
        raise LongClipError(
            f"num_words={num_words}, repeats={repeats}, num_scenes={num_scenes}: expected 1 word or more, repeats of 0 "
            "or more, and scenes of 2 or more, or 0."
        )
    if family == "sdxl" and full:
        raise LongClipError("--full times a step of SD 1.5's UNet: leave it out with --family sdxl.")
    quiet_libraries()
    from ..evaluation.peers import ENCODERS, find_ways, open_pipes, random_pipes
    from ..evaluation.report import hash_model, table, write_json
    from ..models import bundled

    ways = find_ways(sd_embed, lpw, family=family)
    make = partial(random_pipes, seed=seed, device=device)
    readings, rows = _read(ways, make(ENCODERS[family]["tiny"]), num_words)
    for option, given in (("--sd-embed", sd_embed), ("--lpw", lpw)):
        if given is None:
            print(f"Left out: {option} was not given.")
    if repeats:
        unet: Literal["sd15", "tiny"] = "sd15" if shape == "full" else "tiny"
        timed = make(ENCODERS[family][shape])
        cost = _time(_whole(ways, readings), timed, num_words, repeats, unet if full else None)
        print(f"\n{table(cost)}")
        rows += cost
    errors = {f"{each.way}, {each.text}": each.error for each in readings if each.error}
    hashes: dict[str, str] = {}
    if family == "sdxl":
        num_scenes = 0
        print("No scenes drawn: no storybook model is an SDXL.")
    if num_scenes:
        folder = model or bundled()
        recall = _recall(ways, open_pipes(folder, device=device), folder, num_scenes, seed, errors)
        print(f"\n{table(recall)}")
        rows, hashes = rows + recall, hash_model(folder)
    settings = {"num_words": num_words, "repeats": repeats, "shape": shape, "num_scenes": num_scenes, "seed": seed}
    write_json(json, rows, hashes, family=family, **settings, errors=errors)
    print(f"Rows in {json}.")


def _read(ways: Sequence["Way"], pipes: "Pipes", num_words: int) -> tuple[list["Reading"], list["Row"]]:
    from ..evaluation.peers import peer_texts, read_texts, reading_rows, reading_table

    texts = peer_texts(num_words)
    total = len(ways) * len(texts)
    readings = list(tqdm(read_texts(ways, pipes, texts), total=total, desc="reading", unit="text"))
    print(reading_table(readings))
    return readings, reading_rows(readings)


def _whole(ways: Sequence["Way"], readings: Sequence["Reading"]) -> list["Way"]:
    """Those that read the whole chapter: the others' time is that of another text."""
    from ..evaluation.peers import CHAPTER

    names = {each.way for each in readings if each.text == CHAPTER and not each.error and not each.dropped}
    return [way for way in ways if way.name in names]


def _time(
    ways: Sequence["Way"], pipes: "Pipes", num_words: int, repeats: int, unet: Literal["sd15", "tiny"] | None
) -> list["Row"]:
    import torch

    from ..evaluation.peers import UNET_STEP, chapter, cost_rows, time_ways
    from ..evaluation.speed import random_unet, unet_step
    from ..positions import CLIP_LENGTH

    others = {}
    if unet is not None:
        size = SIZE if unet == "sd15" else TINY_SIZE
        others[UNET_STEP] = unet_step(random_unet(unet, str(pipes.stock.device), torch.float32), CLIP_LENGTH, size, 2)
    rounds = time_ways(ways, pipes, chapter(num_words), repeats=repeats, others=others)
    timed: dict[str, list[float]] = {}
    for each in tqdm(rounds, total=repeats, desc="timing", unit="round"):
        for name, seconds in each.items():
            timed.setdefault(name, []).append(seconds)
    return cost_rows(timed, ("compel", "sd_embed", "sd_embed_repaired", UNET_STEP))


def _recall(
    ways: Sequence["Way"], pipes: "Pipes", folder: Path, num_scenes: int, seed: int, errors: dict[str, str]
) -> list["Row"]:
    """The rows of every way that draws; what the others failed with goes into `errors`."""
    from ..evaluation.detail import describe_scenes, recall_rows, score
    from ..evaluation.peers import describe_error, draw_encoded
    from ..sidecar import read_generation
    from ..storybook.checker import read_picture

    pairs = describe_scenes(num_scenes, seed=seed)
    texts, generation = [str(caption) for _, caption in pairs], read_generation(folder)
    rows = []
    for way in ways:
        try:
            drawn = draw_encoded(way, pipes, texts, generation, seed=seed)
            found = [read_picture(each) for each in tqdm(drawn, total=num_scenes, desc=way.name, unit="picture")]
        except Exception as error:  # another project's code: whatever it raises is the finding
            errors[f"{way.name}, pictures"] = describe_error(error)
            print(f"{way.name} draws nothing: {describe_error(error)}")
            continue
        rows += recall_rows(way.name, score(pairs, found))
    return rows
