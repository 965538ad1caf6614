import pytest
import torch
import toys
from diffusers import StableDiffusionPipeline

from longclip_diffusers.conditioning import encode_long_prompt, encode_plans, num_rows, resolve_window
from longclip_diffusers.errors import ModelError, PromptError
from longclip_diffusers.text_encoder import inner_text_model
from longclip_diffusers.windows import plan_windows

STORY = "The roof is green. " + "A gull cried over the bay. " * 12 + "The door is like the roof."
# Rows of one window do not depend on its neighbours in a batch, but the sums in a larger matrix product may be ordered
# otherwise; and under sdpa a longer row changes the last bits. Measured up to 2e-6.
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def tokenizer():
    return toys.tokenizer()


@pytest.fixture(scope="module")
def encoder():
    return toys.text_encoder()


@pytest.fixture(scope="module")
def long_encoder():
    return toys.text_encoder(248)


@pytest.fixture(scope="module")
def stock(tokenizer, encoder):
    return StableDiffusionPipeline(**toys.stable_diffusion_components(tokenizer=tokenizer, text_encoder=encoder))


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def plain_rows(text, tokenizer, encoder, rows):
    """Reference: the rows of one window, as transformers pads it."""
    inputs = tokenizer(text, padding="max_length", max_length=rows, return_tensors="pt")
    return encoder(inputs.input_ids).last_hidden_state[0]


PROMPTS = [[""], ["a cat"], ["x" * 75], ["a cat", ""], ["a", "a", "b c"], [f"number {n}" for n in range(16)]]


@pytest.mark.parametrize("prompts", PROMPTS)
def test_what_fits_is_bit_equal_to_the_stock_pipeline(prompts, tokenizer, encoder, stock):
    negatives = ["ugly", *[""] * (len(prompts) - 1)]
    positive, negative = stock.encode_prompt(prompts, "cpu", 1, True, negative_prompt=negatives)
    assert torch.equal(encode_long_prompt(prompts, tokenizer, encoder).embeds, positive)
    assert torch.equal(encode_long_prompt(negatives, tokenizer, encoder).embeds, negative)


