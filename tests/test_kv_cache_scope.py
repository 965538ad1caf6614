"""Where the prompt cache steps aside, and that a call with it leaves nothing behind."""

import inspect
import weakref

import numpy as np
import pytest
import torch
import toys
from accelerate import cpu_offload
from adapters import prompt_layers
from cached import STEPS, Products, assert_equal, pipeline
from diffusers import StableDiffusionPipeline
from drawing import CHAPTER, KINDS, draw

from longclip_diffusers import StableDiffusionLongPipeline
from longclip_diffusers.kv_cache import prompt_cache

# ---- where it steps aside


def test_inference_mode():
    pipe = pipeline()
    expected = draw(pipe, CHAPTER)
    pipe.enable_prompt_cache()
    with torch.inference_mode():
        assert np.array_equal(draw(pipe, CHAPTER), expected)


def test_a_prompt_that_is_another_tensor_at_every_step():
    kind = KINDS["controlnet"]
    pipe, pictures = kind.long(**kind.components()), []
    arguments = {"num_inference_steps": STEPS, "guess_mode": True, **kind.arguments()}
    for switch, reads in ((pipe.enable_prompt_cache, 1), (pipe.disable_prompt_cache, STEPS)):
        switch()
        with Products(prompt_layers(pipe.unet)) as read, Products(prompt_layers(pipe.controlnet)) as guessed:
            pictures.append(draw(pipe, CHAPTER, **arguments))
        assert (read.each, guessed.each) == (reads, STEPS)  # the ControlNet gets a new slice each time
    assert_equal(pictures)


def test_weights_that_come_and_go():
    pipe = pipeline()
    expected = draw(pipe, CHAPTER)
    kept = []
    for layer in prompt_layers(pipe.unet):
        layer.register_forward_hook(lambda module, args, output: kept.append(weakref.ref(output)))
    cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    pipe.enable_prompt_cache()
    alive = []

    def count(pipe, step, timestep, tensors):
        alive.append(sum(each() is not None for each in kept))
        return tensors

    assert np.array_equal(draw(pipe, CHAPTER, callback_on_step_end=count), expected)
    assert alive == [0, 0]  # of weights that are gone nothing is kept


@pytest.mark.parametrize(
    "compiled",
    [
        lambda unet: unet.compile(backend="eager"),
        lambda unet: unet.mid_block.compile(backend="eager"),
        lambda unet: torch.compile(unet, backend="eager"),
        lambda unet: setattr(unet, "forward", torch.compile(unet.forward, backend="eager")),
    ],
    ids=["module", "part", "wrapped", "forward"],
)
def test_compiled_models_are_left_alone(compiled):
    unet = toys.unet()
    unet = unet if (wrapped := compiled(unet)) is None else wrapped
    with prompt_cache(unet):
        assert not unet._forward_pre_hooks


def test_a_compiled_unet_draws_the_same():
    pipe = pipeline()
    expected = draw(pipe, CHAPTER)
    pipe.enable_prompt_cache()
    pipe.unet.compile(backend="eager", fullgraph=True)
    assert np.array_equal(draw(pipe, CHAPTER), expected)


# ---- what a call leaves behind


def test_nothing_is_left_of_a_call():
    pipe = pipeline()
    pipe.enable_prompt_cache()
    kept = []
    for layer in prompt_layers(pipe.unet):
        layer.register_forward_hook(lambda module, args, output: kept.append(weakref.ref(output)))

    def count(pipe, step, timestep, tensors):
        assert all(each() is not None for each in kept)
        return tensors

    draw(pipe, CHAPTER, callback_on_step_end=count)
    assert kept
    assert all(each() is None for each in kept)


def test_an_exception_leaves_nothing():
    pipe = pipeline()
    expected = draw(pipe, CHAPTER)
    pipe.enable_prompt_cache()

    def fail(pipe, step, timestep, tensors):
        assert pipe.unet._forward_pre_hooks
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(pipe, "a dog", callback_on_step_end=fail)
    assert not pipe.unet._forward_pre_hooks
    assert np.array_equal(draw(pipe, CHAPTER), expected)


def test_weights_and_files_are_as_they_were(tmp_path):
    pipe = pipeline()
    pipe.enable_prompt_cache()
    pipe.unet.save_pretrained(tmp_path / "before")

    def save(pipe, step, timestep, tensors):
        pipe.unet.save_pretrained(tmp_path / "within")
        return tensors

    draw(pipe, CHAPTER, callback_on_step_end=save)
    files = {path.name: path.read_bytes() for path in (tmp_path / "before").iterdir()}
    assert len(files) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "within").iterdir()} == files


def test_the_arguments_of_a_call_are_still_to_be_read():
    expected = inspect.signature(StableDiffusionPipeline.__call__)
    assert inspect.signature(StableDiffusionLongPipeline.__call__) == expected
    assert StableDiffusionLongPipeline.__call__.__doc__ == StableDiffusionPipeline.__call__.__doc__


def test_a_gradient_is_not_cut():
    unet = toys.unet()
    prompt = torch.randn(1, 77, toys.WIDTH, requires_grad=True)
    with prompt_cache(unet):
        for _ in range(2):
            unet(torch.randn(1, 4, 8, 8), 1, encoder_hidden_states=prompt).sample.sum().backward()
    assert prompt.grad.abs().sum() > 0
