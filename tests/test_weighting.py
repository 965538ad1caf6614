"""What weights do to the rows that a UNet reads: by the same rules for one encoder and for two, window by window."""

import pytest
import torch
import toys
import toys_xl
from compel import Compel, CompelForSDXL, ReturnedEmbeddingsType
from diffusers import StableDiffusionXLPipeline
from torch.testing import assert_close

from longclip_diffusers import StableDiffusionLongPipeline, StableDiffusionXLLongPipeline, encode_long_prompt
from longclip_diffusers.conditioning import encode_plans, num_rows
from longclip_diffusers.errors import PromptError, PromptSyntaxError
from longclip_diffusers.sidecar import PromptOptions
from longclip_diffusers.syntax import parse_prompt, plan_prompt
from longclip_diffusers.windows import plan_windows

STORY = "The roof is green. " + "A gull cried over the bay. " * 12 + "The door is like the roof."
WEIGHTED_STORY = STORY.replace("green", "(green:1.5)").replace("like the roof", "(like the roof:0.5)")
# Other batch sizes order the sums in a matrix product otherwise. Measured up to 2e-6.
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def tokenizer():
    return toys.tokenizer()


@pytest.fixture(scope="module")
def encoder():
    return toys.text_encoder()


@pytest.fixture
def encode(tokenizer, encoder):
    def encoded(text, syntax="a1111", **options):
        return encode_long_prompt(text, tokenizer, encoder, syntax=syntax, **options).embeds

    return encoded


def pipeline(syntax, length=77, **options):
    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components(length=length))
    pipe.prompt_options = PromptOptions(syntax=syntax, **options)
    return pipe


def pipeline_xl(syntax, length=77, length_2=77, **options):
    pipe = StableDiffusionXLLongPipeline(**toys_xl.components(length=length, length_2=length_2))
    pipe.prompt_options = PromptOptions(syntax=syntax, **options)
    return pipe


def encode_xl(pipe, prompt, **arguments):
    with torch.no_grad():
        return pipe.encode_prompt(prompt, device="cpu", **arguments)


def changed_rows(ours, plain):
    return (ours != plain).any(-1).nonzero()[:, -1].tolist()


# ---- a1111


@pytest.mark.parametrize("syntax", ["a1111", "a1111-mean"])
@pytest.mark.parametrize("context", ["none", "related"])
@pytest.mark.parametrize("text", ["a (red:1) cat", "", f"({STORY}:1)", "((a cat:0.5):2)"])
def test_weight_1_everywhere_is_bit_equal_to_no_syntax(syntax, context, text, encode):
    plain = text.translate({ord(sign): None for sign in "()"}).replace(":1", "").replace(":0.5:2", "")
    assert torch.equal(encode(text, syntax, context=context), encode(plain, "plain", context=context))


@pytest.mark.parametrize("text", ["a red cat, on (the) wall", STORY])
def test_compel_without_weights_is_bit_equal_to_no_syntax(text, encode):
    assert torch.equal(encode(text, "compel"), encode(text.replace("(", "").replace(")", ""), "plain"))


@pytest.mark.parametrize("weight", [1.3, 0.4, 0.0, -1.0])
def test_a_weight_moves_its_tokens_rows_along_the_line_from_the_empty_text(weight, encode):
    ours, plain, empty = encode(f"a (red:{weight}) cat"), encode("a red cat", "plain"), encode("", "plain")
    assert changed_rows(ours, plain) == [2, 3, 4]  # BOS, a, and the toy tokenizer's letters
    expected = torch.lerp(empty, plain, weight)[:, 2:5]
    assert_close(ours[:, 2:5], expected, rtol=0, atol=1e-6)


def test_later_windows_are_weighted_against_the_same_rows_of_the_empty_text(tokenizer, encode):
    ours, plain = encode(WEIGHTED_STORY), encode(STORY, "plain")
    plan = plan_prompt(parse_prompt(WEIGHTED_STORY, "a1111"), tokenizer, window=77)
    at = {
        77 * number + 1 + index: weight
        for number, window in enumerate(plan.windows)
        for index, weight in enumerate(window.weights)
        if weight != 1
    }
    assert changed_rows(ours, plain) == list(at)
    assert max(at) > 77
    empty = encode("", "plain")[0]
    for row, weight in at.items():
        assert_close(ours[0, row], torch.lerp(empty[row % 77], plain[0, row], weight), **ROUNDING)


