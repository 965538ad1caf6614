"""A 77-row encoder and a prompt that fits: the picture is the stock pipeline's, bit for bit."""

import numpy as np
import pytest
import toys
from drawing import KINDS, draw

KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
FULL = "a" * 10 + " " + "b " * 65  # 75 byte tokens: exactly full

CALLS = {
    "short": {"prompt": "a red cat on a chair"},
    "empty": {"prompt": ""},
    "exactly full": {"prompt": FULL},
    "odd characters": {"prompt": "naïve café, 100 % #1 (a:1.3) [b] ++ 猫"},
    "negative": {"prompt": "a cat", "negative_prompt": "blurred, dark"},
    "batch": {"prompt": ["a cat", "the longer story of a dog and a house"], "negative_prompt": ["x", "y z"]},
    "several images": {"prompt": "a cat", "negative_prompt": "dog", "num_images_per_prompt": 2},
    "no guidance": {"prompt": "a cat", "negative_prompt": "ignored", "guidance_scale": 1.0},
}


# Stock img2img says so of one picture beside several prompts; both pipelines do the same with it.
@pytest.mark.filterwarnings("ignore:You have passed .* text prompts:FutureWarning")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@KIND
def test_picture_is_stocks(kind, call):
    components = kind.components()
    arguments = {**kind.arguments(), **call}
    stock, long = kind.stock(**components), kind.long(**components)
    assert np.array_equal(draw(long, **arguments), draw(stock, **arguments))


def test_full_prompt_is_full():
    assert len(toys.tokenizer()(FULL).input_ids) == 77


@KIND
def test_loaded_with_longclip_none_picture_is_stocks(kind, tmp_path):
    kind.stock(**kind.components()).save_pretrained(tmp_path)
    stock = kind.stock.from_pretrained(tmp_path)
    long = kind.long.from_pretrained(tmp_path, longclip=None)
    assert np.array_equal(draw(long, **kind.arguments()), draw(stock, **kind.arguments()))


@KIND
def test_prompt_changes_the_picture(kind):
    # Guards the tests above: were the toys deaf, any two pictures would be equal.
    pipe = kind.long(**kind.components())
    assert not np.array_equal(draw(pipe, "a cat", **kind.arguments()), draw(pipe, "a dog", **kind.arguments()))


def test_given_embeddings_draw_what_their_prompt_draws():
    kind = KINDS["text2img"]
    stock, long = kind.stock(**kind.components()), kind.long(**kind.components())
    positive, negative = stock.encode_prompt("a cat", "cpu", 1, True, "dark")
    expected = draw(stock, "a cat", negative_prompt="dark")
    both = draw(long, None, prompt_embeds=positive, negative_prompt_embeds=negative)
    text_negative = draw(long, None, prompt_embeds=positive, negative_prompt="dark")
    text_positive = draw(long, "a cat", negative_prompt_embeds=negative)
    for picture in (both, text_negative, text_positive):
        assert np.array_equal(picture, expected)
