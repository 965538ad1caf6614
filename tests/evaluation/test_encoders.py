"""The ways to read a long prompt: each is what it says, and a picture depends on its text and seed alone."""

import numpy as np
import pytest
import torch
from compel import Compel
from compel.embeddings_provider import SplitLongTextMode
from diffusers import StableDiffusionPipeline
from miniatures import save_miniature

from longclip_diffusers import LongClipError
from longclip_diffusers.evaluation.detail import describe_scenes
from longclip_diffusers.evaluation.encoders import ENCODERS, draw_pictures, encode_texts, load_encoder
from longclip_diffusers.positions import linear_positions, stretch_positions
from longclip_diffusers.sidecar import read_generation
from longclip_diffusers.text_encoder import position_table

UNTRAINED = [name for name, encoder in ENCODERS.items() if not encoder.arm]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_miniature(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def texts():
    """A short prompt, two long captions and a chapter."""
    told = [describe_scenes(2, seed=0, kind=kind) for kind in ("short", "long", "chapter")]
    return [str(caption) for _, caption in (told[0][0], *told[1], told[2][0])]


def states(pipe, texts):
    return {
        number: row
        for numbers, rows in encode_texts(pipe, texts, batch_size=20)
        for number, row in zip(numbers, rows, strict=True)
    }


@pytest.fixture(scope="module")
def read(model, texts):
    return {name: states(load_encoder(model, name), texts) for name in UNTRAINED}


def test_hard_windows_are_those_of_compel_that_cuts_brutally(model, texts, read):
    pipe = StableDiffusionPipeline.from_pretrained(model)
    compel = Compel(
        pipe.tokenizer,
        pipe.text_encoder,
        truncate_long_prompts=False,
        split_long_text_mode=SplitLongTextMode.BRUTAL,
    )
    for number, text in enumerate(texts):
        with torch.no_grad():
            theirs = compel.build_conditioning_tensor(text)
        # compel reads a window at a time, ours sixteen
        torch.testing.assert_close(read["windows"][number], theirs[0], atol=1e-5, rtol=1e-4)


def test_every_encoder_reads_as_its_name_says(model, texts, read):
    rows = {name: [len(found[number]) for number in range(3)] for name, found in read.items()}
    assert rows["truncated"] == [77, 77, 77]
    assert rows["kps"] == rows["linear"] == [77, 248, 248]
    assert rows["windows"][0] == rows["windows_sentence"][0] == 77
    chapters = {name: len(found[3]) for name, found in read.items()}
    assert chapters["truncated"] == 77
    assert chapters["windows"] <= chapters["windows_sentence"]  # never a row left empty
    assert chapters["kps"] % 248 == chapters["windows_context"] % 77 == 0
    windows = [read[name] for name in ("windows", "windows_sentence", "windows_context")]
    for found in windows:
        torch.testing.assert_close(found[0], read["truncated"][0])
    assert len({found[3][77:154].sum().item() for found in windows}) == 3


def test_stretched_tables_are_the_stock_ones_stretched(model):
    stock = position_table(load_encoder(model, "truncated").text_encoder)
    assert torch.equal(position_table(load_encoder(model, "kps").text_encoder), stretch_positions(stock.detach()))
    assert torch.equal(position_table(load_encoder(model, "linear").text_encoder), linear_positions(stock.detach()))


def test_what_the_models_sidecar_prefers_is_for_its_own_encoder_alone(model):
    contexts = {name: load_encoder(model, name).prompt_options.context for name in UNTRAINED if name != "truncated"}
    assert contexts == {**dict.fromkeys(contexts, "none"), "windows_context": "related", "long": "related"}


def test_truncated_draws_what_stock_diffusers_draws(model, texts):
    stock = StableDiffusionPipeline.from_pretrained(model)
    stock.set_progress_bar_config(disable=True)
    noise = [torch.Generator().manual_seed(5 + number) for number in range(2)]
    theirs = stock(texts[:2], num_inference_steps=2, guidance_scale=2.0, generator=noise).images
    ours = dict(draw_pictures(load_encoder(model, "truncated"), texts[:2], read_generation(model), seed=5))
    for number, picture in enumerate(theirs):
        assert np.array_equal(np.asarray(ours[number]), np.asarray(picture))


@pytest.mark.parametrize("name", ["windows_sentence", "windows_context", "long"])
def test_a_picture_is_that_of_its_text_drawn_alone(model, texts, name):
    pipe = load_encoder(model, name)
    together = dict(draw_pictures(pipe, texts, read_generation(model), batch_size=2))
    for number, text in enumerate(texts):
        noise = torch.Generator().manual_seed(number)
        alone = pipe(text, num_inference_steps=2, guidance_scale=2.0, generator=noise).images[0]
        difference = np.abs(np.asarray(together[number], dtype=int) - np.asarray(alone, dtype=int))
        assert difference.max() <= 1  # sums of a batch are rounded otherwise


def test_batches_hold_texts_of_equally_many_rows(model, texts):
    pipe = load_encoder(model, "long")
    batches = [(numbers, tuple(rows.shape)) for numbers, rows in encode_texts(pipe, texts, batch_size=2)]
    assert sorted(number for numbers, _ in batches for number in numbers) == [0, 1, 2, 3]
    assert [shape[1] for _, shape in batches] == sorted(shape[1] for _, shape in batches)
    assert all(len(numbers) == shape[0] <= 2 for numbers, shape in batches)


@pytest.mark.parametrize(
    ("name", "message"),
    [("best", "no encoder 'best'; choose from truncated, windows,"), ("ours", "'ours' is fine-tuned first")],
)
def test_unknown_and_untrained_encoders_are_named(model, name, message):
    with pytest.raises(LongClipError, match=message):
        load_encoder(model, name)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(LongClipError, match="is no diffusers folder"):
        load_encoder(tmp_path, "truncated")
