"""Stable Diffusion 3 and Flux: stock's tensors for what fits, a longer CLIP side for what does not, T5 untouched."""

import numpy as np
import pytest
import torch
import toys
import toys_dit
import toys_xl
from diffusers import DiffusionPipeline, FluxImg2ImgPipeline, FluxPipeline, StableDiffusion3Pipeline
from drawing import CHAPTER, SENTENCE, aligned, draw
from torch.testing import assert_close

from longclip_diffusers import AutoLongPipeline, FluxLongPipeline, StableDiffusion3LongPipeline
from longclip_diffusers.errors import ModelError, PromptError
from longclip_diffusers.generation import Painter
from longclip_diffusers.sidecar import Generation, PromptOptions
from longclip_diffusers.text_encoder import num_positions, position_table, save_text_encoder

ROUNDING = {"rtol": 1e-5, "atol": 1e-5}  # the same window in a batch of another size
LONG = SENTENCE * 5  # 160 tokens: one window of 248
T5_ROWS = 256
# The toys' T5 reads bytes, so nearly every text here is too long for it.
pytestmark = pytest.mark.filterwarnings("ignore:Of .* tokens T5 reads the first")


def sd3(**options):
    return StableDiffusion3LongPipeline(**toys_dit.sd3_components(**options))


def encode(pipe, prompt, prompt_2=None, **arguments):
    if isinstance(pipe, StableDiffusion3Pipeline):
        arguments.setdefault("prompt_3", None)
    with torch.no_grad():
        return pipe.encode_prompt(prompt, prompt_2, device="cpu", **arguments)


