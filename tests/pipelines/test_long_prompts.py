"""Prompts of any length: what is said last is drawn, and lengths of texts given together come out equal."""

import math

import numpy as np
import pytest
import torch
import toys
from drawing import CHAPTER, KINDS, SENTENCE, draw

KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def endings(prompt):
    return prompt + "the cat is red.", prompt + "the cat is blue."


@pytest.mark.parametrize("prompt", [SENTENCE * 5, CHAPTER], ids=["one window of 248", "a chapter"])
@pytest.mark.parametrize("length", [77, 248])
@KIND
def test_last_sentence_changes_the_picture(kind, length, prompt):
    pipe = kind.long(**kind.components(length=length))
    first, second = (draw(pipe, text, **kind.arguments()) for text in endings(prompt))
    assert np.abs(first - second).max() > 1e-3  # float noise between equal prompts is exactly zero


@KIND
def test_stock_does_not_see_the_last_sentence(kind):
    pipe = kind.stock(**kind.components())
    first, second = (draw(pipe, text, **kind.arguments()) for text in endings(SENTENCE * 5))
    assert np.array_equal(first, second)


@KIND
def test_long_negative_is_read_to_its_end(kind):
    pipe = kind.long(**kind.components(length=248))
    first, second = (draw(pipe, "a cat", negative_prompt=text, **kind.arguments()) for text in endings(CHAPTER))
    assert np.abs(first - second).max() > 1e-3


def test_batch_of_unequal_prompts_with_several_images_each():
    kind = KINDS["text2img"]
    pipe = kind.long(**kind.components(length=248))
    prompts = [CHAPTER, "a cat"]
    assert draw(pipe, prompts, num_images_per_prompt=3).shape == (6, 64, 64, 3)


def test_chapters_are_read_in_context_unless_told_otherwise():
    kind = KINDS["text2img"]
    pipe = kind.long(**kind.components(length=77))
    read = draw(pipe, CHAPTER)
    pipe.prompt_options = type(pipe.prompt_options)(context="related")
    assert np.array_equal(draw(pipe, CHAPTER), read)
    pipe.prompt_options = type(pipe.prompt_options)(context="none")
    assert not np.array_equal(draw(pipe, CHAPTER), read)


@pytest.mark.parametrize(("syntax", "prompt"), [("a1111", "a cat BREAK a dog"), ("compel", '("a cat", "a dog").and()')])
def test_windows_that_a_prompt_begins_itself_stand_alone_unless_told_otherwise(syntax, prompt):
    kind = KINDS["text2img"]
    pipe = kind.long(**kind.components(length=77))
    rows = {}
    for context in ("auto", "none", "related"):
        pipe.prompt_options = type(pipe.prompt_options)(syntax=syntax, context=context)
        for negative in ("dark", CHAPTER):
            with torch.no_grad():
                both = pipe.encode_prompt(prompt, "cpu", 1, True, negative_prompt=negative)
            rows[context, negative == CHAPTER] = torch.cat(both)
    for long_negative in (False, True):
        assert torch.equal(rows["auto", long_negative], rows["none", long_negative])
        assert rows["auto", long_negative].shape != rows["related", long_negative].shape
    pipe.prompt_options = type(pipe.prompt_options)(syntax=syntax)
    assert pipe.plan_prompt(CHAPTER).context == "related"


def test_callbacks_see_the_long_embeddings():
    kind = KINDS["text2img"]
    pipe = kind.long(**kind.components(length=248))
    seen = []

    def on_step_end(pipe, step, timestep, tensors):
        seen.append((step, tuple(tensors["prompt_embeds"].shape)))
        return tensors

    draw(
        pipe,
        CHAPTER,
        callback_on_step_end=on_step_end,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    rows = 77 * math.ceil((pipe.plan_prompt(CHAPTER).num_tokens + 2) / 77)
    assert seen == [(0, (2, rows, toys.WIDTH)), (1, (2, rows, toys.WIDTH))]  # 2: guidance puts the negative first


def test_plan_prompt_reports_every_token():
    kind = KINDS["text2img"]
    pipe = kind.long(**kind.components(length=248))
    plan = pipe.plan_prompt(CHAPTER)
    assert plan.num_tokens == len(toys.tokenizer()(CHAPTER, add_special_tokens=False, verbose=False).input_ids)
    assert f"{plan.num_tokens} tokens in {len(plan.windows)} windows" in str(plan)
