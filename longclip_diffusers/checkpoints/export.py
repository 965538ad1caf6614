"""Any checkpoint -> a layout that others read; written beside the target and moved there only when complete."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import CheckpointError
from ..text_encoder import CLIP_VOCABULARY, inner_text_model, num_positions
from .checkpoint import Checkpoint, read_checkpoint
from .formats import to_openai
from .load import model_of, projected_text_encoder_of, text_encoder_of

__all__ = ["Layout", "convert_checkpoint"]

BIGG_WIDTH = 1280
OURS = ("text_encoder", "tokenizer")  # the folders that a folder which is written may hold

Layout = Literal["hf", "openai", "safetensors", "diffusers"]


def convert_checkpoint(
    source: str | Path,
    out: str | Path,
    *,
    to: Layout = "hf",
    overwrite: bool = False,
    **reading: Any,
) -> Path:
    """Write `source` to `out` in another layout and return `out`.

    `to`:
        hf: folder of a CLIPModel, or of its text encoder where there is no image tower; with a tokenizer.
        openai: .pt under OpenAI's names, a long table as both of Long-CLIP's; for the official code.
        safetensors: one file of the text tower under `text_model.` names; for ComfyUI's models/text_encoders.
        diffusers: folder of `text_encoder/` and `tokenizer/`; opens with `longclip=`.
    The tokenizer is CLIP's own at the table's length, and is left out where the vocabulary is another.

    Args:
        overwrite: replace an `out` that exists: a file, or a folder that holds an encoder and nothing else.
        **reading: `stretch`, `hidden_act` and the hub options of `load_text_encoder`.

    Raises:
        CheckpointError: the source cannot be read, `out` exists, or it cannot be written.
    """
    out = Path(out).expanduser()
    _check_target(out, overwrite)
    checkpoint = read_checkpoint(source, **reading)
    # Built whatever is written, since building checks every weight.
    model = model_of(checkpoint) if to in ("hf", "openai") else _text_encoder_of(checkpoint)
    with _draft_of(out) as draft:
        if to == "openai":
            torch.save(to_openai(checkpoint.tensors), draft)
        elif to == "safetensors":
            save_file(_text_tower(checkpoint), draft, metadata={"format": "pt"})
        else:
            model.save_pretrained(draft if to == "hf" else draft / "text_encoder")
            _save_tokenizer(model, draft if to == "hf" else draft / "tokenizer")
    return out


def _text_encoder_of(checkpoint: Checkpoint) -> PreTrainedModel:
    # As pipelines hold it: of bigG alone the pooled vector is projected, which SDXL and SD3 read.
    projects = "text_projection.weight" in checkpoint.tensors and checkpoint.text_config().hidden_size == BIGG_WIDTH
    return projected_text_encoder_of(checkpoint) if projects else text_encoder_of(checkpoint)


def _text_tower(checkpoint: Checkpoint) -> dict[str, Tensor]:
    wanted = ("text_model.", "text_projection.")
    tower = {key: tensor for key, tensor in checkpoint.tensors.items() if key.startswith(wanted)}
    # Queries, keys and values may still be slices of one tensor, which safetensors refuses.
    return {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in tower.items()}


def _save_tokenizer(model: PreTrainedModel, folder: Path) -> None:
    from ..tokenizer import load_tokenizer

    if inner_text_model(model).config.vocab_size == CLIP_VOCABULARY:  # type: ignore[union-attr]
        load_tokenizer(max_length=num_positions(model)).save_pretrained(folder)


def _check_target(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise CheckpointError(
            f"{out} exists already. Give another name, or --overwrite (overwrite=True) to replace it."
        )
    if not out.is_dir():
        return
    if not any((out / name).exists() for name in ("config.json", "text_encoder")):
        raise CheckpointError(f"{out} is a folder that holds no model, so it is not replaced. Give another name.")
    if others := sorted(each.name for each in out.iterdir() if each.is_dir() and each.name not in OURS):
        raise CheckpointError(
            f"{out} holds {', '.join(others)} beside an encoder, so it is not replaced. Give the name of a new folder, "
            "and that to longclip=."
        )


@contextmanager
def _draft_of(out: Path) -> Iterator[Path]:
    """A path beside `out` to write to; it takes `out`'s place if the block succeeds and vanishes if it does not."""
    draft = out.with_name(f".{out.name}.{uuid.uuid4().hex}.part")  # same disk, so that moving it is one step
    aside = draft.with_suffix(".old")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        if out.exists():
            out.replace(aside)
        draft.replace(out)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save reports a full disk as RuntimeError
        raise CheckpointError(f"{out} cannot be written: {error}") from error
    finally:
        _remove(draft)
        if out.exists():
            _remove(aside)
        elif aside.exists():
            aside.replace(out)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()
