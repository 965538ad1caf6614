"""LoRA and IP-Adapter weights as their files have them: random, for the toy models, with the keys found in the wild."""

from collections.abc import Callable, Iterable

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

RANK = 2
ALPHA = 1.0  # not the rank, so that a reader which overlooks it draws another picture
NUM_IMAGE_TOKENS = 4
IMAGE_WIDTH = 24

Lora = dict[tuple[str, str], tuple[Tensor, Tensor]]  # (component, layer): down (RANK, in) and up (out, RANK)


def prompt_layers(*models: nn.Module) -> list[nn.Linear]:
    """The keys' and values' layers of all cross-attentions."""
    return [
        layer
        for model in models
        for name, layer in model.named_modules()
        if name.removesuffix(".base_layer").endswith(("attn2.to_k", "attn2.to_v")) and isinstance(layer, nn.Linear)
    ]


def lora(pipe: DiffusionPipeline) -> Lora:
    """Random matrices for two layers of each block of every text encoder, and for the prompt's keys in the UNet.

    Without `out_proj`, which every file in the wild has, diffusers does not know kohya's keys for what they are.
    """
    generator = torch.Generator().manual_seed(8)
    return {
        (component, layer): tuple(
            0.3 * torch.randn(size, generator=generator)
            for size in ((RANK, module.in_features), (module.out_features, RANK))
        )
        for component in ("text_encoder", "text_encoder_2", "unet")
        if (model := getattr(pipe, component, None)) is not None
        for layer, module in model.named_modules()
        if layer.endswith(("self_attn.q_proj", "self_attn.out_proj", "attn2.to_k"))
    }


def merge_lora(pipe: DiffusionPipeline, matrices: Lora) -> None:
    """Adds what the matrices mean to the weights themselves."""
    with torch.no_grad():
        for (component, layer), (down, up) in matrices.items():
            getattr(pipe, component).get_submodule(layer).weight += up @ down


def peft_keys(matrices: Lora) -> dict[str, Tensor]:
    """`text_encoder.text_model. ... .lora_A.weight`, as peft and today's diffusers have it."""
    return _file(matrices, lambda component, layer: f"{component}.{layer}", ("lora_A", "lora_B"))


def kohya_keys(matrices: Lora) -> dict[str, Tensor]:
    """`lora_te_text_model_ ... .lora_down.weight` and `.alpha`, as kohya's scripts and most public files have it."""
    is_xl = any(component == "text_encoder_2" for component, _ in matrices)
    names = {"text_encoder": "te1" if is_xl else "te", "text_encoder_2": "te2", "unet": "unet"}

    def name(component: str, layer: str) -> str:
        return f"lora_{names[component]}_{layer.replace('.', '_')}"

    file = _file(matrices, name, ("lora_down", "lora_up"))
    ups = [key for key in file if key.endswith("lora_up.weight")]
    scaled = {key: file[key] * (RANK / ALPHA) for key in ups}
    alphas = {key.replace("lora_up.weight", "alpha"): torch.tensor(ALPHA) for key in ups}
    return {**file, **scaled, **alphas}


def old_diffusers_keys(matrices: Lora) -> dict[str, Tensor]:
    """`text_encoder. ... .lora_linear_layer.down.weight` and `attn2.processor.to_k_lora`, as diffusers once saved."""
    text = {each: pair for each, pair in matrices.items() if each[0] != "unet"}
    unet = {each: pair for each, pair in matrices.items() if each[0] == "unet"}
    return {
        **_file(text, lambda component, layer: f"{component}.{layer}.lora_linear_layer", ("down", "up")),
        **_file(unet, lambda _, layer: f"unet.{layer.replace('.to_k', '.processor.to_k_lora')}", ("down", "up")),
    }


def ip_adapter(unet: nn.Module) -> dict[str, dict[str, Tensor]]:
    """An IP-Adapter of four image tokens for image embeddings of 24."""
    generator = torch.Generator().manual_seed(5)
    width = unet.config.cross_attention_dim

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    attention = {
        f"{2 * index + 1}.{name}.weight": random(layer.out_features, width)
        for index, layer in enumerate(prompt_layers(unet)[::2])
        for name in ("to_k_ip", "to_v_ip")
    }
    tokens = NUM_IMAGE_TOKENS * width
    projection = {"proj.weight": random(tokens, IMAGE_WIDTH), "proj.bias": random(tokens)}
    norm = {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    return {"image_proj": {**projection, **norm}, "ip_adapter": attention}


def _file(matrices: Lora, name: Callable[[str, str], str], ends: Iterable[str]) -> dict[str, Tensor]:
    return {
        f"{name(component, _stored(component, layer))}.{end}.weight": matrix
        for (component, layer), pair in matrices.items()
        for end, matrix in zip(ends, pair, strict=True)
    }


def _stored(component: str, layer: str) -> str:
    # transformers 5.6 dropped the prefix from the first encoder; the files keep it.
    is_bare = component != "unet" and not layer.startswith("text_model.")
    return f"text_model.{layer}" if is_bare else layer
