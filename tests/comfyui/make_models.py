"""Model files of random weights for the server, run by ComfyUI's own Python: `python make_models.py COMFYUI MODELS`.

Core knows the towers by their real sizes, so these are as large as the real ones (L 0.25, H 0.7, G 1.4 GB); the UNet
has one level of Stable Diffusion 1.x's, the autoencoder is TAESD's.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTHS = {"l": (768, 12), "h": (1024, 24), "g": (1280, 32)}
VOCABULARY = 49408
LONG, STOCK, KEPT = 248, 77, 20


def tower(name: str, rows: int) -> dict[str, Tensor]:
    """A text tower under OpenAI's names; the same one whatever `rows`, which cuts its table."""
    width, layers = WIDTHS[name]
    generator = torch.Generator().manual_seed(width)

    def random(*shape: int, scale: float = 0.02) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).half()

    state = {
        "positional_embedding": random(LONG, width)[:rows].clone(),
        "token_embedding.weight": random(VOCABULARY, width),
        "text_projection": random(width, width, scale=width**-0.5),
        "ln_final.weight": torch.ones(width).half(),
        "ln_final.bias": random(width),
    }
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}."
        state[block + "attn.in_proj_weight"] = random(3 * width, width, scale=width**-0.5)
        state[block + "attn.in_proj_bias"] = random(3 * width)
        sizes = (("attn.out_proj", width, width), ("mlp.c_fc", 4 * width, width), ("mlp.c_proj", width, 4 * width))
        for part, outputs, inputs in sizes:
            state[f"{block}{part}.weight"] = random(outputs, inputs, scale=inputs**-0.5)
            state[f"{block}{part}.bias"] = random(outputs)
        for norm in ("ln_1", "ln_2"):
            state[f"{block}{norm}.weight"] = torch.ones(width).half()
            state[f"{block}{norm}.bias"] = random(width)
    return state


def two_tables(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the original longclip-L.pt has it: the first table's rows from 20 on are never read."""
    second = state["positional_embedding"]
    first = torch.cat([second[:KEPT], torch.zeros_like(second[KEPT:])])
    image = {"visual.class_embedding": torch.zeros(8), "visual.proj": torch.zeros(8, 8)}
    return {**state, **image, "positional_embedding": first, "positional_embedding_res": second, "mask1": first[:, :1]}


def checkpoint() -> dict[str, Tensor]:
    """A Stable Diffusion 1.x checkpoint: core's own UNet class with one level, L, TAESD."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.taesd.taesd import TAESD
    from comfy.utils import clip_text_transformers_convert

    torch.manual_seed(0)
    unet = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        num_res_blocks=[1],
        channel_mult=[1],
        num_heads=8,
        use_spatial_transformer=True,
        transformer_depth=[1],
        transformer_depth_middle=1,
        transformer_depth_output=[1, 1],
        context_dim=768,
        dtype=torch.float32,
        device="cpu",
    )
    for weight in unet.parameters():
        torch.nn.init.normal_(weight, std=0.03)
    text = clip_text_transformers_convert(tower("l", STOCK), "", "")
    parts = {
        "model.diffusion_model.": unet.state_dict(),
        "cond_stage_model.transformer.": {key: value for key, value in text.items() if "projection" not in key},
        "first_stage_model.": TAESD(latent_channels=4).state_dict(),
    }
    return {prefix + key: value.half() for prefix, state in parts.items() for key, value in state.items()}


def lora() -> dict[str, Tensor]:
    """On the first layer of every tower, strong enough to see."""
    torch.manual_seed(1)
    state = {}
    for prefix, name in (("lora_te", "l"), ("lora_te1", "l"), ("lora_te2", "g")):
        width = WIDTHS[name][0]
        key = f"{prefix}_text_model_encoder_layers_0_mlp_fc1"
        state[f"{key}.lora_down.weight"] = torch.randn(4, width) * 0.1
        state[f"{key}.lora_up.weight"] = torch.randn(4 * width, 4) * 0.1
        state[f"{key}.alpha"] = torch.tensor(4.0)
    return state


def main(comfyui: str, models: str) -> None:
    """Write all files into ComfyUI's model folders below `models`."""
    sys.path.insert(0, comfyui)
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    folders = {name: Path(models) / name for name in ("text_encoders", "checkpoints", "loras", "embeddings")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    encoders = folders["text_encoders"]
    torch.save(two_tables(tower("l", LONG)), encoders / "longclip-L.pt")
    save_file(tower("l", LONG), encoders / "l-248-one-table.safetensors")
    save_file(tower("l", STOCK), encoders / "l.safetensors")
    save_file(tower("h", LONG), encoders / "h-248.safetensors")
    save_file(tower("g", STOCK), encoders / "g.safetensors")
    (encoders / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (encoders / "page.pt").write_text("<!DOCTYPE html><html>404</html>")
    small = {key: value[..., :512].clone() for key, value in tower("l", LONG).items() if value.ndim == 2}
    save_file({**tower("l", LONG), **small}, encoders / "longclip-B.safetensors")
    save_file(checkpoint(), folders["checkpoints"] / "sd15.safetensors")
    save_file(lora(), folders["loras"] / "lora.safetensors")
    torch.manual_seed(2)
    cat = {"clip_l": torch.randn(3, 768), "clip_g": torch.randn(3, 1280)}
    save_file(cat, folders["embeddings"] / "cat.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
