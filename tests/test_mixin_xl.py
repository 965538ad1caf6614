"""SDXL's `encode_prompt`: stock's four tensors for what fits, and two encoders that read long texts in step."""

import pytest
import torch
import toys
import toys_xl
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from drawing import CHAPTER
from encoding_xl import LONG, ROUNDING, assert_equal, encode, halves, ids_of_rows, long_pipeline, without_depth
from torch.testing import assert_close

from longclip_diffusers import StableDiffusionXLLongImg2ImgPipeline, StableDiffusionXLLongPipeline, plan_windows
from longclip_diffusers.errors import ModelError, PromptError
from longclip_diffusers.sidecar import PromptOptions

FULL = "a" * 10 + " " + "b " * 65  # 75 tokens


# ---- what fits: stock's own

CALLS = {
    "short": {"prompt": "a red cat on a chair"},
    "empty": {"prompt": ""},
    "exactly full": {"prompt": FULL},
    "odd characters": {"prompt": "naïve café, 100 % #1 (a:1.3) [b] ++ 猫"},
    "negative": {"prompt": "a cat", "negative_prompt": "blurred, dark"},
    "empty negative": {"prompt": "a cat", "negative_prompt": ""},
    "two prompts": {"prompt": "a cat", "prompt_2": "in oil", "negative_prompt": "x", "negative_prompt_2": "y z"},
    "empty second": {"prompt": "a cat", "prompt_2": "", "negative_prompt": "x", "negative_prompt_2": ""},
    "clip skip": {"prompt": "a cat", "clip_skip": 1},
    "clip skip with all": {"prompt": "a", "prompt_2": "b", "negative_prompt": "c", "clip_skip": 2},
    "batch": {"prompt": ["a cat", "a dog"], "prompt_2": ["b", "c d"], "negative_prompt": ["x", "y z"]},
    "only a second negative": {"prompt": "a cat", "negative_prompt_2": "grey"},
    "one negative": {"prompt": ["a cat", "a dog"], "negative_prompt": "dark", "negative_prompt_2": "grey"},
    "images": {"prompt": ["a cat", "a dog"], "negative_prompt": "dark", "num_images_per_prompt": 3},
    "no guidance": {"prompt": "a cat", "negative_prompt": "x", "do_classifier_free_guidance": False},
}


