"""Which encoders an SDXL pipeline gets: from files, folders and runs, stretched or not; and what it refuses."""

import warnings

import pytest
import torch
import toys
import toys_xl
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from longclip_diffusers import (
    StableDiffusionLongPipeline,
    StableDiffusionXLLongImg2ImgPipeline,
    StableDiffusionXLLongPipeline,
    stretch_text_encoder,
)
from longclip_diffusers.errors import CheckpointError, LongClipError, ModelError
from longclip_diffusers.sidecar import SIDECAR, PromptOptions, format_sidecar
from longclip_diffusers.text_encoder import num_positions, position_table, save_text_encoder

FIRST, SECOND = toys.text_encoder(248, seed=9), toys_xl.text_encoder_2(248, seed=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xl")
    StableDiffusionXLPipeline(**toys_xl.components()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def refiner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refiner")
    StableDiffusionXLImg2ImgPipeline(**toys_xl.refiner_components()).save_pretrained(folder)
    return folder


def run(folder, first=FIRST, second=SECOND):
    """A training run's state: the encoders that it trained."""
    for name, encoder in {"text_encoder": first, "text_encoder_2": second}.items():
        if encoder is not None:
            save_text_encoder(encoder, folder / name)
    return folder


def lengths(pipe):
    """Rows of both encoders, after a look at the tokenizers' limits: stock can pad to the shorter one's only."""
    encoders = (pipe.text_encoder, pipe.text_encoder_2)
    found = tuple(encoder and num_positions(encoder) for encoder in encoders)
    limits = [each.model_max_length for each in (pipe.tokenizer, pipe.tokenizer_2) if each is not None]
    assert set(limits) == {min(rows for rows in found if rows)}
    return found


def same_weights(encoder, other):
    mine, theirs = encoder.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def load(model, **options):
    return StableDiffusionXLLongPipeline.from_pretrained(model, **options)


# ---- longclip=


def test_a_source_of_one_encoder_replaces_the_first(base, tmp_path):
    pipe = load(base, longclip=run(tmp_path, second=None))
    assert lengths(pipe) == (248, 77)
    assert same_weights(pipe.text_encoder, FIRST)
    assert same_weights(pipe.text_encoder_2, toys_xl.text_encoder_2())
    assert pipe.tokenizer_2.pad_token_id == 0


@pytest.mark.parametrize("inside", ["", "best", "last"])
def test_a_folder_of_both_replaces_both(base, tmp_path, inside):
    run(tmp_path / inside)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # trained weights are not flagged
        pipe = load(base, longclip=tmp_path, g_mode="stretch")
    assert lengths(pipe) == (248, 248)
    assert same_weights(pipe.text_encoder, FIRST)
    assert same_weights(pipe.text_encoder_2, SECOND)


def test_a_folder_of_the_second_alone_replaces_that(base, tmp_path):
    pipe = load(base, longclip=run(tmp_path, first=None))
    assert lengths(pipe) == (77, 248)
    assert same_weights(pipe.text_encoder_2, SECOND)


def test_a_source_replaces_the_encoder_that_has_its_width(base, tmp_path):
    save_text_encoder(SECOND, tmp_path)
    assert lengths(load(base, longclip=tmp_path)) == (77, 248)


def test_a_second_of_77_rows_is_taken_too(base, tmp_path):
    pipe = load(base, longclip=run(tmp_path, second=toys_xl.text_encoder_2(seed=3)))
    assert lengths(pipe) == (248, 77)
    assert same_weights(pipe.text_encoder_2, toys_xl.text_encoder_2(seed=3))


def test_auto_is_what_the_sidecar_names(tmp_path):
    StableDiffusionXLPipeline(**toys_xl.components()).save_pretrained(tmp_path)
    run(tmp_path / "longclip")
    saved = PromptOptions(g_mode="first77")
    (tmp_path / SIDECAR).write_text(format_sidecar(saved, longclip="longclip"), encoding="utf-8")
    pipe = load(tmp_path)
    assert lengths(pipe) == (248, 248)
    assert pipe.prompt_options == saved
    assert load(tmp_path, longclip=None, g_mode="chunk").prompt_options.g_mode == "chunk"


def test_auto_of_an_unknown_width_names_the_choices(base):
    with pytest.raises(ModelError, match=r"No Long-CLIP of width 32.*\"stretch\".*None"):
        load(base)


def test_auto_asks_the_catalog_for_the_first_encoder(tmp_path):
    encoder = toys.text_encoder(hidden_size=768)
    StableDiffusionXLPipeline(**toys_xl.components(text_encoder=encoder)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="BeichenZhang/LongCLIP-L"):  # empty cache, no network: but it was asked
        load(tmp_path, local_files_only=True, cache_dir=tmp_path / "cache")


def test_what_does_not_fit_is_refused(base, tmp_path):
    with pytest.raises(CheckpointError, match="77 position rows"):
        load(base, longclip=run(tmp_path / "short", first=toys.text_encoder()))
    with pytest.raises(ModelError, match=r"width 40, the UNet was trained with 32"):
        load(base, longclip=run(tmp_path / "other", toys.text_encoder(248, hidden_size=40), None))
    other = toys.text_encoder_with_projection(248, hidden_size=toys_xl.WIDTH_2, projection_dim=20)
    with pytest.raises(ModelError, match="projects to 20, the UNet was trained with 24"):
        load(base, longclip=run(tmp_path / "projection", None, other))
    save_text_encoder(toys.text_encoder(248, hidden_size=toys_xl.WIDTH_2), tmp_path / "bare")
    with pytest.raises(CheckpointError, match=r"lacks text_projection\.weight"):
        load(base, longclip=tmp_path / "bare")


# ---- g_mode="stretch"


def test_stretch_brings_the_second_to_the_firsts_length_and_flags_it(base, tmp_path):
    with pytest.warns(UserWarning, match="text_encoder_2 is stretched and was not fine-tuned"):
        pipe = load(base, longclip=run(tmp_path / "run", second=None), g_mode="stretch")
    assert lengths(pipe) == (248, 248)
    assert same_weights(pipe.text_encoder_2, stretch_text_encoder(toys_xl.text_encoder_2()))
    pipe.save_pretrained(tmp_path / "saved")
    with pytest.warns(UserWarning, match="not fine-tuned"):
        again = load(tmp_path / "saved")
    assert again.prompt_options.g_mode == "stretch"
    assert same_weights(again.text_encoder_2, pipe.text_encoder_2)


def test_longclip_stretch_is_for_the_first_and_keep_and_factor_for_both(base):
    assert lengths(load(base, longclip="stretch")) == (248, 77)
    with pytest.warns(UserWarning, match="not fine-tuned"):
        pipe = load(base, longclip="stretch", g_mode="stretch", keep=30, factor=2)
    assert lengths(pipe) == (124, 124)


def test_none_leaves_both_as_they_are(base):
    pipe = load(base, longclip=None, g_mode="stretch")
    assert lengths(pipe) == (77, 77)
    assert pipe.prompt_options.g_mode == "stretch"


def test_load_longclip_that_fails_changes_nothing(tmp_path):
    pipe = StableDiffusionXLLongPipeline(**toys_xl.components(length=248))
    before = pipe.prompt_options, pipe.text_encoder, pipe.text_encoder_2, pipe.tokenizer
    with pytest.raises(LongClipError):
        pipe.load_longclip(tmp_path / "nowhere", g_mode="stretch")
    assert (pipe.prompt_options, pipe.text_encoder, pipe.text_encoder_2, pipe.tokenizer) == before


def test_load_longclip_stretches_a_built_pipelines_second(base):
    pipe = StableDiffusionXLLongPipeline(**toys_xl.components(length=248))
    shared = pipe.text_encoder_2
    with pytest.warns(UserWarning, match="not fine-tuned"):
        pipe.load_longclip(g_mode="stretch")
    assert lengths(pipe) == (248, 248)
    assert num_positions(shared) == 77
    assert pipe.encode_prompt("a " * 200, device="cpu")[0].shape[1] == 248


def test_g_mode_is_refused_where_there_is_no_second_encoder():
    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components(length=248))
    with pytest.raises(ModelError, match="g_mode='chunk' is about SDXL's second text encoder"):
        pipe.load_longclip(g_mode="chunk")


# ---- the refiner


def load_refiner(model, **options):
    return StableDiffusionXLLongImg2ImgPipeline.from_pretrained(model, **options)


def test_refiner_as_it_is_needs_no_long_encoder(refiner):
    assert lengths(load_refiner(refiner)) == (None, 77)


@pytest.mark.parametrize("options", [{"longclip": "stretch"}, {"g_mode": "stretch"}])
def test_refiner_stretched(refiner, options):
    with pytest.warns(UserWarning, match="not fine-tuned"):
        pipe = load_refiner(refiner, **options)
    assert lengths(pipe) == (None, 248)


def test_refiner_takes_the_second_of_a_folder_of_both(refiner, tmp_path):
    pipe = load_refiner(refiner, longclip=run(tmp_path))
    assert same_weights(pipe.text_encoder_2, SECOND)


def test_refiner_refuses_a_first_encoder(refiner, tmp_path):
    save_text_encoder(FIRST, tmp_path)
    with pytest.raises(ModelError, match="width 32, the UNet was trained with 48"):
        load_refiner(refiner, longclip=tmp_path)


# ---- from_pipe


def test_from_pipe_with_a_long_encoder_leaves_the_given_pipeline_alone(tmp_path):
    stock = StableDiffusionXLPipeline(**toys_xl.components())
    stock.unet.half()
    twin = StableDiffusionXLLongPipeline.from_pipe(stock, longclip=run(tmp_path))
    assert lengths(twin) == (248, 248)
    assert (num_positions(stock.text_encoder), num_positions(stock.text_encoder_2)) == (77, 77)
    assert twin.unet is stock.unet
    assert twin.unet.dtype == torch.float16
    assert torch.equal(position_table(twin.text_encoder), position_table(FIRST))
