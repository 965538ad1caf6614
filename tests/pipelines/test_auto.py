"""AutoLongPipeline picks the long twin; `custom_pipeline=` gives the class that is installed; one file is enough."""

import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import toys
from diffusers import (
    DiffusionPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
)
from drawing import CHAPTER, KINDS, SENTENCE, animatediff, draw, gradient, half_mask
from safetensors.torch import save_file

from longclip_diffusers import (
    AutoLongPipeline,
    StableDiffusionLongControlNetPipeline,
    StableDiffusionLongPipeline,
    loading,
)
from longclip_diffusers.errors import ModelError
from longclip_diffusers.loading import stock_class
from longclip_diffusers.mixin import LongPromptMixin
from longclip_diffusers.pipelines.auto import long_class
from longclip_diffusers.text_encoder import position_table

KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
PIPELINES = Path(__file__).parents[2] / "pipelines"


@pytest.fixture
def stock_folder(tmp_path):
    folder = tmp_path / "model"
    StableDiffusionPipeline(**toys.stable_diffusion_components()).save_pretrained(folder)
    return folder


# ---- from_pretrained


@KIND
def test_from_pretrained_picks_the_class_that_the_model_names(kind, tmp_path):
    kind.stock(**kind.components()).save_pretrained(tmp_path)
    pipe = AutoLongPipeline.from_pretrained(tmp_path, longclip="stretch")
    assert type(pipe) is kind.long
    assert pipe.tokenizer.model_max_length == 248


def test_from_pretrained_with_a_controlnet(stock_folder):
    pipe = AutoLongPipeline.from_pretrained(stock_folder, longclip=None, controlnet=toys.controlnet())
    assert type(pipe) is StableDiffusionLongControlNetPipeline


def test_from_pretrained_for_inpainting_with_a_controlnet(tmp_path):
    components = toys.stable_diffusion_components(inpaint=True)
    diffusers.StableDiffusionInpaintPipeline(**components).save_pretrained(tmp_path)
    pipe = AutoLongPipeline.from_pretrained(tmp_path, longclip=None, controlnet=toys.controlnet())
    assert stock_class(type(pipe)) is diffusers.StableDiffusionControlNetInpaintPipeline
    given = {"image": gradient(), "mask_image": half_mask(), "control_image": gradient(), "strength": 1.0}
    assert not np.array_equal(draw(pipe, CHAPTER + "red", **given), draw(pipe, CHAPTER + "blue", **given))


def test_from_pretrained_of_a_class_without_a_file_of_its_own(tmp_path):
    StableDiffusionPAGPipeline(**toys.stable_diffusion_components()).save_pretrained(tmp_path)
    pipe = AutoLongPipeline.from_pretrained(tmp_path, longclip=None)
    assert isinstance(pipe, StableDiffusionPAGPipeline)
    assert isinstance(pipe, LongPromptMixin)


def test_from_pretrained_of_an_unknown_class(stock_folder):
    index = stock_folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "DreamPipeline"))
    with pytest.raises(ModelError, match="DreamPipeline"):
        AutoLongPipeline.from_pretrained(stock_folder)


# ---- from_pipe


@KIND
def test_from_pipe_is_the_twin_and_shares(kind):
    stock = kind.stock(**kind.components())
    twin = AutoLongPipeline.from_pipe(stock)
    assert type(twin) is kind.long
    assert twin.unet is stock.unet
    assert np.array_equal(draw(twin, **kind.arguments()), draw(stock, **kind.arguments()))


def test_from_pipe_of_pag_reads_a_chapter_and_saves_as_stock(tmp_path):
    stock = StableDiffusionPAGPipeline(**toys.stable_diffusion_components(), pag_applied_layers=["mid"])
    twin = AutoLongPipeline.from_pipe(stock)
    assert type(twin).__name__ == "StableDiffusionPAGLongPipeline"
    assert np.array_equal(draw(twin), draw(stock))
    assert not np.array_equal(draw(twin, CHAPTER + "red"), draw(twin, CHAPTER + "blue"))
    twin.save_pretrained(tmp_path)
    assert type(DiffusionPipeline.from_pretrained(tmp_path)) is StableDiffusionPAGPipeline


