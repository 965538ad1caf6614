"""The same picture with the prompt cache and without, and how often the prompt was read for each."""

import numpy as np
import torch
import toys
from adapters import prompt_layers
from drawing import CHAPTER, draw
from torch.utils._python_dispatch import TorchDispatchMode

from longclip_diffusers import StableDiffusionLongPipeline

STEPS = 3


def pipeline(**components):
    return StableDiffusionLongPipeline(**toys.stable_diffusion_components(**components))


def assert_equal(pictures):
    assert np.isfinite(pictures[0]).all()
    assert np.array_equal(*pictures)


class Products(TorchDispatchMode):
    """Counts within it how often each layer's weight was multiplied with anything, below every trick with tensors."""

    def __init__(self, layers):
        super().__init__()
        self.counted = {layer.weight.data_ptr(): 0 for layer in layers}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.t.default and args[0].data_ptr() in self.counted:
            self.counted[args[0].data_ptr()] += 1
        return function(*args, **(kwargs or {}))

    @property
    def each(self):
        """The number that is every layer's."""
        (number,) = set(self.counted.values())
        return number


def both(pipe, prompt=CHAPTER, *, readers=None, drawn=draw, **arguments):
    """Pictures with and without, after checks that one call read the prompt once and the other at each step.

    `readers`: the modules whose cross-attention reads the prompt, UNet and ControlNet where none are given.
    """
    arguments = {"num_inference_steps": STEPS, **arguments}
    denoisers = [model for name in ("unet", "controlnet") if (model := getattr(pipe, name, None)) is not None]
    pictures = []
    for switch, reads in ((pipe.enable_prompt_cache, 1), (pipe.disable_prompt_cache, STEPS)):
        switch()
        with Products(prompt_layers(*(readers or denoisers))) as products:
            pictures.append(drawn(pipe, prompt, **arguments))
        assert products.each == reads
    return pictures
