"""Loading a model to draw with: settings, devices, sizes, and the twin that truncates."""

import json

import numpy as np
import pytest
import torch
import toys
from drawing import draw
from folders import GUIDANCE, STEPS, miniature, stock_model

from longclip_diffusers import StableDiffusionLongPipeline
from longclip_diffusers.errors import CheckpointError, ModelError, PromptError
from longclip_diffusers.generation import Painter, Placement, check_size, load_pipeline, load_reader, truncating_twin
from longclip_diffusers.sidecar import SIDECAR, Generation, read_generation, read_sidecar

CPU = Placement("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return miniature(tmp_path_factory.mktemp("models") / "miniature")


# ---- what a model recommends


def test_recommended_settings_come_from_the_sidecar(model, tmp_path):
    assert read_generation(model) == Generation(STEPS, GUIDANCE)
    assert read_sidecar(model)[0] == "longclip"
    assert read_generation(tmp_path) == Generation(30, 7.5)


def test_single_file_recommends_nothing(tmp_path):
    (tmp_path / "model.safetensors").touch()
    assert read_generation(tmp_path / "model.safetensors") == Generation()


@pytest.mark.parametrize("read", [read_generation, read_sidecar])
@pytest.mark.parametrize("generation", [{"steps": 0}, {"guidance": "7"}, {"step": 3}, [3], {"steps": True}])
def test_bad_recommendation_is_refused(tmp_path, generation, read):
    (tmp_path / SIDECAR).write_text(json.dumps({"generation": generation}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="'generation' is"):
        read(tmp_path)


@pytest.mark.parametrize("guidance", [float("nan"), float("inf"), -0.5])
def test_guidance_that_is_no_scale_is_refused(guidance):
    with pytest.raises(PromptError, match="guidance="):
        Generation(guidance=guidance)


# ---- devices


def test_cpu_computes_in_float32_unless_told_otherwise(model):
    assert CPU.resolve() == (torch.device("cpu"), torch.float32)
    assert load_pipeline(model, CPU).unet.dtype == torch.float32
    half = load_pipeline(model, Placement("cpu", "bfloat16"))
    assert half.unet.dtype == half.text_encoder.dtype == torch.bfloat16


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_gpu_computes_in_float16_where_it_is_there(monkeypatch, device):
    for name, backend in {"cuda": torch.cuda, "mps": torch.backends.mps}.items():
        monkeypatch.setattr(backend, "is_available", lambda name=name: name == device)
    assert Placement().resolve() == Placement(device).resolve() == (torch.device(device), torch.float16)
    assert Placement(dtype="float32").resolve()[1] == torch.float32
    assert Placement("cpu").resolve()[0] == torch.device("cpu")
    if device == "cuda":
        assert Placement("cuda:1").resolve() == (torch.device("cuda:1"), torch.float16)
    else:
        with pytest.raises(ModelError, match="No cuda:1 device here"):
            Placement("cuda:1").resolve()


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_missing_device_is_refused(monkeypatch, device):
    for backend in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    with pytest.raises(ModelError, match=f"No {device} device here"):
        Placement(device).resolve()


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_xformers_without_cuda_is_refused(monkeypatch, device):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ModelError, match=f"attention xformers needs a GPU with CUDA, and this runs on the {device}"):
        Placement(device, attention="xformers").resolve()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("Refer to", name="xformers"), r"pip install 'longclip-diffusers\[xformers\]'"),
        (NotImplementedError("No operator found\nfor this"), r"does not work with PyTorch .*\(No operator found\)"),
        (ImportError(), r"\(ImportError\). Use attention sdpa"),
    ],
)
def test_xformers_that_does_not_work_is_one_line(monkeypatch, error, message):
    def fail():
        raise error

    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components())
    monkeypatch.setattr(pipe, "enable_xformers_memory_efficient_attention", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ModelError, match=message) as caught:
        Placement("cuda", attention="xformers").place(pipe)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("offload", [False, True])
def test_prompts_are_cached_unless_memory_is_to_be_saved(monkeypatch, offload):
    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components())
    monkeypatch.setattr(Placement, "resolve", lambda self: (torch.device("cpu"), torch.float32))
    monkeypatch.setattr(pipe, "enable_model_cpu_offload", lambda device: None)
    Placement(offload=offload).place(pipe)
    cached = []

    def look(pipe, step, timestep, tensors):
        cached.append(bool(pipe.unet._forward_pre_hooks))
        return tensors

    draw(pipe, callback_on_step_end=look)
    assert cached == [not offload] * 2


# ---- pictures


def test_trained_size_is_what_is_drawn(model):
    painter = Painter(load_pipeline(model, CPU), Generation(1, 1.0))
    assert painter.trained_size == (64, 64)
    assert painter("a", seed=0).size == painter.trained_size


def test_size_follows_the_autoencoder(model):
    pipe = load_pipeline(model, CPU)
    check_size(pipe, (72, 64))
    check_size(pipe, None)
    with pytest.raises(PromptError, match="multiples of 8"):
        check_size(pipe, (68, 64))
    pipe.vae_scale_factor = 16  # as the storybook's
    with pytest.raises(PromptError, match="size 72x64: this model's sides are multiples of 16"):
        Painter(pipe, Generation(), (72, 64))


def test_twin_shares_all_but_what_reads(model):
    pipe = load_pipeline(model, CPU)
    twin = truncating_twin(pipe, model, CPU)
    shared = {name for name, part in twin.components.items() if part is not None and part is pipe.components[name]}
    assert shared == {"unet", "vae", "scheduler"}
    assert twin.tokenizer.model_max_length == toys.STOCK_LENGTH
    painter = Painter(pipe, Generation(2, 3.0), twin=twin)
    ends = [np.asarray(painter("a door. " * 30 + end, seed=0)) for end in ("a red cat.", "a blue cat.")]
    half = ends[0].shape[1] // 2
    assert np.array_equal(ends[0][:, :half], ends[1][:, :half])  # the truncating side does not read the end
    assert not np.array_equal(ends[0][:, half:], ends[1][:, half:])


def test_twin_of_a_long_model_is_refused(tmp_path):
    long = stock_model(tmp_path / "long", length=toys.LONG_LENGTH)
    with pytest.raises(ModelError, match=r"text encoder of 77 rows .* has one of 248"):
        truncating_twin(load_pipeline(long, CPU), long, CPU)


def test_reader_plans_as_the_pipeline_does_without_unet_and_vae(model):
    reader = load_reader(model)
    text = "a door. " * 60
    assert reader.unet is None
    assert reader.vae is None
    assert reader.plan_prompt(text) == load_pipeline(model, CPU).plan_prompt(text)


def test_blackened_picture_is_said(model):
    pipe = load_pipeline(model, CPU)
    call = type(pipe).__call__

    class Flagged(type(pipe)):
        def __call__(self, *args, **kwargs):
            result = call(self, *args, **kwargs)
            result.nsfw_content_detected = [True]
            return result

    with pytest.warns(UserWarning, match="safety checker"):
        Painter(Flagged(**pipe.components), Generation(1, 1.0))("a", seed=0)
