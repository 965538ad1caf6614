"""Files in ComfyUI's model folders -> core's own CLIP and checkpoint objects, with tables as long as the files'."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.files import read_shapes, read_tensors
from ..checkpoints.formats import POSITION_TABLE, RULES, VISION_NAMES, layer_count, read_layout, some_of
from ..errors import CheckpointError
from .stretching import set_max_length

__all__ = ["TowerFile", "check_kind", "load_checkpoint_file", "load_clip_files", "read_tower", "table_lengths"]

T5 = "t5"
_WIDTHS = {768: "l", 1024: "h", 1280: "g"}
_LAYERS = {"l": (12,), "h": (23, 24), "g": (32,)}  # SD 2.x checkpoints leave out H's last layer, which is not read
_NAMES = {"l": "CLIP-L (width 768)", "h": "CLIP-H (width 1024)", "g": "CLIP-G (width 1280)", T5: "T5"}
_T5_KEY = "encoder.block.0.layer.0.SelfAttention.q.weight"
# What each kind of model reads, and core's name for it (comfy.sd.CLIPType).
_KINDS: dict[str, tuple[str, tuple[frozenset[str], ...]]] = {
    "sd15": ("STABLE_DIFFUSION", (frozenset("l"),)),
    "sd2": ("STABLE_DIFFUSION", (frozenset("h"),)),
    "sdxl": ("STABLE_DIFFUSION", (frozenset("lg"),)),
    "sd3": ("SD3", (frozenset("lg"), frozenset({"l", T5}), frozenset({"g", T5}), frozenset("l"), frozenset("g"))),
    "flux": ("FLUX", (frozenset({"l", T5}),)),
}
_TABLE = re.compile(r"(.*\.)?(positional_embedding|embeddings\.position_embedding\.weight)")
_SAFETENSORS = (".safetensors", ".sft")


@dataclass(frozen=True)
class TowerFile:
    """One text encoder as a file holds it: `tower` is "l", "g", "h" or "t5", `rows` of its position table (T5: 0)."""

    name: str
    tower: str
    rows: int
    layout: str
    tensors: dict[str, Tensor]

    def __str__(self) -> str:
        length = f"{self.rows} tokens, " if self.rows else ""
        return f"{_NAMES[self.tower]}: {length}{self.layout}, from {self.name}"


def load_clip_files(names: Sequence[str], *, kind: str, on_cpu: bool = False) -> tuple[Any, str]:
    """(core's CLIP object of the files in models/text_encoders, a report with a line for each).

    Raises:
        CheckpointError: a file that is no CLIP or T5, incomplete, or not of the `kind` of model.
    """
    files = [read_tower(_path("text_encoders", name)) for name in names]
    check_kind(kind, files)
    clip = _core_clip(files, kind, on_cpu)
    clip.patcher.cached_patcher_init = (_reload_patcher, (tuple(names), kind, on_cpu))
    return clip, "\n".join(map(str, files))


def load_checkpoint_file(name: str) -> tuple[Any, Any, Any]:
    """(model, CLIP, VAE) of a file in models/checkpoints, whatever the length of its CLIP.

    Raises:
        CheckpointError: the file is no safetensors file though it is called so.
    """
    import comfy.sd
    import folder_paths

    path = _path("checkpoints", name)
    # Core writes safetensors only; in an older format nobody can have saved a long CLIP.
    lengths = table_lengths(read_shapes(path)) if _is_safetensors(path) else {}
    model, clip, vae = comfy.sd.load_checkpoint_guess_config(
        str(path),
        output_vae=True,
        output_clip=True,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        te_model_options=_model_options(lengths),
    )[:3]
    if clip is not None:
        set_max_length(
            clip, {tower: rows for tower, rows in lengths.items() if hasattr(clip.tokenizer, f"clip_{tower}")}
        )
    return model, clip, vae


def read_tower(path: Path) -> TowerFile:
    """The text encoder in a file, under the names that core loads; both tables of a Long-CLIP file in one.

    Raises:
        CheckpointError: unreadable, no text encoder of Stable Diffusion's, or incomplete.
    """
    if _is_safetensors(path) and _T5_KEY in read_shapes(path):
        return TowerFile(path.name, T5, 0, "T5", _read_by_core(path))
    try:
        layout = read_layout(read_tensors(path))
    except CheckpointError as error:
        raise error if str(path) in str(error) else CheckpointError(f"{path.name}: {error}") from error
    if unknown := [key for key in layout.unknown if not key.startswith(VISION_NAMES)]:
        raise CheckpointError(
            f"{path.name} holds {some_of(unknown)}, which no CLIP has: scaled or quantised weights, which "
            "ComfyUI's own CLIP loader reads, or another architecture."
        )
    tensors = {
        key: value for key, value in layout.tensors.items() if key.startswith(("text_model.", "text_projection."))
    }
    tower = _tower_of(path.name, tensors)
    return TowerFile(path.name, tower, len(tensors[POSITION_TABLE]), layout.name, tensors)


def check_kind(kind: str, files: Sequence[TowerFile]) -> None:
    """Raise CheckpointError unless the files are the encoders that this kind of model reads."""
    given = frozenset(file.tower for file in files)
    wanted = _KINDS[kind][1]
    if given in wanted and len(given) == len(files):
        return
    choices = ", or ".join(" and ".join(_NAMES[tower] for tower in sorted(towers, reverse=True)) for towers in wanted)
    found = " and ".join(f"{file.name} ({_NAMES[file.tower]})" for file in files)
    raise CheckpointError(
        f"type {kind} reads {choices}; the files chosen are {found}. Choose the type that fits the files, or the file "
        "that is missing in clip_name2."
    )


def table_lengths(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Rows of each text tower's position table in a whole checkpoint; the table's width tells the tower."""
    return {
        _WIDTHS[shape[1]]: shape[0]
        for key, shape in shapes.items()
        if _TABLE.fullmatch(key) and "visual" not in key and "vision" not in key and shape[1:] and shape[1] in _WIDTHS
    }


def _tower_of(name: str, tensors: Mapping[str, Tensor]) -> str:
    width = tensors[POSITION_TABLE].shape[1] if POSITION_TABLE in tensors else None
    if width not in _WIDTHS:
        known = "it has no position table" if width is None else f"it is {width} wide"
        hint = " (ViT-B: take longclip-L instead)" if width == 512 else ""
        raise CheckpointError(
            f"{name} is a CLIP, but {known}{hint}. Stable Diffusion reads {', '.join(list(_NAMES.values())[:3])}."
        )
    tower, layers = _WIDTHS[width], layer_count(tensors, "text_model")
    names = ("text_model.", "text_projection.") if tower == "g" else ("text_model.",)  # its pooled vector is projected
    parts = [part for rule in RULES for part in rule.ours if part.startswith(names)]
    missing = {part.format(n=number) for part in parts for number in range(layers)} - tensors.keys()
    if missing or layers not in _LAYERS[tower]:
        lacks = f"lacks {min(missing)}" if missing else f"has {layers} layers"
        raise CheckpointError(f"{name} is {_NAMES[tower]}, but {lacks}: it is incomplete. Get an undamaged copy.")
    return tower


def _core_clip(files: Sequence[TowerFile], kind: str, on_cpu: bool, **core: Any) -> Any:
    import comfy.sd
    import folder_paths

    lengths = {file.tower: file.rows for file in files if file.tower != T5}
    options = _model_options(lengths)
    if on_cpu:
        options["load_device"] = options["offload_device"] = torch.device("cpu")
    clip = comfy.sd.load_text_encoder_state_dicts(
        [file.tensors for file in files],
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        clip_type=getattr(comfy.sd.CLIPType, _KINDS[kind][0]),
        model_options=options,
        **core,
    )
    set_max_length(clip, lengths)
    return clip


def _reload_patcher(names: Sequence[str], kind: str, on_cpu: bool, **core: Any) -> Any:
    # Core calls this where it needs the weights again, for another device say.
    return _core_clip([read_tower(_path("text_encoders", name)) for name in names], kind, on_cpu, **core).patcher


def _model_options(lengths: Mapping[str, int]) -> dict[str, Any]:
    return {f"clip_{tower}_model_config": {"max_position_embeddings": rows} for tower, rows in lengths.items()}


def _read_by_core(path: Path) -> dict[str, Tensor]:
    # Core knows the quantised forms that T5 files come in; converting the old ones is newer than the rest we use.
    import comfy.utils

    tensors, metadata = comfy.utils.load_torch_file(str(path), safe_load=True, return_metadata=True)
    if hasattr(comfy.utils, "convert_old_quants"):
        tensors, _ = comfy.utils.convert_old_quants(tensors, model_prefix="", metadata=metadata)
    return tensors


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() in _SAFETENSORS


def _path(folder: str, name: str) -> Path:
    import folder_paths

    return Path(folder_paths.get_full_path_or_raise(folder, name))
