"""What the encoder is given, and what of its rows the conditioning keeps; a row tells token, weight and place."""

import pytest
import torch
from comfyui_stand_in import BOS, EOS, PADS, Clip, fragments

from longclip_diffusers.comfyui import prompts
from longclip_diffusers.comfyui.encoding import WINDOWS_PER_FORWARD, encode_prompt, match_lengths
from longclip_diffusers.errors import ModelError, PromptError

PROSE = "Mr. Fox ran, and ran. The hen slept! It was late; nobody saw. " * 4
ROOF = "The roof is violet and steep. A dog barks at a passing cart. A hen naps in the sun. The door is like the roof."


@pytest.fixture(autouse=True)
def parser(monkeypatch):
    monkeypatch.setattr(prompts, "_fragments", fragments)


def rows(conditioning):
    ((states, _),) = conditioning
    return states[0]


def words(states, column=0):
    return "".join(chr(int(token)) for token in states[:, column] if token > EOS)


def test_token_is_core_s_own_encoding():
    clip = Clip(l=32, g=32)
    conditioning, plan = encode_prompt(clip, PROSE, split="token")
    core = clip.encode_from_tokens_scheduled(clip.tokenize(PROSE))
    assert torch.equal(rows(conditioning), rows(core))
    assert torch.equal(conditioning[0][1]["pooled_output"], core[0][1]["pooled_output"])
    assert len(plan.windows) * 32 == len(rows(core))


def test_every_window_has_bos_content_eos_and_each_tower_s_padding():
    conditioning, plan = encode_prompt(Clip(l=32, g=32), "One fox ran. Then there (were:1.5) two foxes.")
    states = rows(conditioning)
    assert len(states) == 2 * 32
    for window, made in zip(states.split(32), plan.windows, strict=True):
        number = len(made.own_ids)
        for column, tower in ((0, "l"), (3, "g")):
            assert window[0, column] == BOS
            assert words(window, column) == "".join(made.text.split())
            assert window[1 + number, column] == EOS
            assert set(window[2 + number :, column].tolist()) == {PADS[tower]}
        assert window[:, 2].tolist() == list(range(32))
    assert set(states[:, 1].tolist()) == {1.0, 1.5}


@pytest.mark.parametrize("text", ["", "BREAK", " "])
def test_an_empty_text_is_core_s_empty_prompt(text):
    clip = Clip(l=32)
    conditioning, plan = encode_prompt(clip, text)
    assert torch.equal(rows(conditioning), rows(clip.encode_from_tokens_scheduled(clip.tokenize(""))))
    assert (len(plan.windows), plan.num_tokens) == (1, 0)


def test_a_book_is_encoded_in_groups():
    clip = Clip(l=32)
    conditioning, plan = encode_prompt(clip, PROSE * 20)
    assert max(each["l"] for each in clip.passes) == WINDOWS_PER_FORWARD
    assert len(rows(conditioning)) == 32 * len(plan.windows)
    assert words(rows(conditioning)) == "".join((PROSE * 20).split())


def test_min_windows_adds_empty_ones():
    clip = Clip(l=32)
    empty = rows(clip.encode_from_tokens_scheduled(clip.tokenize("")))
    for split in ("sentence", "token"):
        states = rows(encode_prompt(clip, "a fox", split=split, min_windows=3)[0])
        assert torch.equal(states[32:], empty.repeat(2, 1))
    assert len(rows(encode_prompt(clip, PROSE, min_windows=2)[0])) > 64


@pytest.mark.parametrize(("pooled", "expected"), [("first", 0), ("last", -1)])
def test_pooled_is_of_the_chosen_window(pooled, expected):
    clip = Clip(l=32)
    conditioning, plan = encode_prompt(clip, PROSE, pooled=pooled)
    alone = encode_prompt(clip, plan.windows[expected].text)[0]
    assert torch.equal(conditioning[0][1]["pooled_output"], alone[0][1]["pooled_output"])
    assert torch.equal(rows(conditioning), rows(encode_prompt(clip, PROSE)[0]))