def assert_equal(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        assert one is other is None or torch.equal(one, other)


# ---- what fits

SD3_CALLS = {
    "short": {"prompt": "a cat"},
    "negative": {"prompt": ["a cat", "a dog"], "negative_prompt": ["x", "y"], "negative_prompt_2": ["z", ""]},
    "three prompts": {"prompt": "a cat", "prompt_2": "b", "prompt_3": "c", "clip_skip": 1},
    "images": {"prompt": ["a cat", "a dog"], "num_images_per_prompt": 2, "max_sequence_length": 64},
    "no guidance": {"prompt": "a cat", "do_classifier_free_guidance": False},
}


@pytest.mark.parametrize("call", SD3_CALLS.values(), ids=SD3_CALLS)
def test_sd3s_tensors_are_stocks(call):
    long = sd3()
    stock = StableDiffusion3Pipeline(**long.components)
    assert_equal(encode(long, **call), encode(stock, **call))


@pytest.mark.parametrize("call", [{}, {"num_images_per_prompt": 2}, {"prompt_2": "in oil"}])
def test_fluxs_tensors_are_stocks(call):
    long = FluxLongPipeline(**toys_dit.flux_components())
    stock = FluxPipeline(**long.components)
    for prompt in ("a cat", ["a cat", "a longer dog"]):
        assert_equal(encode(long, prompt, **call), encode(stock, prompt, **call))


# ---- SD3, long


@pytest.mark.parametrize(("length_2", "options"), [(77, {}), (248, {}), (77, {"g_mode": "first77"})])
@pytest.mark.parametrize("context", ["none", "related"])
def test_sd3_reads_the_whole_text_and_moves_t5_along(length_2, options, context):
    pipe = sd3(length=248, length_2=length_2)
    pipe.prompt_options = PromptOptions(context=context, **options)
    stock = StableDiffusion3Pipeline(**toys_dit.sd3_components())
    (positive, negative, pooled, _), (other, *_) = (encode(pipe, LONG + end) for end in ("red", "blue"))
    clip_rows = positive.shape[1] - T5_ROWS
    assert positive.shape == negative.shape
    in_pieces = (
        context == "related" and length_2 == 77 and not options
    )  # context windows as long as the shorter encoder
    assert clip_rows == (231 if in_pieces else 248)
    assert (positive != other).any(-1)[:, :clip_rows].any()
    t5 = encode(stock, LONG + "red", prompt_2=SENTENCE)[0][:, 77:]
    assert torch.equal(positive[:, clip_rows:], t5)
    assert pooled.shape == (1, 2 * toys_xl.PROJECTION)


def test_sd3s_clip_rows_are_both_encoders_penultimate_states():
    pipe = sd3(length=248, length_2=248)
    (window,) = pipe.plan_prompt(LONG).windows
    positive = encode(pipe, LONG, num_images_per_prompt=2)[0]
    at = 0
    for encoder, pad in ((pipe.text_encoder, 513), (pipe.text_encoder_2, 0)):
        ids = torch.tensor([[*window.ids, *[pad] * (248 - len(window.ids))]])
        with torch.no_grad():
            states = encoder(ids, output_hidden_states=True).hidden_states[-2]
        for image in (0, 1):
            assert_close(positive[image, :248, at : at + states.shape[-1]], states[0], **ROUNDING)
        at += states.shape[-1]


def test_sd3s_second_encoder_reads_as_g_mode_says():
    chunk, first77 = sd3(length=248), sd3(length=248)
    chunk.prompt_options = PromptOptions(context="none")
    first77.prompt_options = PromptOptions(context="none", g_mode="first77")
    chunks, firsts = (encode(pipe, LONG)[0][:, :248] for pipe in (chunk, first77))
    assert torch.equal(chunks[..., : toys.WIDTH], firsts[..., : toys.WIDTH])
    assert not torch.equal(chunks[..., toys.WIDTH :], firsts[..., toys.WIDTH :])
    chunk.prompt_options = PromptOptions(g_mode="stretch")
    with pytest.raises(ModelError, match="never stretched"):
        encode(chunk, LONG)


def test_sd3s_texts_end_with_equal_rows_also_beside_given_embeddings():
    pipe = sd3(length=248)
    pipe.prompt_options = PromptOptions(context="none")
    for call in ({"prompt": CHAPTER, "negative_prompt": "x"}, {"prompt": "x", "prompt_2": CHAPTER}):
        positive, negative, *_ = encode(pipe, **call)
        assert positive.shape == negative.shape
        assert positive.shape[1] == 248 * len(pipe.plan_prompt(CHAPTER).windows) + T5_ROWS
    positive, negative, pooled, _ = encode(pipe, CHAPTER, negative_prompt="dark")
    given = {"prompt_embeds": positive, "pooled_prompt_embeds": pooled}
    ours = encode(pipe, None, negative_prompt="dark", **given)
    assert_close(ours[1], negative, **ROUNDING)
    short = {**given, "prompt_embeds": positive[:, -77 - T5_ROWS :]}
    with pytest.raises(PromptError, match="Embeddings with 77 CLIP rows were given beside a text of"):
        encode(pipe, None, negative_prompt=CHAPTER, **short)
    assert pipe._clip_rows is None


def test_sd3_without_a_clip_encoder_says_so():
    pipe = sd3()
    pipe.register_modules(text_encoder_2=None)
    with pytest.raises(ModelError, match="both of its CLIP text encoders"):
        encode(pipe, "a cat")


def test_sd3_keeps_its_own_projection_of_the_first_and_takes_the_seconds(tmp_path):
    pipe = sd3()
    own = pipe.text_encoder.text_projection.weight.clone()
    first, second = toys.text_encoder_with_projection(248, seed=9), toys_xl.text_encoder_2(248, seed=8)
    save_text_encoder(first, tmp_path / "text_encoder")
    save_text_encoder(second, tmp_path / "text_encoder_2")
    pipe.load_longclip(tmp_path)
    assert torch.equal(position_table(pipe.text_encoder), position_table(first))
    assert torch.equal(pipe.text_encoder.text_projection.weight, own)
    assert torch.equal(pipe.text_encoder_2.text_projection.weight, second.text_projection.weight)
    assert pipe.tokenizer_max_length == 248


# ---- Flux, long


def test_flux_pools_at_the_end_of_what_a_long_encoder_reads(recwarn):
    pipe = FluxLongPipeline(**toys_dit.flux_components(length=248))
    stock = FluxPipeline(**toys_dit.flux_components())
    embeds, pooled, text_ids = encode(pipe, LONG + "red")
    assert not torch.equal(pooled, encode(pipe, LONG + "blue")[1])
    expected = encode(stock, SENTENCE, prompt_2=LONG + "red")
    assert_equal((embeds, text_ids), (expected[0], expected[2]))
    assert not [each for each in recwarn.list if "CLIP reads" in str(each.message)]


@pytest.mark.parametrize("make", [sd3, lambda: FluxLongPipeline(**toys_dit.flux_components())], ids=["sd3", "flux"])
def test_what_t5_does_not_read_is_said(make, recwarn):
    pipe, limit = make(), len(toys_dit.t5_tokenizer()("a cat").input_ids)
    encode(pipe, "a cat", max_sequence_length=limit)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=f"Of {limit + 1} tokens T5 reads the first {limit}, max_sequence_length"):
        encode(pipe, ["a cat", "a boat"], max_sequence_length=limit)


def test_without_t5_nothing_is_said_of_it(recwarn):
    components = toys_dit.sd3_components() | {"text_encoder_3": None, "tokenizer_3": None}
    encode(StableDiffusion3LongPipeline(**components), "a boat", max_sequence_length=6)
    assert not recwarn.list