def test_with_context_a_windows_own_rows_are_weighted_only(tokenizer, encoder):
    text = STORY.replace("The roof is green", "(The roof is green:1.5)").replace("door", "(door:1.5)")
    plans = [plan_prompt(parse_prompt(one, "a1111"), tokenizer, window=77, context="related") for one in (text, STORY)]
    assert "The roof is green." in plans[0].windows[-1].context
    weighted, plain = (encode_plans([p], tokenizer, encoder, rows=num_rows(plans, window=77))[0] for p in plans)
    door = 1 + len(STORY.partition("door")[0].replace(" ", ""))
    assert changed_rows(weighted, plain) == [*range(1, 1 + len("Theroofisgreen")), *range(door, door + 4)]


@pytest.mark.parametrize("syntax", ["a1111", "a1111-mean", "compel"])
def test_break_and_conjunctions_are_lists_of_texts(syntax, tokenizer, encoder, encode):
    text = '("a cat", "a red dog").and()' if syntax == "compel" else "a cat BREAK a red dog"
    plan = plan_windows(["a cat", "a red dog"], tokenizer, window=77)
    expected, _ = encode_plans([plan], tokenizer, encoder, rows=2 * 77)
    assert torch.equal(encode(text, syntax), expected)


def mean_restored(states, window):
    """One forward pass (N, D) with a window's weights by modules/sd_emphasis.py of A1111's web UI."""
    scaled = states.clone()
    scaled[1 : 1 + len(window.weights)] *= torch.tensor(window.weights)[:, None]
    return scaled * (states.mean() / scaled.mean())


@pytest.fixture
def lopsided():
    """An encoder whose rows have means; without training the final norm brings all of them to 0."""
    encoder = toys.text_encoder()
    torch.nn.init.uniform_(encoder.final_layer_norm.bias, generator=torch.Generator().manual_seed(4))
    return encoder


def test_a1111_mean_multiplies_and_restores_each_windows_mean(tokenizer, lopsided):
    plan = plan_prompt(parse_prompt(WEIGHTED_STORY, "a1111-mean"), tokenizer, window=77)
    ours, plain, lerped = (
        encode_long_prompt(text, tokenizer, lopsided, syntax=syntax).embeds[0]
        for text, syntax in ((WEIGHTED_STORY, "a1111-mean"), (STORY, "plain"), (WEIGHTED_STORY, "a1111"))
    )
    factors = []
    for rows, before, window in zip(ours.split(77), plain.split(77), plan.windows, strict=True):
        assert_close(rows, mean_restored(before, window), **ROUNDING)
        factors.append(rows[0] / before[0])  # BOS, which has no weight
    assert (factors[0] < 0.99).all() and (factors[-1] > 1.01).all()  # one mean for all would give one factor
    assert (ours - lerped).abs().max() > 1e-2


def test_half_precision_weighs_in_single(tokenizer):
    encoder = toys.text_encoder().to(torch.bfloat16)
    ours, plain, empty = (
        encode_long_prompt(text, tokenizer, encoder, syntax="a1111").embeds
        for text in ("a (red:1.37) cat", "a red cat", "")
    )
    expected = torch.lerp(empty.float(), plain.float(), 1.37).to(torch.bfloat16)
    assert torch.equal(ours[:, 2:5], expected[:, 2:5])


@pytest.mark.parametrize("syntax", ["a1111", "a1111-mean"])
def test_a_weight_out_of_range_is_refused(syntax, encode):
    with pytest.raises(PromptError, match=r"float32's range, in 'a red cat'"):
        encode(f"a (red:{'9' * 39}) cat", syntax)


# ---- compel


@pytest.fixture(scope="module")
def compel(tokenizer, encoder):
    return Compel(tokenizer, encoder)


COMPEL_PROMPTS = [
    "a red++ cat",
    "a (red cat)1.3, on the wall--",
    "a (red)0.5 cat (on the)0.2 wall",
    "(a (b)1.2 c)0.5 and (d)0 e",
    "a red-- blue--- cat++",
    '"a cat"0.3 (sat)',
    '("a red cat", "a blue dog").blend(0.7, 0.3)',
    '("a red-- cat", "a blue++ dog", "c").blend(1, 2, 3)',
    '("a red cat", "a dog").blend(0.9, 0.6, no_normalize)',
    '("a red cat").blend(0.5, no_normalize)',
    '("a red cat", "a blue-- dog").and()',
    '("a red cat", "a blue++ dog").and(1, 0.5)',
    "",
]