def test_pooled_mean_is_that_of_the_windows_not_of_the_filling():
    clip = Clip(l=32)
    conditioning, plan = encode_prompt(clip, PROSE, pooled="mean", min_windows=30)
    alone = [encode_prompt(clip, window.text)[0][0][1]["pooled_output"] for window in plan.windows]
    torch.testing.assert_close(conditioning[0][1]["pooled_output"], torch.stack(alone).mean(0))


@pytest.mark.parametrize("pooled", ["last", "mean"])
def test_pooled_of_encoders_of_unequal_lengths_is_of_their_own_windows(pooled):
    clip = Clip(l=64, g=32)
    conditioning, plan = encode_prompt(clip, "a" * 50, split="token", pooled=pooled)
    assert len(plan.windows) == 2  # G's; L has one
    assert torch.isfinite(conditioning[0][1]["pooled_output"]).all()


def test_context_rows_are_left_out_of_every_tower():
    clip = Clip(l=60, g=60)
    text = ROOF
    conditioning, plan = encode_prompt(clip, text, context="related")
    assert sum(window.num_context for window in plan.windows) > 0
    states = rows(conditioning)
    assert len(states) == 154  # the next multiple of 77
    for column, tower in ((0, "l"), (3, "g")):
        assert words(states, column) == "".join(text.split())
        assert (states[:, column] == BOS).sum() == 1
        behind = 1 + plan.num_tokens
        assert states[behind, column] == EOS
        assert set(states[behind + 1 :, column].tolist()) == {PADS[tower]}
    assert len(rows(encode_prompt(clip, text, context="related", min_windows=5)[0])) == 300


def test_t5_reads_the_whole_text_once_without_break():
    clip = Clip(l=32, others=("t5xxl",))
    conditioning, plan = encode_prompt(clip, PROSE * 20 + "BREAK Dawn.")
    assert len(clip.passes) == 1
    assert len(plan.windows) > WINDOWS_PER_FORWARD
    assert conditioning[0][1]["others"] == [[[(f"{PROSE * 20}".strip() + " Dawn.", 1.0)]]]
    with pytest.raises(PromptError, match="reads the text through t5xxl too"):
        encode_prompt(clip, PROSE, context="related")


def test_towers_of_different_lengths_are_refused_but_for_core_s_own_cutting():
    clip = Clip(l=64, g=32)
    with pytest.raises(ModelError, match=r"different lengths \(L 64 and G 32 tokens\).*max_tokens=64"):
        encode_prompt(clip, PROSE)
    assert len(rows(encode_prompt(clip, PROSE, split="token")[0]))


def test_the_clip_is_not_changed():
    clip = Clip(l=32)
    before = clip.tokenize(PROSE)
    encode_prompt(clip, PROSE, context="related")
    assert clip.tokenize(PROSE) == before
    with pytest.raises(PromptError, match="pooled is 'max'"):
        encode_prompt(clip, PROSE, pooled="max")


def test_the_shorter_conditioning_gets_empty_windows():
    clip = Clip(l=32)
    long, short = encode_prompt(clip, PROSE)[0], encode_prompt(clip, "a fox")[0]
    kept = rows(short).clone()
    positive, negative = match_lengths(long, short, clip)
    assert torch.equal(rows(positive), rows(long))
    assert torch.equal(rows(negative)[:32], kept)
    empty = rows(clip.encode_from_tokens_scheduled(clip.tokenize("")))
    assert torch.equal(rows(negative)[32:], empty.repeat(len(rows(long)) // 32 - 1, 1))
    assert torch.equal(rows(short), kept)
    assert negative[0][1] is short[0][1]


def test_where_no_whole_window_is_missing_the_filling_has_no_bos():
    clip = Clip(l=60)
    long, short = encode_prompt(clip, PROSE, context="related")[0], encode_prompt(clip, "a fox")[0]
    _, negative = match_lengths(long, short, clip)
    assert len(rows(negative)) == len(rows(long))
    assert (rows(negative)[:, 0] == BOS).sum() == 1


def test_another_model_s_clip_is_refused():
    with pytest.raises(ModelError, match="3 wide, this clip gives 6"):
        match_lengths(encode_prompt(Clip(l=32), PROSE)[0], encode_prompt(Clip(l=32), "a")[0], Clip(l=32, g=32))
