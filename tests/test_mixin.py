"""`encode_prompt`: what the stock pipeline's arguments mean when texts are long."""

import pytest
import torch
import toys
from diffusers import StableDiffusionPipeline
from drawing import CHAPTER, SENTENCE, draw
from peft import LoraConfig
from torch.testing import assert_close

from longclip_diffusers import LongClipError, StableDiffusionLongPipeline, encode_long_prompt
from longclip_diffusers.errors import ModelError, PromptError
from longclip_diffusers.sidecar import PromptOptions
from longclip_diffusers.text_encoder import inner_text_model, save_text_encoder


def long_pipeline(length=248, **components):
    """Reads without context, so that each window has its own rows."""
    pipe = StableDiffusionLongPipeline(**toys.stable_diffusion_components(length=length, **components))
    pipe.prompt_options = PromptOptions(context="none")
    return pipe


def encode(pipe, prompt, *, images=1, guidance=True, **arguments):
    with torch.no_grad():
        return pipe.encode_prompt(prompt, "cpu", images, guidance, **arguments)


# ---- rows


@pytest.mark.parametrize("prompt", ["", "a cat", CHAPTER], ids=["empty", "short", "chapter"])
def test_embeddings_are_those_of_encode_long_prompt(prompt):
    pipe = long_pipeline()
    positive, _ = encode(pipe, prompt)
    assert torch.equal(positive, encode_long_prompt(prompt, pipe.tokenizer, pipe.text_encoder).embeds)


def test_short_texts_have_77_rows_with_a_long_encoder():
    positive, negative = encode(long_pipeline(), "a cat", negative_prompt="a dog")
    assert positive.shape == negative.shape == (1, 77, toys.WIDTH)


@pytest.mark.parametrize(("prompt", "negative"), [(CHAPTER, "x"), ("x", CHAPTER), (CHAPTER, None)])
def test_positive_and_negative_end_with_equal_rows(prompt, negative):
    pipe = long_pipeline()
    positive, other = encode(pipe, prompt, negative_prompt=negative)
    rows = 248 * len(pipe.plan_prompt(CHAPTER).windows)
    assert positive.shape == other.shape == (1, rows, toys.WIDTH)


def test_filling_rows_are_encoded_empty_windows():
    pipe = long_pipeline()
    _, negative = encode(pipe, CHAPTER, negative_prompt="x")
    _, empty = encode(pipe, CHAPTER, negative_prompt="")
    assert_close(negative[:, 248:], empty[:, :-248], rtol=0, atol=1e-5)  # the same text in batches of other sizes
    assert empty.abs().amax(-1).min() > 0


def test_batch_equals_its_singles():
    pipe = long_pipeline()
    batch, _ = encode(pipe, [CHAPTER, SENTENCE * 12], negative_prompt=["x", "y"])
    for row, prompt in enumerate([CHAPTER, SENTENCE * 12]):
        single, _ = encode(pipe, prompt)
        assert_close(batch[row : row + 1, : single.shape[1]], single, rtol=0, atol=1e-5)  # other batch, other kernel


def test_images_of_one_prompt_are_neighbours():
    embeds, negative = encode(long_pipeline(), ["a cat", CHAPTER], images=3)
    assert embeds.shape == negative.shape
    assert len(embeds) == 6
    assert torch.equal(embeds[0], embeds[2])
    assert not torch.equal(embeds[2], embeds[3])


def test_without_guidance_nothing_is_made_of_the_negative():
    positive, negative = encode(long_pipeline(), "a cat", guidance=False, negative_prompt=CHAPTER)
    assert negative is None
    assert positive.shape[1] == 77


def test_window_option_decides_the_rows():
    pipe = long_pipeline()
    pipe.prompt_options = PromptOptions(window=77, context="none")
    assert encode(pipe, CHAPTER)[0].shape[1] == 77 * len(pipe.plan_prompt(CHAPTER).windows)


# ---- given embeddings


@pytest.mark.parametrize("rows", [77, 231, 248, 308, 496])
def test_negative_text_takes_the_rows_of_given_embeddings(rows):
    given = torch.randn(2, rows, toys.WIDTH)
    positive, negative = encode(long_pipeline(), None, prompt_embeds=given, negative_prompt="blurred")
    assert torch.equal(positive, given)
    assert negative.shape == given.shape


def test_prompt_takes_the_rows_of_a_given_negative():
    given = torch.randn(1, 496, toys.WIDTH)
    positive, negative = encode(long_pipeline(), "a cat", negative_prompt_embeds=given)
    assert positive.shape == negative.shape