def test_flux_says_what_clip_does_not_read():
    pipe = FluxLongPipeline(**toys_dit.flux_components(length=248))
    with pytest.warns(UserWarning, match=r"Of 640 tokens CLIP reads the first 224.*T5 reads on"):
        encode(pipe, CHAPTER)


def test_flux_pools_at_the_end_also_behind_a_textual_inversion():
    pipe = FluxLongPipeline(**toys_dit.flux_components(length=248))
    pipe.load_textual_inversion({"<x>": torch.randn(2, toys.WIDTH)}, token="<x>")
    expected = encode(pipe, "a <x> cat")[1]
    pipe.text_encoder.config.eos_token_id = pipe.text_encoder.eos_token_id = 2
    assert torch.equal(encode(pipe, "a <x> cat")[1], expected)
    assert not torch.allclose(encode(FluxPipeline(**pipe.components), "a <x> cat")[1], expected, atol=1e-4)


# ---- loaded, drawn, saved

FAMILIES = pytest.mark.parametrize(
    ("stock", "long", "components"),
    [
        (StableDiffusion3Pipeline, StableDiffusion3LongPipeline, toys_dit.sd3_components),
        (FluxPipeline, FluxLongPipeline, toys_dit.flux_components),
    ],
    ids=["SD3", "Flux"],
)


@FAMILIES
def test_loaded_long_it_reads_on_and_saved_it_is_stocks(stock, long, components, tmp_path):
    stock(**components()).save_pretrained(tmp_path / "model")
    pipe = aligned(AutoLongPipeline.from_pretrained(tmp_path / "model", longclip="stretch"))
    assert type(pipe) is long
    assert num_positions(pipe.text_encoder) == 248
    assert pipe.tokenizer_max_length == pipe.tokenizer.model_max_length  # stock's code would cut there
    arguments = {"prompt_2": "a", **({"prompt_3": "a"} if stock is StableDiffusion3Pipeline else {})}
    red, blue = (draw(pipe, LONG + end, **arguments) for end in ("red", "blue"))
    assert np.abs(red - blue).max() > 1e-5  # through CLIP alone: the other encoders read "a"
    pipe.save_pretrained(tmp_path / "saved")
    assert type(DiffusionPipeline.from_pretrained(tmp_path / "saved")) is stock
    again = aligned(AutoLongPipeline.from_pretrained(tmp_path / "saved"))
    assert np.array_equal(draw(again, LONG, **arguments), draw(pipe, LONG, **arguments))


@FAMILIES
def test_from_pipe_shares_and_draws_the_same(stock, long, components):
    pipe = stock(**components())
    twin = AutoLongPipeline.from_pipe(pipe)
    assert type(twin) is long
    assert all(twin.components[name] is each for name, each in pipe.components.items())
    assert np.array_equal(draw(twin), draw(pipe))


@FAMILIES
@pytest.mark.filterwarnings("ignore:text_encoder_2 is stretched and was not fine-tuned")
def test_nothing_stays_at_77_unnoticed(stock, long, components):
    both = {"g_mode": "stretch"} if stock is StableDiffusion3Pipeline else {}  # the limit is the shorter encoder's
    pipe = AutoLongPipeline.from_pipe(stock(**components()), longclip="stretch", **both)
    assert pipe.tokenizer_max_length == pipe.tokenizer.model_max_length == 248
    # What stock's constructor keeps of an encoder or a tokenizer is what it keeps of those that came later.
    kept = {name: value for name, value in vars(stock(**pipe.components)).items() if isinstance(value, int | str)}
    assert "tokenizer_max_length" in kept
    assert kept.items() <= vars(pipe).items()


@FAMILIES
def test_painter_draws_without_a_unet(stock, long, components):
    painter = Painter(long(**components()), Generation(1, 3.0), (64, 64))
    assert painter("a cat", seed=1).size == (64, 64)
    expected = 64 if stock is StableDiffusion3Pipeline else 8 * 128  # Flux's own default
    assert painter.trained_size == (expected, expected)


def test_from_pipe_of_a_class_without_a_file_of_its_own():
    twin = AutoLongPipeline.from_pipe(FluxImg2ImgPipeline(**toys_dit.flux_components()), longclip="stretch")
    assert isinstance(twin, FluxImg2ImgPipeline)
    assert not torch.equal(encode(twin, LONG + "red")[1], encode(twin, LONG + "blue")[1])


@pytest.mark.parametrize("make", [sd3, lambda: FluxLongPipeline(**toys_dit.flux_components())])
def test_a_syntax_that_t5_would_read_as_text_is_refused(make):
    pipe = make()
    pipe.prompt_options = PromptOptions(syntax="a1111")
    with pytest.raises(PromptError, match="syntax is 'a1111'; this family reads 'plain' only"):
        encode(pipe, "a (red) cat")