@pytest.mark.parametrize(("num_tokens", "num_windows"), [(0, 1), (1, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_rows_are_whole_windows_of_the_text(num_tokens, num_windows, tokenizer, encoder):
    text = "a " * num_tokens
    conditioning = encode_long_prompt(text, tokenizer, encoder)
    assert conditioning.embeds.shape == (1, 77 * num_windows, toys.WIDTH)
    assert conditioning.report == (plan_windows(text, tokenizer, window=77),)
    for index, window in enumerate(conditioning.report[0].windows):
        expected = plain_rows(window.text, tokenizer, encoder, 77)
        torch.testing.assert_close(conditioning.embeds[0, 77 * index : 77 * index + 77], expected, **ROUNDING)


@pytest.mark.parametrize(("num_tokens", "rows"), [(0, 77), (75, 77), (76, 248), (246, 248), (247, 496), (600, 744)])
def test_a_long_encoder_gives_77_rows_or_whole_windows(num_tokens, rows, tokenizer, long_encoder):
    assert encode_long_prompt("a " * num_tokens, tokenizer, long_encoder).embeds.shape[1] == rows


@pytest.mark.parametrize("context", ["none", "related"])
def test_a_batch_equals_its_singles(context, tokenizer, encoder):
    prompts = [STORY, "a cat", ""]
    batch = encode_long_prompt(prompts, tokenizer, encoder, context=context)
    rows = batch.embeds.shape[1]
    for index, prompt in enumerate(prompts):
        plan = plan_windows(prompt, tokenizer, window=77, context=context)
        single, _ = encode_plans([plan], tokenizer, encoder, rows=rows)
        torch.testing.assert_close(batch.embeds[index : index + 1], single, **ROUNDING)


def test_missing_windows_are_encoded_empty_windows(tokenizer, encoder):
    embeds = encode_long_prompt([STORY, "a cat"], tokenizer, encoder).embeds
    empty = plain_rows("", tokenizer, encoder, 77)
    for start in range(77, embeds.shape[1], 77):
        torch.testing.assert_close(embeds[1, start : start + 77], empty, **ROUNDING)


def test_context_rows_are_the_texts_own_between_one_bos_and_one_eos(tokenizer, encoder):
    conditioning = encode_long_prompt(STORY, tokenizer, encoder, context="related")
    (plan,) = conditioning.report
    rows = conditioning.embeds[0]
    assert len(rows) % 77 == 0 and 0 <= len(rows) - (plan.num_tokens + 2) < 77
    at = 1
    for window in plan.windows:
        read = plain_rows(" ".join([*window.context, window.text]), tokenizer, encoder, 77)
        own = read[1 + window.num_context : len(window.ids) - 1]
        torch.testing.assert_close(rows[at : at + len(own)], own, **ROUNDING)
        at += len(own)
    torch.testing.assert_close(rows[0], plain_rows("", tokenizer, encoder, 77)[0], **ROUNDING)
    after = read[len(window.ids) - 1 :][: len(rows) - at]
    torch.testing.assert_close(rows[at : at + len(after)], after, **ROUNDING)


def test_context_rows_are_topped_up_with_the_padding_of_the_empty_text(tokenizer, encoder):
    embeds = encode_long_prompt([STORY, "a cat"], tokenizer, encoder, context="related").embeds
    assert embeds.shape[1] > 2 * 77
    filler = plain_rows("", tokenizer, encoder, 77)[1:].repeat(9, 1)
    torch.testing.assert_close(embeds[1, 77:], filler[: embeds.shape[1] - 77], **ROUNDING)


@pytest.mark.parametrize("num_tokens", [0, 3, 75, 76, 200, 246])
def test_with_a_long_encoder_what_fits_one_window_is_the_same_with_context_and_without(
    num_tokens, tokenizer, long_encoder
):
    text = "x " * num_tokens
    plain, related = (
        encode_long_prompt(text, tokenizer, long_encoder, context=context).embeds for context in ("none", "related")
    )
    assert torch.equal(plain, related)


def test_context_changes_late_rows_and_leaves_short_prompts_alone(tokenizer, encoder):
    assert torch.equal(
        encode_long_prompt("a cat", tokenizer, encoder, context="related").embeds,
        encode_long_prompt("a cat", tokenizer, encoder).embeds,
    )
    plan = plan_windows(STORY, tokenizer, window=77, context="related")
    related, _ = encode_plans([plan], tokenizer, encoder, rows=num_rows([plan], window=77))
    alone = plain_rows(plan.windows[-1].text, tokenizer, encoder, 77)[1:20]
    last = 1 + plan.num_tokens - len(plan.windows[-1].own_ids)
    assert (related[0, last : last + 19] - alone).abs().max() > 0.1


@pytest.mark.parametrize("clip_skip", [0, 1, 2, 3])
def test_clip_skip_is_diffusers_own(clip_skip, tokenizer, encoder):
    embeds = encode_long_prompt("a cat", tokenizer, encoder, clip_skip=clip_skip).embeds
    inputs = tokenizer("a cat", padding="max_length", max_length=77, return_tensors="pt")
    hidden = encoder(inputs.input_ids, output_hidden_states=True).hidden_states[-(clip_skip + 1)]
    assert torch.equal(embeds, inner_text_model(encoder).final_layer_norm(hidden))


def test_the_penultimate_layer_is_not_normalised(tokenizer, encoder):
    plan = plan_windows("a cat", tokenizer, window=77)
    inputs = tokenizer("a cat", padding="max_length", max_length=77, return_tensors="pt")
    hidden = encoder(inputs.input_ids, output_hidden_states=True).hidden_states
    for clip_skip, layer in [(None, -2), (0, -2), (1, -3)]:
        embeds, _ = encode_plans([plan], tokenizer, encoder, rows=77, clip_skip=clip_skip, penultimate=True)
        assert torch.equal(embeds, hidden[layer])


def test_pooled_is_the_first_windows_projection(tokenizer):
    encoder = toys.text_encoder_with_projection()
    conditioning = encode_long_prompt([STORY, "a cat"], tokenizer, encoder)
    for pooled, plan in zip(conditioning.pooled, conditioning.report, strict=True):
        expected = encoder(torch.tensor([plan.windows[0].ids])).text_embeds[0]
        torch.testing.assert_close(pooled, expected, **ROUNDING)


def test_an_encoder_without_projection_has_no_pooled_vector(tokenizer, encoder):
    assert encode_long_prompt("a cat", tokenizer, encoder).pooled is None


def test_padding_is_the_tokenizers_own(encoder):
    tokenizer = toys.tokenizer()
    tokenizer.pad_token = "!"  # as Stable Diffusion 2 does
    embeds = encode_long_prompt("a cat", tokenizer, encoder).embeds
    assert torch.equal(embeds[0], plain_rows("a cat", tokenizer, encoder, 77))
    assert not torch.equal(embeds, encode_long_prompt("a cat", toys.tokenizer(), encoder).embeds)


def test_a_book_of_100_000_tokens_goes_through_the_encoder_in_bounded_groups(tokenizer, long_encoder):
    sizes = []
    hook = long_encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    try:
        conditioning = encode_long_prompt(["The door is red. " * 7_700, "a cat"], tokenizer, long_encoder)
    finally:
        hook.remove()
    assert conditioning.report[0].num_tokens > 100_000
    assert conditioning.embeds.shape[:2] == (2, 248 * len(conditioning.report[0].windows))
    assert max(sizes) == (16, 248)
    # Every window once, and the empty one, of which "a cat" needs hundreds, once.
    assert sum(number for number, _ in sizes) == len(conditioning.report[0].windows) + 2


def test_batch_size_bounds_a_forward_pass_and_changes_nothing(tokenizer, encoder):
    plan = plan_windows(STORY, tokenizer, window=77)
    rows = num_rows([plan], window=77)
    whole, _ = encode_plans([plan], tokenizer, encoder, rows=rows)
    sizes = []
    hook = encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    try:
        ones, _ = encode_plans([plan], tokenizer, encoder, rows=rows, batch_size=1)
    finally:
        hook.remove()
    assert sizes == [1] * len(plan.windows)  # and no empty window, since none is missing
    torch.testing.assert_close(ones, whole, **ROUNDING)


def test_one_row_count_for_all_texts_of_a_call(tokenizer):
    short, long = (plan_windows(text, tokenizer, window=77) for text in ("a cat", STORY))
    assert num_rows([short], window=77) == 77
    assert num_rows([short, long], window=77) == 77 * len(long.windows)
    tiny = plan_windows("a cat", tokenizer, window=16)
    assert num_rows([tiny], window=16) == 16
    parts = plan_windows(["a", "b"], tokenizer, window=77)
    assert num_rows([parts], window=77) == 2 * 77


@pytest.mark.parametrize(("num_tokens", "rows"), [(0, 77), (75, 77), (76, 154), (152, 154), (153, 231)])
def test_context_rows_are_the_smallest_multiple_of_77_that_holds_bos_text_and_eos(num_tokens, rows, tokenizer, encoder):
    assert encode_long_prompt("a " * num_tokens, tokenizer, encoder, context="related").embeds.shape[1] == rows


def test_dtype_and_gradients_follow_the_encoder(tokenizer):
    encoder = toys.text_encoder().to(torch.bfloat16)
    plan = plan_windows(STORY, tokenizer, window=77)
    with torch.enable_grad():
        embeds, _ = encode_plans([plan], tokenizer, encoder, rows=num_rows([plan], window=77))
        assert (embeds.dtype, embeds.requires_grad) == (torch.bfloat16, True)
        assert not encode_long_prompt("a cat", tokenizer, encoder).embeds.requires_grad


def test_the_window_is_the_encoders_table_unless_named(tokenizer, long_encoder):
    assert resolve_window("auto", tokenizer, long_encoder) == 248
    assert encode_long_prompt("a " * 100, tokenizer, long_encoder, window=77).embeds.shape[1] == 2 * 77


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 249}, "window is 249, .* 248 positions"),
        ({"window": 2}, "window is 2; .* from 3 to 248"),
        ({"window": "long"}, "window is 'long'"),
        ({"context": "all"}, "context is 'all'"),
        ({"clip_skip": 4}, "clip_skip is 4; .* 0 to 3"),
        ({"clip_skip": -1}, "clip_skip is -1"),
        ({"syntax": "webui"}, "syntax is 'webui'; it can be 'plain', 'a1111'"),
    ],
)
def test_options_out_of_range_are_refused(options, message, tokenizer, long_encoder):
    with pytest.raises(PromptError, match=message):
        encode_long_prompt("a cat", tokenizer, long_encoder, **options)