def test_text_longer_than_given_embeddings_is_refused_not_cut():
    given = torch.randn(1, 77, toys.WIDTH)
    with pytest.raises(PromptError, match="Embeddings of 77 rows were given"):
        encode(long_pipeline(), None, prompt_embeds=given, negative_prompt=CHAPTER)
    with pytest.raises(PromptError, match="Embeddings of 77 rows were given"):
        encode(long_pipeline(), CHAPTER, negative_prompt_embeds=given)


def test_given_negative_does_not_bind_the_prompt_without_guidance():
    positive, _ = encode(
        long_pipeline(), CHAPTER, guidance=False, negative_prompt_embeds=torch.randn(1, 77, toys.WIDTH)
    )
    assert positive.shape[1] > 77


def test_both_given_pass_without_a_text_encoder():
    pipe = long_pipeline()
    given = torch.randn(1, 496, toys.WIDTH)
    pipe.register_modules(text_encoder=None)
    positive, negative = encode(pipe, None, prompt_embeds=given, negative_prompt_embeds=-given)
    assert torch.equal(positive, given)
    assert torch.equal(negative, -given)
    with pytest.raises(ModelError, match="no text encoder"):
        encode(pipe, "a cat")


# ---- refusals: as the stock pipeline's


@pytest.mark.parametrize("make", [StableDiffusionPipeline, StableDiffusionLongPipeline])
def test_negative_of_another_type_is_a_type_error(make):
    pipe = make(**toys.stable_diffusion_components())
    with pytest.raises(TypeError, match="should be the same type to `prompt`"):
        draw(pipe, ["a cat"], negative_prompt="dark")


@pytest.mark.parametrize("make", [StableDiffusionPipeline, StableDiffusionLongPipeline])
def test_negative_of_another_batch_size_is_a_value_error(make):
    pipe = make(**toys.stable_diffusion_components())
    with pytest.raises(ValueError, match=r"has batch size 1, but `prompt`.* has batch size 2"):
        draw(pipe, ["a cat", "a dog"], negative_prompt=["dark"])


@pytest.mark.parametrize("prompt", [3, None, ("a", "b")])
def test_prompt_of_a_wrong_type_is_refused_by_stock(prompt):
    with pytest.raises(ValueError, match="prompt"):
        draw(long_pipeline(), prompt)


@pytest.mark.parametrize("prompt", [[], [1], None])
def test_prompt_that_stock_lets_through_is_refused_by_us(prompt):
    with pytest.raises(PromptError, match="non-empty list"):
        encode(long_pipeline(), prompt)


def test_window_longer_than_the_encoder_is_refused():
    pipe = long_pipeline(77)
    pipe.prompt_options = PromptOptions(window=248)
    with pytest.raises(PromptError, match="77"):
        encode(pipe, "a cat")


# ---- clip_skip


@pytest.mark.parametrize("clip_skip", [1, 2])
@pytest.mark.parametrize("length", [77, 248])
def test_clip_skip_reads_an_earlier_layer_of_the_positive_only(length, clip_skip):
    # Not compared with stock: diffusers 0.42 raises AttributeError here on transformers >= 5.6.
    pipe = long_pipeline(length)
    positive, negative = encode(pipe, "a cat", negative_prompt="a cat", clip_skip=clip_skip)
    ids = pipe.tokenizer("a cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        states = pipe.text_encoder(ids, output_hidden_states=True)
        expected = inner_text_model(pipe.text_encoder).final_layer_norm(states.hidden_states[-1 - clip_skip])
    assert torch.equal(positive, expected)
    assert torch.equal(negative, states.last_hidden_state)
    assert not torch.equal(positive, negative)


# ---- LoRA


def with_lora(pipe):
    torch.manual_seed(5)
    pipe.text_encoder.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "v_proj"]))
    return pipe


@pytest.mark.parametrize("scale", [0.5, 1.0, 0.0])
def test_lora_scale_is_stocks(scale):
    encoder = with_lora(long_pipeline(77)).text_encoder
    components = toys.stable_diffusion_components(text_encoder=encoder)
    stock, long = StableDiffusionPipeline(**components), StableDiffusionLongPipeline(**components)
    expected = encode(stock, "a cat", negative_prompt="dark", lora_scale=scale)
    ours = encode(long, "a cat", negative_prompt="dark", lora_scale=scale)
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(ours[1], expected[1])


def test_lora_scale_has_an_effect_and_is_taken_back():
    pipe = with_lora(long_pipeline())
    before, _ = encode(pipe, CHAPTER)
    halved, _ = encode(pipe, CHAPTER, lora_scale=0.5)
    after, _ = encode(pipe, CHAPTER)
    assert not torch.equal(before, halved)
    assert torch.equal(before, after)