def test_from_pipe_of_animatediff_reads_a_chapter():
    stock = animatediff()
    twin = AutoLongPipeline.from_pipe(stock)
    assert twin.unet is stock.unet
    with torch.no_grad():
        embeds, negative = twin.encode_prompt(CHAPTER, "cpu", 1, True)
    assert embeds.shape == negative.shape
    assert embeds.shape[1] > 77


def test_from_pipe_of_lcm_with_a_long_encoder_recasts_nothing():
    unet = toys.unet(time_cond_proj_dim=8).half()
    stock = LatentConsistencyModelPipeline(**toys.stable_diffusion_components(unet=unet, scheduler=LCMScheduler()))
    twin = AutoLongPipeline.from_pipe(stock, longclip="stretch")
    assert isinstance(twin, LatentConsistencyModelPipeline)
    assert twin.unet is unet
    assert unet.dtype == torch.float16
    assert (twin.tokenizer.model_max_length, stock.tokenizer.model_max_length) == (248, 77)
    unet.float()
    settings = {"original_inference_steps": 4}
    assert np.array_equal(draw(AutoLongPipeline.from_pipe(stock), **settings), draw(stock, **settings))
    pictures = [draw(twin, SENTENCE * 5 + end, **settings) for end in ("red", "blue")]
    assert not np.array_equal(*pictures)


def test_twin_of_a_class_is_made_once():
    assert long_class(StableDiffusionPAGPipeline) is long_class(StableDiffusionPAGPipeline)
    assert long_class(StableDiffusionLongPipeline) is StableDiffusionLongPipeline


def test_other_families_are_refused():
    with pytest.raises(ModelError, match="StableDiffusionLatentUpscalePipeline does not take its prompt as"):
        long_class(diffusers.StableDiffusionLatentUpscalePipeline)
    with pytest.raises(ModelError, match="DDPMPipeline"):
        long_class(diffusers.DDPMPipeline)


# ---- custom_pipeline=


def test_custom_pipeline_is_the_installed_class(stock_folder, monkeypatch, tmp_path):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    pipe = DiffusionPipeline.from_pretrained(stock_folder, custom_pipeline=str(PIPELINES), trust_remote_code=True)
    assert type(pipe) is StableDiffusionLongPipeline
    pipe.load_longclip("stretch")
    assert not np.array_equal(draw(pipe, CHAPTER + "red"), draw(pipe, CHAPTER + "blue"))


def test_custom_pipeline_wants_trust_and_stays_at_77_until_told(stock_folder, monkeypatch, tmp_path):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(stock_folder, custom_pipeline=str(PIPELINES))
    options = {"custom_pipeline": str(PIPELINES), "trust_remote_code": True, "longclip": "stretch"}
    pipe = DiffusionPipeline.from_pretrained(stock_folder, **options)
    assert len(position_table(pipe.text_encoder)) == 77
    pipe.load_longclip("stretch")
    assert len(position_table(pipe.text_encoder)) == 248


# ---- from_single_file


def write_checkpoint(folder, length):
    """The text tower in the layout of an original SD checkpoint, beside the folder with its configs."""
    components = toys.stable_diffusion_components(length=length)
    StableDiffusionPipeline(**components).save_pretrained(folder / "config")
    weights = components["text_encoder"].state_dict()
    prefix = "cond_stage_model.transformer.text_model."
    save_file({prefix + key: value.contiguous() for key, value in weights.items()}, folder / "model.safetensors")
    # UNet and VAE are given: their conversion is diffusers' own business, and the UNet's has no way back in it.
    given = {name: components[name] for name in ("unet", "vae")}
    return folder / "model.safetensors", {"config": str(folder / "config"), **given}