@pytest.mark.parametrize("text", COMPEL_PROMPTS)
def test_one_window_is_compels(text, compel, encode):
    assert_close(encode(text, "compel"), compel(text), rtol=0, atol=1e-5)


def test_compel_with_the_real_vocabulary_is_compels():
    tokenizer = toys.real_tokenizer()
    encoder = toys.text_encoder(vocab_size=toys.REAL_VOCABULARY_SIZE)
    text = "a (weather-beaten lighthouse, at 10:30)1.3 over well-known--very e.g. (grey, foaming)0.4 (it's) 1,000 waves"
    ours = encode_long_prompt(text, tokenizer, encoder, syntax="compel").embeds
    assert_close(ours, Compel(tokenizer, encoder)(text), rtol=0, atol=1e-5)


def test_compel_reads_each_window_of_a_long_text_by_itself(tokenizer, encode, compel):
    text = STORY.replace("green", "green--").replace("like the roof", "(like the roof)0.5")
    plan = plan_prompt(parse_prompt(text, "compel"), tokenizer, window=77)
    ours = encode(text, "compel")
    assert len(plan.windows) > 2
    first, last = "The roof is green-- ." + plan.windows[0].text.split("green .")[1], plan.windows[-1].text
    assert_close(ours[:, :77], compel(first), rtol=0, atol=1e-5)
    assert_close(ours[:, -77:], compel(last.replace("like the roof", "(like the roof)0.5")), rtol=0, atol=1e-5)


def test_blends_of_unequal_lengths_are_filled_with_empty_windows(encode, encoder, tokenizer):
    ours = encode(f'("{STORY}", "a cat").blend(1, 3)', "compel")
    long, short = encode([STORY, "a cat"], "plain").split(1)
    assert_close(ours, 0.25 * long + 0.75 * short, **ROUNDING)


# ---- pipelines


@pytest.mark.parametrize("syntax", ["a1111", "a1111-mean", "compel"])
def test_negative_prompts_are_read_in_the_same_syntax(syntax):
    pipe = pipeline(syntax)
    marked = "a (red)1.4 cat" if syntax == "compel" else "a (red:1.4) cat"
    with torch.no_grad():
        positive, negative = pipe.encode_prompt("a cat", "cpu", 1, True, negative_prompt=marked)
    for text, rows in (("a cat", positive), (marked, negative)):
        assert torch.equal(rows, encode_long_prompt(text, pipe.tokenizer, pipe.text_encoder, syntax=syntax).embeds)
    assert not torch.equal(negative, encode_long_prompt("a red cat", pipe.tokenizer, pipe.text_encoder).embeds)


def test_sdxl_weighs_both_encoders_alike_and_leaves_pooled_alone():
    pipe, plain = pipeline_xl("a1111"), pipeline_xl("plain")
    weighted = encode_xl(pipe, "a (red:1.4) cat", negative_prompt="[ugly] (x:0.5)")
    stock = encode_xl(plain, "a red cat", negative_prompt="ugly x")
    empty, *_ = encode_xl(plain, "")
    assert changed_rows(weighted[0], stock[0]) == [2, 3, 4]
    assert_close(weighted[0][:, 2:5], torch.lerp(empty, stock[0], 1.4)[:, 2:5], **ROUNDING)
    assert changed_rows(weighted[1], stock[1]) == [1, 2, 3, 4, 5]
    assert torch.equal(weighted[2], stock[2])
    assert torch.equal(weighted[3], stock[3])


@pytest.mark.parametrize("g_mode", ["chunk", "first77"])
def test_sdxls_second_encoder_has_the_weights_in_its_own_windows(g_mode):
    text = STORY.replace("bay. The door", "(bay:1.5). The door").replace("green", "(green:1.5)")
    ours, *_ = encode_xl(pipeline_xl("a1111", length=248, g_mode=g_mode), text)
    plain, *_ = encode_xl(pipeline_xl("plain", length=248, g_mode=g_mode), STORY)
    first, second = (changed_rows(ours[..., half], plain[..., half]) for half in (slice(toys.WIDTH), slice(32, None)))
    assert len(first) == len("greenbay")
    assert second == (first if g_mode == "chunk" else first[:5])