@pytest.mark.parametrize("text", [None, 3, [], ["a", None], {"a": 1}])
def test_what_is_no_text_is_refused(text, tokenizer, encoder):
    with pytest.raises(PromptError, match=r"not .* \((NoneType|int|list|dict)\)"):
        encode_long_prompt(text, tokenizer, encoder)


def test_white_space_is_the_empty_prompt(tokenizer, encoder):
    expected = encode_long_prompt("", tokenizer, encoder).embeds
    assert torch.equal(encode_long_prompt(" \n\t ", tokenizer, encoder).embeds, expected)


@pytest.mark.parametrize("context", ["none", "related"])
def test_too_few_rows_are_refused_not_cut(context, tokenizer, encoder):
    plan = plan_windows(STORY, tokenizer, window=77, context=context)
    with pytest.raises(PromptError, match="rows is 77, too few"):
        encode_plans([plan], tokenizer, encoder, rows=77)


def test_nan_is_refused(tokenizer):
    encoder = toys.text_encoder()
    encoder.get_input_embeddings().weight[320] = float("nan")
    encode_long_prompt("b", tokenizer, encoder)
    with pytest.raises(ModelError, match=r"NaN .*dtype=torch\.float32"):
        encode_long_prompt("a", tokenizer, encoder)


def test_a_token_that_the_encoder_does_not_know_is_refused(encoder):
    tokenizer = toys.tokenizer()
    tokenizer.add_tokens("<cat>")
    with pytest.raises(ModelError, match="tokenizer has 515 tokens, the text encoder 514"):
        encode_long_prompt("a", tokenizer, encoder)
    plan = plan_windows("a <cat>", tokenizer, window=77)
    with pytest.raises(ModelError, match="token 514, the text encoder knows 514"):
        encode_plans([plan], tokenizer, encoder, rows=77)


def test_a_tokenizer_without_padding_is_refused(encoder):
    tokenizer = toys.tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match="no padding token"):
        encode_long_prompt("a", tokenizer, encoder)
