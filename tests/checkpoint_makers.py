"""Tiny checkpoints in the layouts that exist in the wild, written from the layouts' own rules and not by our code."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

WIDTH = 64  # one head, as OpenAI's models have 64 values a head
VOCABULARY = 96  # BOS 94, EOS 95
LAYERS = 2
PROJECTION = 48
PATCH, GRID = 4, 3  # images of 12 pixels


def openai_state(rows: int = 77, *, vision: bool = True, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A stock CLIP as OpenAI and open_clip name it."""
    generator = torch.Generator().manual_seed(rows)

    def random(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) * 0.1).to(dtype)

    state = {
        "positional_embedding": random(rows, WIDTH),
        "text_projection": random(WIDTH, PROJECTION),
        "logit_scale": torch.tensor(4.0, dtype=dtype),
        "token_embedding.weight": random(VOCABULARY, WIDTH),
        "ln_final.weight": 1 + random(WIDTH),
        "ln_final.bias": random(WIDTH),
    }
    towers = ["transformer"]
    if vision:
        towers.append("visual.transformer")
        state["visual.class_embedding"] = random(WIDTH)
        state["visual.positional_embedding"] = random(GRID**2 + 1, WIDTH)
        state["visual.proj"] = random(WIDTH, PROJECTION)
        state["visual.conv1.weight"] = random(WIDTH, 3, PATCH, PATCH)
        for norm in ("ln_pre", "ln_post"):
            state[f"visual.{norm}.weight"] = 1 + random(WIDTH)
            state[f"visual.{norm}.bias"] = random(WIDTH)
    for tower in towers:
        for layer in range(LAYERS):
            block = f"{tower}.resblocks.{layer}"
            state[f"{block}.attn.in_proj_weight"] = random(3 * WIDTH, WIDTH)
            state[f"{block}.attn.in_proj_bias"] = random(3 * WIDTH)
            for name, outputs, inputs in (
                ("attn.out_proj", WIDTH, WIDTH),
                ("mlp.c_fc", 4 * WIDTH, WIDTH),
                ("mlp.c_proj", WIDTH, 4 * WIDTH),
            ):
                state[f"{block}.{name}.weight"] = random(outputs, inputs)
                state[f"{block}.{name}.bias"] = random(outputs)
            for norm in ("ln_1", "ln_2"):
                state[f"{block}.{norm}.weight"] = 1 + random(WIDTH)
                state[f"{block}.{norm}.bias"] = random(WIDTH)
    return state


def longclip_state(**options: Any) -> dict[str, Tensor]:
    """An official Long-CLIP: 248 rows in two tables, of which each is read in part."""
    state = openai_state(248, **options)
    table = state["positional_embedding"]
    state["positional_embedding_res"] = (table.float() + torch.linspace(0.1, 0.4, 248)[:, None]).to(table.dtype)
    return state


