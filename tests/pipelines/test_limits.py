"""What does not work with long prompts, or does not in stock diffusers either: what samples/support.md says of it."""

import numpy as np
import pytest
import toys_dit
from diffusers.models import attention_dispatch
from drawing import CHAPTER, draw
from drawing_xl import FAMILIES

from longclip_diffusers import FluxLongPipeline, StableDiffusion3LongPipeline
from longclip_diffusers.embeddings import encode_embeddings
from longclip_diffusers.errors import ModelError

KIND = pytest.mark.parametrize("kind", FAMILIES.values(), ids=FAMILIES)


@KIND
@pytest.mark.parametrize("switch", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_offload_without_a_device_wants_an_accelerator(kind, switch, monkeypatch):
    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.get_device", lambda: "cpu")  # as on a machine without one
    with pytest.raises(RuntimeError, match=f"`{switch}` requires accelerator, but not found"):
        getattr(kind.long(**kind.components()), switch)()


@KIND
def test_an_attention_backend_leaves_a_unet_as_it_is(kind, monkeypatch):
    # As if it were installed; its kernels, were they asked, would fail.
    monkeypatch.setattr(attention_dispatch, "_CAN_USE_XFORMERS_ATTN", True)
    registry = attention_dispatch._AttentionBackendRegistry
    monkeypatch.setattr(registry, "_active_backend", registry._active_backend)
    pipe = kind.long(**kind.components())
    expected, before = draw(pipe, CHAPTER), {name: type(each) for name, each in pipe.unet.attn_processors.items()}
    pipe.unet.set_attention_backend("xformers")
    assert {name: type(each) for name, each in pipe.unet.attn_processors.items()} == before
    assert not any(hasattr(each, "_attention_backend") for each in pipe.unet.attn_processors.values())
    assert np.array_equal(draw(pipe, CHAPTER), expected)


@pytest.mark.parametrize(
    "pipe",
    [
        lambda: StableDiffusion3LongPipeline(**toys_dit.sd3_components()),
        lambda: FluxLongPipeline(**toys_dit.flux_components()),
    ],
    ids=["SD3", "Flux"],
)
def test_sd3_and_flux_have_no_embeddings_files_and_no_prompt_cache(pipe):
    made = pipe()
    with pytest.raises(ModelError, match="embeddings are for Stable Diffusion"):
        encode_embeddings(made, "a cat")
    assert not hasattr(made, "enable_prompt_cache")
