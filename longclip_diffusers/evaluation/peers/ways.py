"""The ways themselves: each gives the UNet's conditioning of a prompt and of its negative, of equal length."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from torch import Tensor

from ...pipelines import AutoLongPipeline
from .checkouts import find_in_checkout, import_file, import_package
from .pipes import Pipes

__all__ = ["Encode", "Family", "Way", "describe_error", "find_ways"]

# Prompt and negative -> (1, L, D) each, of SDXL then both pooled vectors (1, P).
Encode = Callable[[str, str], tuple[Tensor, ...]]
Family = Literal["sd15", "sdxl"]
SD_EMBED = "github.com/xhinker/sd_embed"
LPW = "github.com/huggingface/diffusers"
REPAIRED = "_repaired"  # behind the name of a way whose text encoder has the attribute that transformers removed
ERROR_WIDTH = 100


@dataclass(frozen=True)
class Way:
    """`bind` makes the function that encodes, for some pipelines; it may fail as another project's code may."""

    name: str
    bind: Callable[[Pipes], Encode]


def find_ways(sd_embed: Path | None = None, lpw: Path | None = None, *, family: Family = "sd15") -> list[Way]:
    """Stock diffusers, the peers that are at hand, and ours. The code in the given folders is run when a way is bound.

    A peer of SD 1.x from a checkout is there twice: as it is, and "_repaired": given a text encoder with `text_model`,
    which both ask for and which transformers 5.6 removed. For SDXL they do not ask for it.

    Args:
        sd_embed: a checkout of xhinker/sd_embed, or the package in it.
        lpw: lpw_stable_diffusion.py (of SDXL lpw_stable_diffusion_xl.py), or a checkout of diffusers, or a folder in it
            that leads to the file.

    Raises:
        LongClipError: a folder that does not hold what it should.
    """
    xl = family == "sdxl"
    ways = [
        Way("truncated", lambda pipes: _encode_prompt(pipes.stock)),
        Way("compel", _compel_xl if xl else _compel),
    ]
    peer = _peer_xl if xl else _peer
    if sd_embed is not None:
        name, function = "embedding_funcs.py", f"get_weighted_text_embeddings_{family}"
        file = find_in_checkout(
            sd_embed, name, ("src/sd_embed", "sd_embed", ""), option="--sd-embed", source=SD_EMBED
        ).resolve()
        ways += peer("sd_embed", cache(partial(import_package, file.parent, file.stem, function)))
    if lpw is not None:
        name = "lpw_stable_diffusion_xl.py" if xl else "lpw_stable_diffusion.py"
        function = "get_weighted_text_embeddings_sdxl" if xl else "get_weighted_text_embeddings"
        file = find_in_checkout(lpw, name, ("examples/community", "community", ""), option="--lpw", source=LPW)
        ways += peer("lpw", cache(partial(import_file, file, function)))
    return [
        *ways,
        Way("windows_sentence", lambda pipes: _windows(pipes.stock, "none")),
        Way("windows_context", lambda pipes: _windows(pipes.stock, "related")),
        Way("long", lambda pipes: _windows(pipes.long, "none")),
        Way("long_context", lambda pipes: _windows(pipes.long, "related")),
    ]


def describe_error(error: Exception) -> str:
    """An exception in one short line."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line if len(line) <= ERROR_WIDTH else f"{line[:ERROR_WIDTH]} ..."


def _encode_prompt(pipe: Any) -> Encode:
    def encode(prompt: str, negative: str) -> tuple[Tensor, ...]:
        given = {"prompt": prompt, "negative_prompt": negative, "device": pipe.device}
        encoded: tuple[Tensor, ...] = pipe.encode_prompt(
            **given, num_images_per_prompt=1, do_classifier_free_guidance=True
        )
        return encoded

    return encode


def _windows(pipe: Any, context: str) -> Encode:
    return _encode_prompt(AutoLongPipeline.from_pipe(pipe, context=context))


def _compel(pipes: Pipes) -> Encode:
    from compel import Compel

    compel = Compel(pipes.stock.tokenizer, pipes.stock.text_encoder, truncate_long_prompts=False)

    def encode(prompt: str, negative: str) -> tuple[Tensor, ...]:
        return tuple(compel.pad_conditioning_tensors_to_same_length([compel(prompt), compel(negative)]))

    return encode


def _compel_xl(pipes: Pipes) -> Encode:
    from compel import CompelForSDXL

    compel = CompelForSDXL(pipes.stock)

    def encode(prompt: str, negative: str) -> tuple[Tensor, ...]:
        made = compel(prompt, negative_prompt=negative)
        return made.embeds, made.negative_embeds, made.pooled_embeds, made.negative_pooled_embeds

    return encode


def _peer(name: str, load: Callable[[], Callable[..., Any]]) -> list[Way]:
    # Both peers' functions take a pipeline, a prompt and a negative, and give both embeddings.
    return [
        Way(name, lambda pipes: partial(load(), pipes.stock)),
        Way(name + REPAIRED, lambda pipes: partial(load(), _old_style(pipes.stock))),
    ]


def _peer_xl(name: str, load: Callable[[], Callable[..., Any]]) -> list[Way]:
    # Here both call the negative by one name, and give embeddings and pooled vectors in the pipeline's order.
    def bind(pipes: Pipes) -> Encode:
        return lambda prompt, negative: load()(pipes.stock, prompt=prompt, neg_prompt=negative)

    return [Way(name, bind)]


def _old_style(pipe: Any) -> SimpleNamespace:
    return SimpleNamespace(tokenizer=pipe.tokenizer, text_encoder=_OldStyle(pipe.text_encoder), device=pipe.device)


class _OldStyle:
    """A text encoder with the `text_model` of transformers < 5.6; not an alias on the encoder itself, see style.md."""

    def __init__(self, text_encoder: Any) -> None:
        self.text_model = text_encoder

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.text_model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.text_model, name)