def test_a1111_mean_restores_the_mean_of_each_piece_that_sdxls_second_encoder_reads():
    text = "The roof is (green:1.5). " + "A gull cried over the bay. " * 6 + "The (door:0.5) is red."
    pipe = pipeline_xl("a1111-mean", length=248, context="none")
    rows = encode_xl(pipe, text)[0][0, :, toys.WIDTH :]
    (window,) = plan_prompt(parse_prompt(text, "a1111-mean"), pipe.tokenizer_2, window=248, piece=77).windows
    assert window.pieces[0].weights and window.pieces[-1].weights
    at = 0
    for piece in window.pieces:
        alone = encode_xl(pipeline_xl("plain"), piece.text)[0][0, :, toys.WIDTH :]
        own = mean_restored(alone, piece)[min(at, 1) : len(piece.ids) - 1]
        assert_close(rows[at : at + len(own)], own, **ROUNDING)
        at += len(own)


@pytest.mark.parametrize("text", COMPEL_PROMPTS)
def test_sdxl_is_compels_for_each_encoder(text):
    pipe = pipeline_xl("compel")
    ours, *_ = encode_xl(pipe, text)
    kind = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    towers = ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))
    expected = torch.cat([Compel(*tower, returned_embeddings_type=kind)(text) for tower in towers], dim=-1)
    assert_close(ours, expected, rtol=1e-5, atol=1e-5)


# With weights in its brackets compel's `.and()` fails: it pads rows, and CompelForSDXL gives it pooled vectors as well.
@pytest.mark.parametrize("text", [text for text in COMPEL_PROMPTS if ".and(1" not in text])
def test_sdxls_rows_are_those_of_compel_for_sdxl(text):
    pipe = pipeline_xl("compel")
    ours, *_ = encode_xl(pipe, text)
    assert_close(ours, CompelForSDXL(pipe)(text).embeds, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", [text for text in COMPEL_PROMPTS if "(" not in text])
def test_sdxl_pools_the_text_where_compel_for_sdxl_pools_the_signs_too(text):
    pipe = pipeline_xl("compel")
    stock = StableDiffusionXLPipeline(**pipe.components)
    without, raw = (encode_xl(stock, each)[2] for each in (text.replace("+", "").replace("-", ""), text))
    assert torch.equal(encode_xl(pipe, text)[2], without)
    assert_close(CompelForSDXL(pipe)(text).pooled_embeds, raw, **ROUNDING)


def test_sdxl_blends_pooled_vectors_as_it_blends_rows():
    pipe = pipeline_xl("compel")
    pooled = [encode_xl(pipe, text)[2] for text in ('("a cat", "a dog").blend(3, 1)', "a cat", "a dog")]
    assert_close(pooled[0], 0.75 * pooled[1] + 0.25 * pooled[2], **ROUNDING)


@pytest.mark.parametrize(("syntax", "marked"), [("a1111", "a (<place>:1.3) day"), ("compel", "a <place>++ day")])
def test_a_textual_inversion_is_weighted_whole(syntax, marked):
    pipe = pipeline(syntax)
    pipe.load_textual_inversion({"<place>": torch.randn(3, toys.WIDTH)}, token="<place>")
    (window,) = pipe.plan_prompt(marked).windows
    weight = 1.3 if syntax == "a1111" else 1.1**2
    assert window.weights == pytest.approx((1, weight, weight, weight, 1, 1, 1))
    full = pipe.plan_prompt("x" * 73 + marked[1:])
    assert [len(each.own_ids) for each in full.windows] == [73, 6]


@pytest.mark.parametrize("syntax", ["a1111", "compel"])
def test_a_mistake_in_a_prompt_or_a_negative_is_ours(syntax):
    for prompts in ({"prompt": "a (cat"}, {"prompt": "a cat", "negative_prompt": "ug(ly"}):
        with pytest.raises(PromptSyntaxError, match="never closed"):
            pipeline(syntax)(**prompts, num_inference_steps=1)


def test_the_option_is_saved_and_read_again(tmp_path):
    pipeline("compel").save_pretrained(tmp_path)
    loaded = StableDiffusionLongPipeline.from_pretrained(tmp_path, longclip=None)
    assert loaded.prompt_options.syntax == "compel"
    chosen = StableDiffusionLongPipeline.from_pretrained(tmp_path, longclip=None, syntax="a1111-mean")
    assert chosen.prompt_options.syntax == "a1111-mean"