@pytest.mark.parametrize("make", [StableDiffusionLongPipeline, AutoLongPipeline])
def test_single_file_with_its_own_encoder(tmp_path, make):
    file, arguments = write_checkpoint(tmp_path, 77)
    stock = StableDiffusionPipeline.from_single_file(str(file), **arguments)
    pipe = make.from_single_file(file, longclip=None, context="related", **arguments)
    assert type(pipe) is StableDiffusionLongPipeline
    assert pipe.prompt_options.context == "related"
    assert np.array_equal(draw(pipe), draw(stock))
    assert not np.array_equal(draw(pipe, CHAPTER + "red"), draw(pipe, CHAPTER + "blue"))


def test_single_file_stretched(tmp_path):
    file, arguments = write_checkpoint(tmp_path, 77)
    pipe = AutoLongPipeline.from_single_file(file, longclip="stretch", **arguments)
    assert pipe.tokenizer.model_max_length == 248
    assert not np.array_equal(draw(pipe, SENTENCE * 4 + "red"), draw(pipe, SENTENCE * 4 + "blue"))


def test_single_file_that_is_long_already(tmp_path):
    file, arguments = write_checkpoint(tmp_path, 248)
    pipe = AutoLongPipeline.from_single_file(file, **arguments)
    assert pipe.tokenizer.model_max_length == 248
    assert torch.equal(position_table(pipe.text_encoder), position_table(toys.text_encoder(248)))


def test_single_file_that_is_long_already_needs_no_config_that_says_so(tmp_path):
    file, arguments = write_checkpoint(tmp_path, 248)
    write_checkpoint(tmp_path / "stock", 77)
    arguments["config"] = str(tmp_path / "stock" / "config")
    # Of a tower so narrow nothing else tells how many heads it has.
    shutil.copy(tmp_path / "stock" / "config" / "text_encoder" / "config.json", tmp_path)
    pipe = AutoLongPipeline.from_single_file(file, dtype=torch.bfloat16, **arguments)
    assert pipe.text_encoder.dtype == torch.bfloat16
    assert pipe.tokenizer.model_max_length == 248
    assert torch.equal(position_table(pipe.text_encoder), position_table(toys.text_encoder(248)).bfloat16())


def test_another_long_encoder_of_a_single_file_wants_a_config_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "_FIRST_ENCODER", ())
    file, arguments = write_checkpoint(tmp_path, 248)
    write_checkpoint(tmp_path / "stock", 77)
    arguments["config"] = str(tmp_path / "stock" / "config")
    with pytest.raises(ModelError, match=r"holds a text encoder that is long already.*Give config="):
        AutoLongPipeline.from_single_file(file, **arguments)


@pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated:FutureWarning")
@pytest.mark.parametrize("knows", [True, False])
def test_dtype_has_the_name_that_diffusers_reads(monkeypatch, tmp_path, knows):
    monkeypatch.setattr(loading, "_KNOWS_DTYPE", knows)
    StableDiffusionPipeline(**toys.stable_diffusion_components()).save_pretrained(tmp_path)
    seen, load = {}, StableDiffusionPipeline.from_pretrained.__func__
    monkeypatch.setattr(
        StableDiffusionPipeline,
        "from_pretrained",
        classmethod(lambda cls, *args, **kwargs: seen.update(kwargs) or load(cls, *args, **kwargs)),
    )
    pipe = StableDiffusionLongPipeline.from_pretrained(tmp_path, longclip=None, dtype=torch.float16)
    assert pipe.dtype == torch.float16
    assert ("dtype" in seen, "torch_dtype" in seen) == (knows, not knows)


def test_single_file_auto_names_the_choices(tmp_path):
    file, arguments = write_checkpoint(tmp_path, 77)
    with pytest.raises(ModelError, match="No Long-CLIP of width 32 is known for this model"):
        AutoLongPipeline.from_single_file(file, **arguments)


def test_single_file_with_a_controlnet(tmp_path):
    file, arguments = write_checkpoint(tmp_path, 77)
    pipe = AutoLongPipeline.from_single_file(file, longclip=None, controlnet=toys.controlnet(), **arguments)
    assert type(pipe) is StableDiffusionLongControlNetPipeline