@pytest.mark.parametrize("zeros", [True, False], ids=["zeros", "no zeros"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_all_four_tensors_are_stocks(call, zeros):
    components = {**toys_xl.components(), "force_zeros_for_empty_prompt": zeros}
    stock, long = StableDiffusionXLPipeline(**components), StableDiffusionXLLongPipeline(**components)
    expected = encode(stock, **call)
    assert_equal(encode(long, **call), expected)
    assert (expected[1] is not None and not expected[1].any()) == (
        zeros and "negative_prompt" not in call and call.get("do_classifier_free_guidance", True)
    )


@pytest.mark.parametrize("call", ["short", "negative", "clip skip", "batch", "images", "no guidance"])
def test_refiners_tensors_are_stocks(call):
    components = toys_xl.refiner_components()
    stock = StableDiffusionXLImg2ImgPipeline(**components)
    long = StableDiffusionXLLongImg2ImgPipeline(**components)
    arguments = {**CALLS[call], "prompt_2": None}
    assert_equal(encode(long, **arguments), encode(stock, **arguments))


@pytest.mark.parametrize("options", [{"context": "related"}, {"g_mode": "stretch"}, {"g_mode": "first77"}])
def test_no_option_touches_what_fits(options):
    stock = StableDiffusionXLPipeline(**toys_xl.components())
    pipe = long_pipeline(77, **options)
    assert_equal(encode(pipe, FULL, negative_prompt="dark"), encode(stock, FULL, negative_prompt="dark"))


# ---- rows: the same token in both encoders


@pytest.mark.parametrize("context", ["none", "related"])
@pytest.mark.parametrize(("length", "length_2"), [(248, 77), (77, 77), (248, 248), (77, 248), (248, 100)])
def test_row_r_of_both_encoders_comes_from_the_same_token(length, length_2, context):
    pipe = long_pipeline(length, length_2, context=context)
    without_depth(pipe.text_encoder)
    without_depth(pipe.text_encoder_2)
    prompts = [CHAPTER, LONG, "a cat"]
    embeds, *_ = encode(pipe, prompts, negative_prompt=LONG)
    first, second = ids_of_rows(pipe, embeds)
    assert torch.equal(first, second)
    for row, prompt in zip(first.tolist(), prompts, strict=True):
        content = [token for token in row if 0 <= token < 512]
        assert content == pipe.tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids


# "auto" is "none" here, where it is "related" without BREAK.
@pytest.mark.parametrize("context", ["none", "related", "auto"])
@pytest.mark.parametrize(("length", "length_2"), [(248, 77), (77, 77), (248, 248), (77, 248), (248, 100)])
def test_row_r_comes_from_the_same_token_on_both_sides_of_a_break(length, length_2, context):
    pipe = long_pipeline(length, length_2, context=context, syntax="a1111")
    without_depth(pipe.text_encoder)
    without_depth(pipe.text_encoder_2)
    embeds, *_ = encode(pipe, f"a cat BREAK {CHAPTER}BREAK {LONG}")
    first, second = ids_of_rows(pipe, embeds)
    assert torch.equal(first, second)
    content = [token for token in first[0].tolist() if 0 <= token < 512]
    assert content == pipe.tokenizer(f"a cat {CHAPTER}{LONG}", add_special_tokens=False, verbose=False).input_ids


def test_windows_of_both_encoders_hold_one_start_and_one_end():
    pipe = long_pipeline()
    without_depth(pipe.text_encoder)
    without_depth(pipe.text_encoder_2)
    _, second = ids_of_rows(pipe, encode(pipe, CHAPTER)[0])
    num_windows = len(pipe.plan_prompt(CHAPTER).windows)
    assert num_windows > 1
    assert second.shape[1] == 248 * num_windows
    assert (second == 512).nonzero()[:, 1].tolist() == [248 * number for number in range(num_windows)]
    assert (second == 513).sum() == num_windows


# ---- what the second encoder's rows are


def read_alone(encoder, tokenizer, ids, rows):
    padded = [*ids, *[tokenizer.pad_token_id] * (rows - len(ids))]
    with torch.no_grad():
        return encoder(torch.tensor([padded]), output_hidden_states=True)


def test_chunks_are_windows_of_77_joined():
    pipe = long_pipeline()
    first, second = halves(encode(pipe, LONG)[0][0])
    (window,) = pipe.plan_prompt(LONG).windows
    whole = read_alone(pipe.text_encoder, pipe.tokenizer, window.ids, 248).hidden_states[-2][0]
    assert_close(first, whole, **ROUNDING)
    at = 0
    pieces = plan_windows(LONG, pipe.tokenizer_2, window=77).windows
    assert len(pieces) == 3
    for number, piece in enumerate(pieces):
        states = read_alone(pipe.text_encoder_2, pipe.tokenizer_2, piece.ids, 77).hidden_states[-2][0]
        own = states[1 if number else 0 : len(piece.ids) - 1]
        assert_close(second[at : at + len(own)], own, **ROUNDING)
        at += len(own)
    behind = states[len(piece.ids) - 1 :]  # EOS and padding of the last
    assert_close(second[at : at + len(behind)], behind, **ROUNDING)
    at += len(behind)
    empty = read_alone(pipe.text_encoder_2, pipe.tokenizer_2, (512, 513), 77).hidden_states[-2][0]
    assert_close(second[at:], empty[2:].repeat(4, 1)[: 248 - at], **ROUNDING)


@pytest.mark.parametrize("g_mode", ["chunk", "stretch"])
def test_a_long_second_encoder_reads_whole_windows(g_mode):
    pipe = long_pipeline(length_2=248, g_mode=g_mode)
    _, second = halves(encode(pipe, CHAPTER)[0][0])
    for number, window in enumerate(pipe.plan_prompt(CHAPTER).windows):
        states = read_alone(pipe.text_encoder_2, pipe.tokenizer_2, window.ids, 248).hidden_states[-2][0]
        assert_close(second[248 * number : 248 * number + 248], states, **ROUNDING)


def test_first77_is_what_stock_reads_and_no_more():
    pipe = long_pipeline(g_mode="first77")
    stock = StableDiffusionXLPipeline(**toys_xl.components())
    _, second = halves(encode(pipe, LONG)[0])
    assert_close(second[:, :77], halves(encode(stock, LONG)[0])[1], **ROUNDING)
    first, other = (halves(encode(pipe, LONG + end)[0]) for end in ("red", "blue"))
    assert torch.equal(first[1], other[1])
    assert not torch.equal(first[0], other[0])
    empty = read_alone(pipe.text_encoder_2, pipe.tokenizer_2, (512, 513), 77).hidden_states[-2]
    assert_close(second[:, 77 : 77 + 75], empty[:, 2:], **ROUNDING)


def test_modes_differ_where_the_text_is_long():
    chunk, first77 = (encode(long_pipeline(g_mode=mode), LONG)[0] for mode in ("chunk", "first77"))
    stretch = encode(long_pipeline(length_2=248), LONG)[0]
    assert not torch.equal(chunk, first77)
    assert not torch.equal(chunk, stretch)


def test_pooled_is_the_second_encoders_first_window_projected():
    pipe = long_pipeline()
    pooled = encode(pipe, CHAPTER)[2]
    piece = plan_windows(CHAPTER, pipe.tokenizer_2, window=77).windows[0]
    assert_close(pooled, read_alone(pipe.text_encoder_2, pipe.tokenizer_2, piece.ids, 77).text_embeds, **ROUNDING)


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_clip_skip_counts_from_the_penultimate_layer_of_both(clip_skip):
    pipe = long_pipeline(length_2=248)
    positive, negative, pooled, _ = encode(pipe, LONG, negative_prompt=LONG, clip_skip=clip_skip)
    (window,) = pipe.plan_prompt(LONG).windows
    for side, skip in ((positive, clip_skip), (negative, 0)):  # diffusers skips no layer for the negative
        for states, encoder, tokenizer in zip(
            halves(side), (pipe.text_encoder, pipe.text_encoder_2), (pipe.tokenizer, pipe.tokenizer_2), strict=True
        ):
            assert_close(states, read_alone(encoder, tokenizer, window.ids, 248).hidden_states[-2 - skip], **ROUNDING)
    assert torch.equal(pooled, encode(pipe, LONG)[2])


def test_refiner_reads_windows_of_its_own_length():
    pipe = StableDiffusionXLLongImg2ImgPipeline(**toys_xl.refiner_components())
    pipe.prompt_options = PromptOptions(context="none")
    embeds, negative, pooled, _ = encode(pipe, LONG)
    windows = pipe.plan_prompt(LONG).windows
    assert embeds.shape == negative.shape == (1, 77 * len(windows), toys_xl.WIDTH_2)
    for number, window in enumerate(windows):
        output = read_alone(pipe.text_encoder_2, pipe.tokenizer_2, window.ids, 77)
        assert_close(embeds[:, 77 * number : 77 * number + 77], output.hidden_states[-2], **ROUNDING)
        assert number or torch.allclose(pooled, output.text_embeds, **ROUNDING)


# ---- lengths


@pytest.mark.parametrize(
    "texts",
    [
        {"prompt": CHAPTER, "negative_prompt": "x"},
        {"prompt": "x", "negative_prompt": CHAPTER},
        {"prompt": "x", "prompt_2": CHAPTER},
        {"prompt": "x", "negative_prompt": "y", "negative_prompt_2": CHAPTER},
    ],
    ids=lambda texts: "+".join(name for name, text in texts.items() if text is CHAPTER),
)
def test_the_longest_text_of_all_decides_the_rows(texts):
    pipe = long_pipeline()
    positive, negative, *_ = encode(pipe, **texts)
    rows = 248 * len(pipe.plan_prompt(CHAPTER).windows)
    assert positive.shape == negative.shape == (1, rows, toys.WIDTH + toys_xl.WIDTH_2)


@pytest.mark.parametrize("context", ["none", "related"])
@pytest.mark.parametrize("side", ["prompt", "negative_prompt"])
def test_each_encoder_reads_its_own_text(side, context):
    pipe = long_pipeline(context=context)
    short, long = ({"prompt": "x", "negative_prompt": "x", side: text} for text in ("a cat", CHAPTER))
    at = ("prompt", "negative_prompt").index(side)
    ours = encode(pipe, **short, **{f"{side}_2": CHAPTER})
    first, second = halves(ours[at])
    expected = encode(pipe, **long)
    assert_close(second, halves(expected[at])[1], **ROUNDING)
    assert_close(ours[2 + at], expected[2 + at], **ROUNDING)
    # The short prompt with as many rows: of a call whose other side is long.
    other = {"prompt": "negative_prompt", "negative_prompt": "prompt"}[side]
    assert_close(first, halves(encode(pipe, **{**short, other: CHAPTER})[at])[0], **ROUNDING)


def test_batch_equals_its_singles():
    pipe = long_pipeline()
    prompts = [CHAPTER, LONG, "a cat"]
    embeds, _, pooled, _ = encode(pipe, prompts, num_images_per_prompt=2)
    assert len(embeds) == len(pooled) == 6
    for number, prompt in enumerate(prompts[:2]):
        single, _, one_pooled, _ = encode(pipe, prompt)
        assert_close(embeds[2 * number : 2 * number + 1, : single.shape[1]], single, **ROUNDING)
        assert_close(pooled[2 * number + 1 : 2 * number + 2], one_pooled, **ROUNDING)


# ---- given embeddings


def test_texts_take_the_rows_of_given_embeddings():
    pipe = long_pipeline()
    given, _, pooled, _ = encode(pipe, CHAPTER)
    ours = encode(pipe, None, prompt_embeds=given, pooled_prompt_embeds=pooled, negative_prompt="dark")
    assert_equal(ours[::2], (given, pooled))
    expected = encode(pipe, CHAPTER, negative_prompt="dark")
    assert_close(ours[1], expected[1], **ROUNDING)
    assert torch.equal(ours[3], expected[3])
    zeros = encode(pipe, None, prompt_embeds=given, pooled_prompt_embeds=pooled)
    assert zeros[1].shape == given.shape
    assert not zeros[1].any() and not zeros[3].any()
    with pytest.raises(PromptError, match="Embeddings of 77 rows were given"):
        encode(pipe, None, prompt_embeds=given[:, :77], pooled_prompt_embeds=pooled, negative_prompt=CHAPTER)


def test_a_given_pooled_vector_beside_a_text_is_kept():
    given = torch.randn(1, toys_xl.PROJECTION)
    pipe = long_pipeline()
    for each in (StableDiffusionXLPipeline(**toys_xl.components()), pipe):
        assert torch.equal(encode(each, "a cat", pooled_prompt_embeds=given)[2], given)


def test_all_given_pass_without_encoders():
    pipe = long_pipeline()
    given = encode(pipe, CHAPTER, negative_prompt="dark")
    pipe.register_modules(text_encoder=None, text_encoder_2=None)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    assert_equal(encode(pipe, None, **dict(zip(names, given, strict=True))), given)
    with pytest.raises(ModelError, match="no second text encoder"):
        encode(pipe, "a cat")


# ---- refusals


def test_stretch_without_a_stretched_encoder_is_refused_not_done_otherwise():
    with pytest.raises(ModelError, match=r"encoder of 77 rows .*g_mode=\"stretch\".*never stretched"):
        encode(long_pipeline(g_mode="stretch"), "a cat")


@pytest.mark.parametrize("name", ["prompt_2", "negative_prompt", "negative_prompt_2"])
def test_batches_of_unequal_size_are_refused(name):
    call = {"prompt": ["a", "b"], "negative_prompt": "x", name: ["y"]}
    with pytest.raises(PromptError, match=f"`{name}` has batch size 1, but `prompt` has batch size 2"):
        encode(long_pipeline(), **call)


def test_refiner_says_that_it_does_not_read_prompt_2():
    pipe = StableDiffusionXLLongImg2ImgPipeline(**toys_xl.refiner_components())
    with pytest.warns(UserWarning, match="prompt_2 is not read"):
        assert_equal(encode(pipe, "a cat", prompt_2="a dog"), encode(pipe, "a cat"))


def test_unknown_mode_is_refused():
    with pytest.raises(PromptError, match="g_mode='chunks': expected one of 'chunk', 'stretch', 'first77'"):
        PromptOptions(g_mode="chunks")