def test_lora_scale_is_taken_back_after_an_error():
    pipe = with_lora(long_pipeline())
    before, _ = encode(pipe, "a cat")
    with pytest.raises(PromptError):
        encode(pipe, CHAPTER, lora_scale=0.5, negative_prompt_embeds=torch.randn(1, 77, toys.WIDTH))
    assert torch.equal(before, encode(pipe, "a cat")[0])


# ---- textual inversion


def with_inversion(pipe, num_vectors=3):
    vectors = torch.randn(num_vectors, toys.WIDTH, generator=torch.Generator().manual_seed(6))
    pipe.load_textual_inversion({"<place>": vectors}, token="<place>")
    return pipe


def test_textual_inversion_draws_what_stock_draws():
    stock = with_inversion(StableDiffusionPipeline(**toys.stable_diffusion_components()))
    long = StableDiffusionLongPipeline(**stock.components)
    expected = encode(stock, "a cat at <place>", negative_prompt="<place>")
    ours = encode(long, "a cat at <place>", negative_prompt="<place>")
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(ours[1], expected[1])
    assert not torch.equal(ours[0], encode(long, "a cat at place")[0])


@pytest.mark.parametrize("context", ["none", "related"])
def test_textual_inversion_group_is_read_whole_wherever_it_stands(context):
    pipe = with_inversion(long_pipeline(77))
    pipe.prompt_options = PromptOptions(context=context)
    group = tuple(pipe.tokenizer.convert_tokens_to_ids(["<place>", "<place>_1", "<place>_2"]))
    for shift in range(4):  # one of them would cut the group at the window's edge
        plan = pipe.plan_prompt("a " * (72 + shift) + "<place> " + "b " * 20)
        found = [window.own_ids[at : at + 3] for window in plan.windows for at in range(len(window.own_ids))]
        assert found.count(group) == 1


def test_no_frightening_message_about_long_text(caplog):
    import transformers

    pipe = with_inversion(long_pipeline(77))
    transformers.logging.enable_propagation()
    try:
        encode(pipe, CHAPTER + " <place>")
    finally:
        transformers.logging.disable_propagation()
    assert caplog.text == ""


def test_only_rows_are_blamed_on_given_embeddings():
    pipe = long_pipeline()
    given = torch.zeros(1, 77, toys.WIDTH)
    with pytest.raises(PromptError, match="Embeddings of 77 rows were given beside a text"):
        encode(pipe, None, prompt_embeds=given, negative_prompt=CHAPTER)
    with pytest.raises(PromptError, match=r"^clip_skip is 99"):
        encode(pipe, "a cat", negative_prompt_embeds=given, clip_skip=99)


# ---- offload


def test_encoder_whose_weights_accelerate_keeps_elsewhere():
    from accelerate import cpu_offload

    pipe = long_pipeline()
    expected = encode(pipe, CHAPTER, negative_prompt="dark", clip_skip=1)
    cpu_offload(pipe.text_encoder, execution_device="cpu")
    assert pipe.text_encoder.device.type == "meta"
    ours = encode(pipe, CHAPTER, negative_prompt="dark", clip_skip=1)
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(ours[1], expected[1])
    with pytest.raises(ModelError, match="before enable_model_cpu_offload"):
        pipe.load_longclip("stretch")


@pytest.mark.parametrize("source", ["stretch", "file"])
def test_encoder_that_a_device_map_placed_is_replaced_by_one_that_is_placed_so(tmp_path, source):
    from accelerate import dispatch_model

    pipe, plain = long_pipeline(toys.STOCK_LENGTH), long_pipeline(toys.STOCK_LENGTH)
    save_text_encoder(toys.text_encoder(toys.LONG_LENGTH, seed=1), tmp_path)
    dispatch_model(pipe.text_encoder, {"": "cpu"}, force_hooks=True)
    for each in (pipe, plain):
        each.load_longclip("stretch" if source == "stretch" else tmp_path)
    assert hasattr(pipe.text_encoder, "_hf_hook")
    assert torch.equal(encode(pipe, CHAPTER)[0], encode(plain, CHAPTER)[0])


def test_encoder_under_a_cpu_offload_hook():
    from accelerate import cpu_offload_with_hook

    pipe = long_pipeline()
    expected, _ = encode(pipe, CHAPTER)
    cpu_offload_with_hook(pipe.text_encoder, execution_device="cpu")
    assert torch.equal(encode(pipe, CHAPTER)[0], expected)


# ---- options


@pytest.mark.parametrize(
    "options", [{"window": 2}, {"window": "long"}, {"window": True}, {"context": "all"}, {"syntax": "webui"}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(LongClipError, match=str(next(iter(options)))):
        PromptOptions(**options)
