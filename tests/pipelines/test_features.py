"""What diffusers' users do with a pipeline, in each family: beside a chapter it does what it does in stock."""

import math
from collections.abc import Iterator

import diffusers
import numpy as np
import pytest
import torch
import toys
import toys_xl
from accelerate import cpu_offload
from adapters import (
    IMAGE_WIDTH,
    ip_adapter,
    kohya_keys,
    lora,
    merge_lora,
    old_diffusers_keys,
    peft_keys,
)
from diffusers import DiffusionPipeline, LCMScheduler
from drawing import CHAPTER, KINDS, Kind, animatediff, draw, frames
from drawing_xl import FAMILIES, XL_KINDS, animatediff_xl
from torch import nn

from longclip_diffusers import AutoLongPipeline

ROUNDING = 1e-4  # of pictures in 0..1: the same sums in another order, then two steps with guidance


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def kind(request) -> Kind:
    """Text to image of the family."""
    return request.param


def pipeline(kind: Kind, **replaced) -> DiffusionPipeline:
    return kind.long(**kind.components(length=248, **replaced))


def models(pipe: DiffusionPipeline) -> list[nn.Module]:
    return [model for model in pipe.components.values() if isinstance(model, nn.Module)]


def reads_to_the_end(pipe: DiffusionPipeline, **arguments) -> bool:
    """Whether the last word of a chapter changes the picture."""
    first, second = (draw(pipe, CHAPTER + end, **arguments) for end in ("red", "blue"))
    return np.abs(first - second).max() > 1e-3  # float noise between equal prompts is exactly zero


# ---- LoRA


@pytest.mark.parametrize("keys", [peft_keys, kohya_keys, old_diffusers_keys], ids=lambda keys: keys.__name__)
def test_lora_is_what_its_matrices_add(kind, keys):
    merged, pipe = pipeline(kind), pipeline(kind)
    before, matrices = draw(pipe, CHAPTER), lora(pipe)
    pipe.load_lora_weights(keys(matrices))
    merge_lora(merged, matrices)
    loaded, expected = draw(pipe, CHAPTER), draw(merged, CHAPTER)
    assert np.abs(expected - before).max() > 100 * ROUNDING
    np.testing.assert_allclose(loaded, expected, atol=ROUNDING)
    assert np.array_equal(draw(pipe, CHAPTER, cross_attention_kwargs={"scale": 0.0}), before)
    pipe.unload_lora_weights()
    assert np.array_equal(draw(pipe, CHAPTER), before)


def test_lora_of_a_text_encoder_is_not_hotswapped(kind):
    pipe = pipeline(kind)
    matrices = lora(pipe)
    in_unet = {each: pair for each, pair in matrices.items() if each[0] == "unet"}
    pipe.load_lora_weights(peft_keys(in_unet), adapter_name="style")
    expected = draw(pipe, CHAPTER)
    pipe.load_lora_weights(peft_keys({each: (-down, up) for each, (down, up) in in_unet.items()}), "style", True)
    assert not np.array_equal(draw(pipe, CHAPTER), expected)
    with pytest.raises(ValueError, match="hotswapping is not supported for text encoders"):
        pipe.load_lora_weights(peft_keys(matrices), adapter_name="style", hotswap=True)


# ---- IP-Adapter, LCM, AnimateDiff


def test_ip_adapter_beside_a_chapter(kind):
    stock, pipe = kind.stock(**kind.components()), kind.long(**kind.components())
    for each in (stock, pipe):
        each.load_ip_adapter(ip_adapter(each.unet), None, "", image_encoder_folder=None)
        each.set_ip_adapter_scale(0.1)  # beside random images at their full strength no text is to be seen
    image = torch.randn(2, 1, IMAGE_WIDTH, generator=torch.Generator().manual_seed(6))
    given = {"ip_adapter_image_embeds": [image]}
    assert np.array_equal(draw(pipe, "a cat", **given), draw(stock, "a cat", **given))
    assert reads_to_the_end(pipe, **given)
    other = draw(pipe, CHAPTER, ip_adapter_image_embeds=[-image])
    assert np.abs(draw(pipe, CHAPTER, **given) - other).max() > 1e-3
    pipe.set_ip_adapter_scale(0.0)
    assert np.array_equal(draw(pipe, CHAPTER, **given), draw(pipe, CHAPTER, ip_adapter_image_embeds=[-image]))


def test_lcm_of_sdxl_is_a_scheduler():
    assert not [name for name in dir(diffusers) if "LatentConsistency" in name and "XL" in name]
    kind = XL_KINDS["text2img"]
    unet = toys.unet(**{**toys_xl._added(refiner=False), "time_cond_proj_dim": 8})
    components = {"unet": unet, "scheduler": LCMScheduler()}
    stock, pipe = kind.stock(**kind.components(**components)), pipeline(kind, **components)
    short = kind.long(**stock.components)
    assert np.array_equal(draw(short, guidance_scale=8.0), draw(stock, guidance_scale=8.0))
    assert reads_to_the_end(pipe, guidance_scale=8.0)


