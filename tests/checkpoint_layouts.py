"""One Long-CLIP of toy size in every layout that people have it in: makers by name, each writes it into a folder."""

import json
from collections.abc import Callable
from pathlib import Path

import checkpoint_makers as makers
import torch
from safetensors.torch import save_file
from torch import Tensor


def saved(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def flat(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("text_model."): value for key, value in makers.text_only(state).items()}


def wanted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's weights, flat names, of a state in OpenAI's names."""
    return flat(makers.transformers_state(state))


def official_pt(folder: Path) -> Path:
    return saved(makers.longclip_state(), folder / "longclip-B.pt")


def official_safetensors(folder: Path) -> Path:
    save_file(makers.longclip_state(), folder / "longclip.safetensors")
    return folder / "longclip.safetensors"


def clip_model(folder: Path, rows: int | None = 248) -> Path:
    state = makers.transformers_state(makers.one_table(makers.longclip_state()))
    return makers.folder(folder, state, makers.config_json(rows, whole=True))


def text_model(folder: Path, rows: int | None = 248) -> Path:
    state = makers.text_only(makers.transformers_state(makers.one_table(makers.longclip_state())))
    return makers.folder(folder, state, makers.config_json(rows, whole=False))


def flat_text_model(folder: Path) -> Path:
    return makers.folder(
        folder, wanted(makers.one_table(makers.longclip_state())), makers.config_json(248, whole=False)
    )


def bare_text_model(folder: Path) -> Path:
    text_model(folder)
    (folder / "config.json").unlink()
    return folder / "model.safetensors"


def with_position_ids(folder: Path) -> Path:
    state = makers.text_only(makers.transformers_state(makers.one_table(makers.longclip_state())))
    state["text_model.embeddings.position_ids"] = torch.arange(248)[None]
    return saved(state, folder / "pytorch_model.bin").parent


def longclip_transformers(folder: Path, suffix: str = "") -> Path:
    state = makers.transformers_state(makers.longclip_state())
    table = state.pop("text_model.embeddings.position_embedding_res")
    state["text_model.embeddings.position_embedding_res" + suffix] = table
    towers = ("text_model.", "vision_model.")
    nested = {key.split(".")[0] + "." + key if key.startswith(towers) else key: value for key, value in state.items()}
    config = makers.config_json(248, whole=True) | {"model_type": "longclip"}
    config["text_config"]["interpolation_keep_length"] = 20
    return makers.folder(folder, nested, config)


def jit_state_dict(folder: Path) -> Path:
    numbers = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    return saved({**makers.longclip_state(), **numbers}, folder / "state.pt")


def open_clip_custom_text(folder: Path) -> Path:
    text = {key: value for key, value in makers.longclip_state().items() if not key.startswith(("visual.", "logit"))}
    rest = {key: value for key, value in makers.longclip_state().items() if key not in text}
    return saved({**makers.prefixed("text.", text), **rest}, folder / "open_clip.pt")


def sharded(folder: Path) -> Path:
    clip_model(folder)
    state = makers.transformers_state(makers.one_table(makers.longclip_state()))
    (folder / "model.safetensors").unlink()
    halves = {"model-1.safetensors": list(state)[::2], "model-2.safetensors": list(state)[1::2]}
    for name, keys in halves.items():
        save_file({key: state[key] for key in keys}, folder / name)
    weight_map = {key: name for name, keys in halves.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def prefix(text: str) -> Callable[[Path], Path]:
    return lambda folder: saved(makers.prefixed(text, makers.longclip_state()), folder / "prefixed.pt")


def text_prefix(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        state = makers.text_only(makers.transformers_state(makers.one_table(makers.longclip_state())))
        return saved(makers.prefixed(text, state), folder / "prefixed.pt")

    return make


LAYOUTS = {
    "official .pt": official_pt,
    "official as safetensors": official_safetensors,
    "wrapped in state_dict": lambda folder: saved({"state_dict": makers.longclip_state()}, folder / "epoch.pt"),
    "jit state dict": jit_state_dict,
    "CLIPModel folder": clip_model,
    "CLIPModel folder without length": lambda folder: clip_model(folder, None),
    "CLIPModel folder with a wrong length": lambda folder: clip_model(folder, 77),
    "text folder": text_model,
    "text folder without length": lambda folder: text_model(folder, None),
    "text folder, flat keys": flat_text_model,
    "text file without config": bare_text_model,
    "pytorch_model.bin with position_ids": with_position_ids,
    "sharded folder": sharded,
    "longclip-transformers": longclip_transformers,
    "longclip-transformers, second table a module": lambda folder: longclip_transformers(folder, ".weight"),
    "open_clip custom text": open_clip_custom_text,
    "module.": prefix("module."),
    "_orig_mod.": prefix("_orig_mod."),
    "module._orig_mod.": prefix("module._orig_mod."),
    "text_encoder.": text_prefix("text_encoder."),
    "module.text_encoder.": text_prefix("module.text_encoder."),
}
