"""Keys and values of the prompt are computed once per call, and no picture is changed by it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toys
from accelerate import cpu_offload_with_hook
from adapters import IMAGE_WIDTH, ip_adapter, prompt_layers
from cached import STEPS, Products, assert_equal, both, pipeline
from diffusers import (
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPAGPipeline,
)
from diffusers.callbacks import SDCFGCutoffCallback
from diffusers.models import attention_processor
from diffusers.models.attention_processor import AttnProcessor, XFormersAttnProcessor
from drawing import CHAPTER, KINDS, SENTENCE, animatediff, draw, frames
from drawing_xl import FAMILIES, XL_KINDS
from peft import LoraConfig
from torch.nn.functional import scaled_dot_product_attention

from longclip_diffusers import AutoLongPipeline, StableDiffusionLongPipeline

ALL_KINDS = {**KINDS, **{f"xl {name}": kind for name, kind in XL_KINDS.items()}}
CPU = torch.device("cpu")


def add_lora(unet, name="default", seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_k", "to_v"]), adapter_name=name)


# ---- once, and the same picture


@pytest.mark.parametrize("kind", ALL_KINDS.values(), ids=ALL_KINDS)
def test_the_prompt_is_read_once_per_call(kind):
    assert_equal(both(kind.long(**kind.components()), **kind.arguments()))


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_batches(guidance):
    arguments = {"num_images_per_prompt": 2, "guidance_scale": guidance}
    assert_equal(both(pipeline(), [CHAPTER, "a cat"], negative_prompt=["", SENTENCE], **arguments))


def test_ip_adapter():
    pipe = pipeline()
    pipe.unet._load_ip_adapter_weights([ip_adapter(pipe.unet)])
    image = torch.randn(2, 1, 24, generator=torch.Generator().manual_seed(6))
    pictures = both(pipe, ip_adapter_image_embeds=[image])
    assert_equal(pictures)
    assert not np.array_equal(
        pictures[0], draw(pipe, CHAPTER, num_inference_steps=STEPS, ip_adapter_image_embeds=[-image])
    )


def test_ip_adapter_of_sdxl():
    kind = XL_KINDS["text2img"]
    pipe = kind.long(**kind.components())
    pipe.unet._load_ip_adapter_weights([ip_adapter(pipe.unet)])
    image = torch.randn(2, 1, IMAGE_WIDTH, generator=torch.Generator().manual_seed(6))
    assert_equal(both(pipe, ip_adapter_image_embeds=[image]))


def test_lcm():
    unet = toys.unet(time_cond_proj_dim=8)
    stock = LatentConsistencyModelPipeline(**toys.stable_diffusion_components(unet=unet, scheduler=LCMScheduler()))
    assert_equal(both(AutoLongPipeline.from_pipe(stock), original_inference_steps=4))


def test_animatediff():
    pipe = AutoLongPipeline.from_pipe(animatediff())
    of_prompt = [block.attentions for block in pipe.unet.down_blocks[1:]]  # the frames have an attn2 of their own
    assert_equal(both(pipe, readers=of_prompt, drawn=frames))


def test_bfloat16():
    pipe = pipeline().to(torch.bfloat16)
    assert_equal(both(pipe))


def attention_of_xformers(query, key, value, attn_bias=None, op=None, scale=None):
    """What xformers computes (heads joined with the batch), by torch; its kernels need a GPU."""
    return scaled_dot_product_attention(query, key, value, attn_mask=attn_bias, scale=scale)


def test_xformers(monkeypatch):
    ops = SimpleNamespace(memory_efficient_attention=attention_of_xformers)
    monkeypatch.setattr(attention_processor, "xformers", SimpleNamespace(ops=ops))
    pipe = pipeline()
    expected = draw(pipe, CHAPTER, num_inference_steps=STEPS)
    pipe.unet.set_attn_processor(XFormersAttnProcessor())
    pictures = both(pipe)
    assert_equal(pictures)
    np.testing.assert_allclose(pictures[0], expected, atol=1e-4)  # the same sums in another order


@pytest.mark.parametrize("kind", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize(
    "offload",
    [
        lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),  # makes it cpu:0, and copies all to there: no cache
        lambda pipe: cpu_offload_with_hook(pipe.unet, CPU),  # its hook, where the prompt is on the device already
        lambda pipe: pipe.enable_group_offload(CPU, CPU, offload_type="leaf_level"),
    ],
    ids=["models", "a model's hook", "groups"],
)
def test_offload(kind, offload):
    pipe = kind.long(**kind.components())
    expected = draw(pipe, CHAPTER, num_inference_steps=STEPS)
    offload(pipe)
    pipe.enable_prompt_cache()
    for _ in range(2):  # in the second call the weights have been away
        assert np.array_equal(draw(pipe, CHAPTER, num_inference_steps=STEPS), expected)


def test_lora_between_calls():
    pipe = pipeline()
    pictures = [both(pipe)]
    add_lora(pipe.unet)
    for scale in (1.0, -2.0):
        pipe.unet.set_adapters(["default"], [scale])
        pictures.append(both(pipe))
    pipe.fuse_lora(components=["unet"])
    pictures.append(both(pipe))
    pipe.unfuse_lora(components=["unet"])
    pipe.unet.disable_adapters()
    pictures.append(both(pipe))
    for pair in pictures:
        assert_equal(pair)
    assert len({pair[0].tobytes() for pair in pictures[:3]}) == 3


def test_pag():
    stock = StableDiffusionPAGPipeline(**toys.stable_diffusion_components(), pag_applied_layers=["mid"])
    assert_equal(both(AutoLongPipeline.from_pipe(stock)))


def test_a_processor_that_computes_otherwise():
    pipe = pipeline()
    pipe.unet.set_attn_processor(AttnProcessor())
    assert_equal(both(pipe))


def test_consecutive_prompts_and_changed_weights():
    cached, plain = pipeline(), pipeline()
    cached.enable_prompt_cache()
    for change in (lambda _: None, lambda unet: prompt_layers(unet)[0].weight.data.mul_(-1)):
        for pipe in (cached, plain):
            change(pipe.unet)
        for prompt in (CHAPTER, "a cat", "a dog", ["a cat", "a dog"]):
            assert_equal([draw(pipe, prompt) for pipe in (cached, plain)])


def test_one_unet_in_two_pipelines():
    first = pipeline()
    second = StableDiffusionLongPipeline.from_pipe(first)
    first.enable_prompt_cache()
    expected = draw(second, "a dog"), draw(second, CHAPTER)

    def interrupt(pipe, step, timestep, tensors):
        assert np.array_equal(draw(second, "a dog"), expected[0])
        return tensors

    for each in (first, second):
        assert np.array_equal(draw(each, CHAPTER, callback_on_step_end=interrupt), expected[1])
        second.enable_prompt_cache()
    assert not first.unet._forward_pre_hooks


# ---- what changes within a call is noticed


def test_guidance_that_ends_midway():
    callback = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)
    pipe, pictures = pipeline(), []
    for switch, reads in ((pipe.enable_prompt_cache, 2), (pipe.disable_prompt_cache, STEPS)):
        switch()
        with Products(prompt_layers(pipe.unet)) as products:
            pictures.append(draw(pipe, CHAPTER, num_inference_steps=STEPS, callback_on_step_end=callback))
        assert products.each == reads  # with guidance, and without
    assert_equal(pictures)


def _changed_in_place(pipe, tensors):
    tensors["prompt_embeds"].mul_(-1)


def _adapter_chosen(pipe, tensors):
    pipe.unet.set_adapters(["second"], [2.0])


def _adapter_merged(pipe, tensors):
    pipe.fuse_lora(components=["unet"], lora_scale=3.0)


def _weights_replaced(pipe, tensors):
    layer = prompt_layers(pipe.unet)[0]
    layer.weight.data = -layer.weight.data


def _weights_changed(pipe, tensors):
    with torch.no_grad():
        prompt_layers(pipe.unet)[0].weight.mul_(-1)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # two adapters are what is wanted
@pytest.mark.parametrize(
    "change", [_changed_in_place, _adapter_chosen, _adapter_merged, _weights_replaced, _weights_changed]
)
def test_what_a_callback_changes(change):
    def callback(pipe, step, timestep, tensors):
        if step == 0:
            change(pipe, tensors)
        return tensors

    pictures = []
    for cache in (True, False):
        pipe = pipeline()
        for seed, name in enumerate(["default", "second"]):
            add_lora(pipe.unet, name, seed)
        pipe.unet.set_adapters(["default"])
        if cache:
            pipe.enable_prompt_cache()
        tensors = {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
        pictures.append(draw(pipe, CHAPTER, callback_on_step_end=callback, **tensors))
    assert_equal(pictures)
    assert not np.array_equal(pictures[0], draw_unchanged())


def draw_unchanged():
    pipe = pipeline()
    add_lora(pipe.unet)
    return draw(pipe, CHAPTER)


class Blending:
    """A processor of somebody's that reads a prompt of its own making, a new one at every step."""

    def __init__(self):
        self.calls = 0

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **kwargs):
        self.calls += 1
        if encoder_hidden_states is not None:
            encoder_hidden_states = encoder_hidden_states * (1 + self.calls / 10)
        return AttnProcessor()(attn, hidden_states, encoder_hidden_states, attention_mask, **kwargs)


def test_a_processor_with_a_prompt_of_its_own():
    pictures = []
    for cache in (True, False):
        pipe = pipeline()
        pipe.unet.set_attn_processor(Blending())
        if cache:
            pipe.enable_prompt_cache()
        pictures.append(draw(pipe, CHAPTER))
    assert_equal(pictures)


def test_a_hook_that_writes_into_the_keys():
    pictures = []
    for cache in (True, False):
        pipe = pipeline()
        for layer in prompt_layers(pipe.unet):
            layer.register_forward_hook(lambda module, args, output: output.mul_(2))
        if cache:
            pipe.enable_prompt_cache()
        pictures.append(draw(pipe, CHAPTER))
    assert_equal(pictures)
