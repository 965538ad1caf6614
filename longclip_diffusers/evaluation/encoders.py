"""The ways to get a long prompt into an unchanged UNet, and how each one's pictures are drawn."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from ..checkpoints import load_text_encoder
from ..errors import LongClipError
from ..kv_cache import prompt_cache
from ..pipelines import StableDiffusionLongPipeline
from ..positions import CLIP_LENGTH, linear_positions
from ..sidecar import Generation
from ..text_encoder import position_table, set_position_table
from ..towers import Tower
from ..windows import Window, WindowPlan

__all__ = [
    "ENCODERS",
    "Encoder",
    "HardWindowsPipeline",
    "draw_pictures",
    "encode_texts",
    "hard_windows",
    "load_encoder",
]


def hard_windows(text: str, tokenizer: CLIPTokenizer, *, window: int = CLIP_LENGTH) -> WindowPlan:
    """The text's ids in windows of `window - 2`, each full but the last, wherever that cuts.

    So do A1111 (but for its look back to a comma), sd_embed, and compel with SplitLongTextMode.BRUTAL.
    """
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    size, bos, eos = window - 2, tokenizer.bos_token_id, tokenizer.eos_token_id
    parts = [ids[start : start + size] for start in range(0, len(ids), size)] or [[]]
    return WindowPlan(
        tuple(Window((bos, *part, eos), str(tokenizer.decode(part)), cut="full") for part in parts), window
    )


class HardWindowsPipeline(StableDiffusionLongPipeline):
    """Reads every prompt in hard windows."""

    def _plans(self, tower: Tower, texts: list[str], window: int, context: str | None = None) -> list[WindowPlan]:
        return [hard_windows(text, tower.tokenizer, window=window) for text in texts]


Opener = Callable[[Path, Path | None], DiffusionPipeline]


@dataclass(frozen=True)
class Encoder:
    """How a pipeline is opened from a model's folder and a fine-tuned encoder's; `arm` names the fine-tuning."""

    open: Opener
    arm: str = ""


def _long(
    longclip: str | None,
    context: str = "none",
    pipeline: type[StableDiffusionLongPipeline] = StableDiffusionLongPipeline,
) -> Opener:
    # Window and context are said, whatever the model's sidecar prefers.
    return lambda model, _: pipeline.from_pretrained(model, longclip=longclip, window="auto", context=context)


def _trained(context: str) -> Opener:
    return lambda model, trained: StableDiffusionLongPipeline.from_pretrained(
        model, longclip=trained, window="auto", context=context
    )


def _linear(model: Path, _: Path | None) -> DiffusionPipeline:
    encoder = load_text_encoder(model, dtype=torch.float32)
    stretched = set_position_table(copy.deepcopy(encoder), linear_positions(position_table(encoder).detach()))
    return StableDiffusionLongPipeline.from_pretrained(
        model, text_encoder=stretched, longclip=None, window="auto", context="none"
    )


ENCODERS: dict[str, Encoder] = {
    "truncated": Encoder(lambda model, _: StableDiffusionPipeline.from_pretrained(model)),
    "windows": Encoder(_long(None, pipeline=HardWindowsPipeline)),
    "windows_sentence": Encoder(_long(None)),
    "windows_context": Encoder(_long(None, "related")),
    "kps": Encoder(_long("stretch")),
    "linear": Encoder(_linear),
    "longclip": Encoder(_trained("none"), arm="longclip"),
    "ours": Encoder(_trained("none"), arm="ours"),
    "ours_context": Encoder(_trained("related"), arm="ours"),
    "long": Encoder(lambda model, _: StableDiffusionLongPipeline.from_pretrained(model)),
}


def load_encoder(model: Path, encoder: str, *, trained: Path | None = None, device: str = "cpu") -> DiffusionPipeline:
    """The model's pipeline, read through one of `ENCODERS`; the UNet is the same file for all of them.

    `truncated` is stock diffusers; `windows`, `windows_sentence` and `windows_context` read with the stock encoder in
    windows of 77; `kps` and `linear` stretch its positions without training; `long` is what the model itself names.

    Args:
        trained: the fine-tuned encoder of `longclip`, `ours` and `ours_context`.

    Raises:
        LongClipError: an unknown encoder, one that needs `trained`, or no model there.
    """
    if not (model / "model_index.json").is_file():
        raise LongClipError(
            f"{model} is no diffusers folder (it has no model_index.json). Give one, or none for the bundled model."
        )
    if encoder not in ENCODERS:
        raise LongClipError(f"There is no encoder {encoder!r}; choose from {', '.join(ENCODERS)}.")
    if ENCODERS[encoder].arm and trained is None:
        raise LongClipError(f"Encoder {encoder!r} is fine-tuned first: measure it with --contest.")
    pipe = ENCODERS[encoder].open(model, trained)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


@torch.no_grad()
def encode_texts(
    pipe: DiffusionPipeline, texts: Sequence[str], *, batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Numbers of texts and what a UNet reads of them (B, L, D), B up to `batch_size`; fewest rows first.

    Texts of equally many rows L go together, so that none is given rows which it would not have by itself.
    """
    groups: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
    for number, text in enumerate(texts):
        states = pipe.encode_prompt(text, pipe.device, 1, False)[0]
        groups[states.shape[1]].append((number, states))
    for _, group in sorted(groups.items()):
        for start in range(0, len(group), batch_size):
            numbers, states = zip(*group[start : start + batch_size], strict=True)
            yield list(numbers), torch.cat(states)


@torch.no_grad()
def draw_pictures(
    pipe: DiffusionPipeline, texts: Sequence[str], generation: Generation, *, seed: int = 0, batch_size: int = 20
) -> Iterator[tuple[int, Image.Image]]:
    """Number and picture of each text, not in order: each from its own seed, so that every encoder starts from the
    same noise, and with the rows that it has by itself, so that no picture depends on the others."""
    settings = {"num_inference_steps": generation.steps, "guidance_scale": generation.guidance}
    negatives: dict[int, Tensor] = {}
    with prompt_cache(pipe.unet):
        for numbers, states in encode_texts(pipe, texts, batch_size=batch_size):
            rows = states.shape[1]
            if rows not in negatives:
                negatives[rows] = pipe.encode_prompt(None, pipe.device, 1, True, "", prompt_embeds=states[:1])[1]
            pictures = pipe(
                prompt_embeds=states,
                negative_prompt_embeds=negatives[rows].expand_as(states),
                generator=[torch.Generator().manual_seed(seed + number) for number in numbers],
                **settings,
            ).images
            yield from zip(numbers, pictures, strict=True)