def one_table(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with the rows that Long-CLIP reads of either table in one."""
    state = dict(state)
    second = state.pop("positional_embedding_res")
    state["positional_embedding"] = torch.cat([state["positional_embedding"][:20], second[20:]])
    return state


def transformers_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names -> those of transformers' CLIPModel (keys with `text_model.`)."""
    fixed = {
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "positional_embedding_res": "text_model.embeddings.position_embedding_res",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    }
    replaced = (
        ("visual.transformer.resblocks", "vision_model.encoder.layers"),
        ("transformer.resblocks", "text_model.encoder.layers"),
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
        ("ln_final", "text_model.final_layer_norm"),
        (".ln_1.", ".layer_norm1."),
        (".ln_2.", ".layer_norm2."),
        (".mlp.c_fc.", ".mlp.fc1."),
        (".mlp.c_proj.", ".mlp.fc2."),
        (".attn.", ".self_attn."),
    )
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        name = fixed.get(key, key)
        for old, new in replaced:
            name = name.replace(old, new)
        if key == "text_projection":
            result["text_projection.weight"] = value.T.contiguous()
        elif key == "visual.proj":
            result["visual_projection.weight"] = value.T.contiguous()
        elif "in_proj_" in name:
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                result[name.replace("in_proj_", f"{letter}_proj.")] = third.clone()
        else:
            result[name] = value.clone()
    return result


def text_only(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a state under transformers' names, the text tower."""
    return {key: value for key, value in state.items() if key.startswith("text_model.")}


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def gmp_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The MLP weights as a direction of any length and a radius, as zer0int's training stores them."""
    result = {}
    for key, value in state.items():
        if ".mlp." in key and key.endswith(".weight"):
            stem = key.removesuffix(".weight")
            result[f"{stem}.theta"] = value * 3
            result[f"{stem}.r"] = value.norm(dim=1, keepdim=True)
        else:
            result[key] = value
    return result


def config_json(rows: int | None, *, whole: bool) -> dict[str, Any]:
    """config.json of a CLIPModel folder (`whole`) or of a text encoder's; without the length where `rows` is None."""
    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    text = {**shared, "vocab_size": VOCABULARY, "num_attention_heads": 1, "eos_token_id": VOCABULARY - 1}
    text["projection_dim"] = PROJECTION
    if rows is not None:
        text["max_position_embeddings"] = rows
    if not whole:
        return {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], **text}
    vision = {**shared, "num_attention_heads": 1, "patch_size": PATCH, "image_size": PATCH * GRID}
    return {"model_type": "clip", "projection_dim": PROJECTION, "text_config": text, "vision_config": vision}


def folder(path: Path, state: dict[str, Tensor], config: dict[str, Any] | None = None) -> Path:
    """A folder with model.safetensors and, if given, config.json."""
    path.mkdir(parents=True, exist_ok=True)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def token_ids(length: int) -> Tensor:
    """(2, length) ids from BOS to EOS."""
    ids = torch.randint(0, VOCABULARY - 2, (2, length), generator=torch.Generator().manual_seed(length))
    ids[:, 0], ids[:, -1] = VOCABULARY - 2, VOCABULARY - 1
    return ids


def reference_text_forward(state: dict[str, Tensor], ids: Tensor) -> tuple[Tensor, Tensor]:
    """Long-CLIP's own text forward: both tables added behind masks. -> hidden (B, N, D), projected (B, P).

    After beichenzbc/Long-CLIP: model/model_longclip.py, encode_text and encode_text_full.
    """
    length = ids.shape[1]
    first = torch.zeros(248, 1)
    first[:20] = 1
    positions = state["positional_embedding"] * first + state["positional_embedding_res"] * (1 - first)
    hidden = state["token_embedding.weight"][ids] + positions[:length]
    mask = torch.full((length, length), float("-inf")).triu(1)
    for layer in range(LAYERS):
        block = {key.split(f"resblocks.{layer}.")[1]: value for key, value in state.items() if _is_text(key, layer)}
        normed = functional.layer_norm(hidden, (WIDTH,), block["ln_1.weight"], block["ln_1.bias"])
        query, key, value = functional.linear(normed, block["attn.in_proj_weight"], block["attn.in_proj_bias"]).chunk(
            3, dim=-1
        )
        attention = (query @ key.transpose(1, 2) / WIDTH**0.5 + mask).softmax(-1) @ value
        hidden = hidden + functional.linear(attention, block["attn.out_proj.weight"], block["attn.out_proj.bias"])
        normed = functional.layer_norm(hidden, (WIDTH,), block["ln_2.weight"], block["ln_2.bias"])
        inner = functional.linear(normed, block["mlp.c_fc.weight"], block["mlp.c_fc.bias"])
        inner = inner * torch.sigmoid(1.702 * inner)
        hidden = hidden + functional.linear(inner, block["mlp.c_proj.weight"], block["mlp.c_proj.bias"])
    hidden = functional.layer_norm(hidden, (WIDTH,), state["ln_final.weight"], state["ln_final.bias"])
    return hidden, hidden[torch.arange(len(ids)), ids.argmax(-1)] @ state["text_projection"]


def _is_text(key: str, layer: int) -> bool:
    return key.startswith(f"transformer.resblocks.{layer}.")