@pytest.mark.parametrize("stock", [animatediff, animatediff_xl], ids=FAMILIES)
def test_animatediff_draws_a_chapter(stock):
    pipe = stock()
    twin = AutoLongPipeline.from_pipe(pipe)
    assert np.array_equal(frames(twin, "a cat"), frames(pipe, "a cat"))
    red, blue = (frames(twin, CHAPTER + end) for end in ("red", "blue"))
    assert red.shape == (1, 2, 64, 64, 3)
    assert np.abs(red - blue).max(axis=(0, 2, 3, 4)).min() > 1e-3  # in every frame


# ---- callbacks, given embeddings


def test_callbacks_see_and_change_the_long_embeddings(kind):
    pipe, rows = pipeline(kind), []

    def on_step_end(pipe, step, timestep, tensors):
        rows.append(tensors["prompt_embeds"].shape[1])
        return {"prompt_embeds": -tensors["prompt_embeds"]}

    called = {"callback_on_step_end": on_step_end, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    assert not np.array_equal(draw(pipe, CHAPTER, **called), draw(pipe, CHAPTER))
    assert rows == [77 * math.ceil((pipe.plan_prompt(CHAPTER).num_tokens + 2) / 77)] * 2


def test_given_embeddings_draw_what_their_prompt_draws():
    pipe = pipeline(KINDS["text2img"])
    with torch.no_grad():
        positive, negative = pipe.encode_prompt(CHAPTER, "cpu", 1, True, negative_prompt="dark")
    several = {"num_images_per_prompt": 2}
    expected = draw(pipe, CHAPTER, negative_prompt="dark", **several)
    given = {"prompt_embeds": positive, **several}
    assert np.array_equal(draw(pipe, None, negative_prompt_embeds=negative, **given), expected)
    np.testing.assert_allclose(draw(pipe, None, negative_prompt="dark", **given), expected, atol=ROUNDING)


def test_sdxl_wants_the_pooled_vector_beside_given_embeddings():
    pipe = pipeline(XL_KINDS["text2img"])
    with pytest.raises(ValueError, match="`pooled_prompt_embeds` also have to be passed"):
        draw(pipe, None, prompt_embeds=torch.randn(1, 248, toys.WIDTH + toys_xl.WIDTH_2))


# ---- offload, torch.compile


def offload_models(pipe: DiffusionPipeline) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def offload_groups(pipe: DiffusionPipeline) -> None:
    cpu = torch.device("cpu")
    pipe.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")


def offload_layers(pipe: DiffusionPipeline) -> None:
    # What enable_sequential_cpu_offload does; its own way of naming the device trips accelerate where that is the CPU.
    for model in models(pipe):
        cpu_offload(model, execution_device=torch.device("cpu"))


@pytest.mark.parametrize("offload", [offload_models, offload_groups, offload_layers], ids=lambda each: each.__name__)
def test_offloaded_it_draws_the_same(kind, offload):
    pipe = pipeline(kind)
    expected = draw(pipe, CHAPTER)
    offload(pipe)
    assert all(is_offloaded(model) for model in models(pipe))
    assert np.array_equal(draw(pipe, CHAPTER), expected)
    assert reads_to_the_end(pipe)


def is_offloaded(model: nn.Module) -> bool:
    return any(hasattr(each, "_hf_hook") or hasattr(each, "_diffusers_hook") for each in model.modules())


@pytest.fixture
def no_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_compiled_it_draws_the_same(kind, no_graphs):
    pipe = pipeline(kind)
    expected = draw(pipe, CHAPTER)
    compiled = [model for name, model in pipe.components.items() if name.startswith(("text_encoder", "unet"))]
    for model in compiled:
        model.compile(backend="aot_eager", dynamic=False)  # all but the C++ compiler
    np.testing.assert_allclose(draw(pipe, CHAPTER), expected, atol=ROUNDING)
    assert len(compiled) == (3 if "text_encoder_2" in pipe.components else 2)
    assert torch._dynamo.utils.counters["frames"]["ok"] >= len(compiled)


# ---- clip_skip


def test_stock_has_no_clip_skip_here():
    kind = KINDS["text2img"]
    pipe = kind.stock(**kind.components())
    assert not hasattr(pipe.text_encoder, "text_model")  # so it is on transformers >= 5.6
    with pytest.raises(AttributeError, match="text_model"):
        draw(pipe, "a cat", clip_skip=1)
    assert not np.array_equal(draw(pipeline(kind), CHAPTER, clip_skip=1), draw(pipeline(kind), CHAPTER))
