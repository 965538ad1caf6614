"""The bench of peers: what it says a way dropped, added, altered or cut is what the way did, and errors are rows."""

import sys
from types import ModuleType

import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.testing import assert_array_equal
from peers_stand_in import write_lpw, write_sd_embed
from toys import stable_diffusion_components

from longclip_diffusers.errors import LongClipError
from longclip_diffusers.evaluation.encoders import draw_pictures
from longclip_diffusers.evaluation.peers import (
    ENCODERS,
    Pipes,
    Reading,
    Text,
    Way,
    chapter,
    cost_rows,
    draw_encoded,
    find_ways,
    peer_texts,
    random_pipes,
    read_texts,
    reading_rows,
    reading_table,
    time_ways,
)
from longclip_diffusers.evaluation.peers.reading import COUNTS
from longclip_diffusers.pipelines import StableDiffusionLongPipeline
from longclip_diffusers.sidecar import Generation

PROSE = "A red boat lay at anchor. The captain (a tall man) smiled. A grey cat slept."
OURS = ("windows_sentence", "windows_context", "long", "long_context")
MISSING = "AttributeError: 'CLIPTextModel' object has no attribute 'text_model'"


@pytest.fixture(scope="module")
def pipes():
    return random_pipes(ENCODERS["sd15"]["tiny"])


def encoded(pipes, *windows):
    """(1, L, D): the states of windows of words, each of 77 rows."""
    tokenizer = pipes.stock.tokenizer
    states = [
        pipes.stock.text_encoder(tokenizer(text, padding="max_length", max_length=77, return_tensors="pt").input_ids)[0]
        for text in windows
    ]
    return torch.cat(states, dim=1)


def reading_of(pipes, change, prompt=PROSE, negative=""):
    """The reading of a way whose prompt embeddings are what `change` makes, and whose negative is of that length."""

    def bind(given):
        def encode(text, other):
            embeds = change(given)
            return embeds, encoded(given, *[other] * (embeds.shape[1] // 77))

        return encode

    return next(read_texts([Way("it", bind)], pipes, [Text("text", prompt, negative)]))


def counts(reading):
    assert not reading.error
    return {name: count for name in COUNTS if (count := getattr(reading, name))}


def test_a_faithful_reading_is_whole(pipes):
    reading = reading_of(pipes, lambda given: encoded(given, PROSE))
    assert reading == Reading("it", "text", tokens=21)
    assert str(reading) == "whole"


@pytest.mark.parametrize(
    ("windows", "found"),
    [
        (["A red boat lay at anchor. The captain a tall man smiled. A grey cat slept."], {"dropped": 2}),
        ([PROSE.replace("cat", "grey cat")], {"added": 1}),
        ([PROSE.replace("cat", "dog")], {"dropped": 1, "added": 1}),
        (["A red boat lay at anchor.", "The captain (a tall man) smiled. A grey cat slept."], {}),
        (["A red boat lay", "at anchor. The captain (a tall man) smiled. A grey cat slept."], {"sentences_cut": 1}),
        (["A red boat lay", "at anchor. The", "captain (a tall man) smiled. A grey cat slept."], {"sentences_cut": 2}),
    ],
)
def test_what_was_dropped_added_and_cut_is_counted(pipes, windows, found):
    assert counts(reading_of(pipes, lambda given: encoded(given, *windows))) == found


def test_a_word_cut_inside_is_counted(pipes):
    tokenizer = pipes.stock.tokenizer
    ids = tokenizer("the hippocampuses", add_special_tokens=False).input_ids
    assert len(ids) > 2  # the last word is several tokens

    def change(given):
        halves = [[tokenizer.bos_token_id, *half, *[tokenizer.eos_token_id] * 70] for half in (ids[:2], ids[2:])]
        states = [given.stock.text_encoder(torch.tensor([half[:70]]))[0] for half in halves]
        return torch.cat([*states, encoded(given, "")[:, -14:]], dim=1)  # two windows of 77 in all

    assert counts(reading_of(pipes, change, "the hippocampuses")) == {"words_cut": 1, "sentences_cut": 1}


@pytest.mark.parametrize("weight", [1.1, 0.5, -1])
def test_a_weight_is_an_alteration_of_the_token_it_was_given(pipes, weight):
    def change(given):
        embeds = encoded(given, PROSE)
        embeds[:, 3:5] *= weight
        return embeds

    assert counts(reading_of(pipes, change)) == {"altered": 2}


def test_a_negative_that_is_a_text_is_read_too(pipes):
    kept = reading_of(pipes, lambda given: encoded(given, PROSE), negative="A blue kite.")
    assert (kept.tokens, counts(kept)) == (25, {})
    lost = Way("lost", lambda given: lambda prompt, negative: (encoded(given, prompt), encoded(given, "")))
    (reading,) = read_texts([lost], pipes, [Text("text", PROSE, "A blue kite.")])
    assert counts(reading) == {"dropped": 4}


def broken(given):
    raise KeyError("text_model")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (broken, "KeyError: 'text_model'"),
        (
            lambda given: encoded(given, PROSE)[:, :70],
            "LongClipError: (1, 70, 32) for the prompt, (1, 77, 32) for the negative",
        ),
        (lambda given: encoded(given, PROSE) / 0, "LongClipError: NaN or infinity in the embeddings"),
    ],
)
def test_a_failure_is_a_row(pipes, change, error):
    def bind(given):
        return lambda prompt, negative: (change(given), encoded(given, ""))

    good = Way("good", lambda given: lambda prompt, negative: (encoded(given, prompt), encoded(given, negative)))
    texts = [Text("text", PROSE)]
    bad, fine = read_texts([Way("bad", bind), good], pipes, texts)
    assert bad == Reading("bad", "text", 21, error=error)
    assert counts(fine) == {}
    table = reading_table([bad, fine]).splitlines()
    assert table[2] == "| text | 21 | fails (1) | whole |"
    assert table[-1] == f"(1) {error}"
    rows = {(row.encoder, row.column): row.value for row in reading_rows([bad, fine])}
    assert (rows["bad", "text: failed"], rows["good", "text: failed"], rows["good", "text: dropped"]) == (1, 0, 0)
    assert ("bad", "text: dropped") not in rows


def test_our_ways_read_everything_and_stock_stops(pipes):
    texts = [text for text in peer_texts(200) if text.name != "one sentence of 100 tokens"]
    readings = list(read_texts(find_ways(), pipes, texts))
    ours = [each for each in readings if each.way in OURS]
    assert len(ours) == 4 * len(texts)
    assert {str(each) for each in ours} == {"whole"}
    stock = {each.text: each for each in readings if each.way == "truncated"}
    assert stock["chapter"].dropped == stock["chapter"].tokens - 75
    assert str(stock["empty"]) == "whole"


def test_a_real_peers_misreading_is_seen(pipes):
    texts = [text for text in peer_texts(200) if text.name in ("C++ and two dashes", "round brackets", "chapter")]
    compel = [way for way in find_ways() if way.name == "compel"]
    readings = {each.text: each for each in read_texts(compel, pipes, texts)}
    assert str(readings["chapter"]) == "whole"
    assert readings["round brackets"].dropped == 4
    assert readings["C++ and two dashes"].altered > 3  # "++" and "--" are weights to it


@pytest.mark.parametrize("inside", ["src", "."])
def test_sd_embed_is_found_and_runs_with_what_transformers_removed(pipes, tmp_path, monkeypatch, inside):
    installed = ModuleType("sd_embed")
    monkeypatch.setitem(sys.modules, "sd_embed", installed)
    ways = {way.name: way for way in find_ways(write_sd_embed(tmp_path, inside=inside))}
    text = Text("text", PROSE + " and on" * 60)
    bare, repaired = read_texts([ways["sd_embed"], ways["sd_embed_repaired"]], pipes, [text])
    assert bare.error == MISSING
    assert counts(repaired) == {"dropped": repaired.tokens - 75, "altered": 1}
    assert sys.modules["sd_embed"] is installed
    assert not [name for name in sys.modules if name.startswith("sd_embed.")]


@pytest.mark.parametrize("given", ["", "examples", "examples/community", "examples/community/lpw_stable_diffusion.py"])
def test_lpw_is_found_in_a_checkout_or_as_a_file(pipes, tmp_path, given):
    ways = {way.name: way for way in find_ways(lpw=write_lpw(tmp_path) / given)}
    (reading,) = read_texts([ways["lpw"]], pipes, [Text("text", "A red boat.")])
    assert counts(reading) == {}


def test_a_wrong_folder_says_what_is_missing_and_where_it_was_looked_for(tmp_path):
    with pytest.raises(
        LongClipError, match=r"--sd-embed .* holds no embedding_funcs.py .*src/sd_embed/.*xhinker/sd_embed"
    ):
        find_ways(sd_embed=tmp_path)
    with pytest.raises(LongClipError, match=r"--lpw .*nowhere is no folder with lpw_stable_diffusion.py"):
        find_ways(lpw=tmp_path / "nowhere")


def test_costs_are_timed_in_turn_and_their_ratios_are_of_the_same_rounds(pipes):
    order = []
    others = {"unet_step": lambda: order.append("unet")}

    def bind(given):
        return lambda prompt, negative: order.append(prompt)

    rounds = list(time_ways([Way("a", bind), Way("b", bind)], pipes, "text", repeats=2, others=others))
    assert [list(each) for each in rounds] == [["a", "b", "unet_step"]] * 2
    assert order[2:] == ["text", "text", "unet"] * 2  # behind a warm-up of each way
    assert all(seconds >= 0 for each in rounds for seconds in each.values())


def test_ratios_are_of_the_fastest_rounds_between_the_extremes():
    rows = {(row.encoder, row.column): row for row in cost_rows({"a": [2, 3], "b": [4, 3]}, ("b", "absent"))}
    assert (rows["a", "seconds"].value, rows["a", "seconds"].high, rows["a", "seconds"].n) == (2, 3, 2)
    ratio = rows["a", "time / b's"]
    assert (ratio.value, ratio.low, ratio.high) == (2 / 3, 0.5, 1)
    assert rows["b", "time / b's"].value == 1
    assert not [column for _, column in rows if "absent" in column]


def test_pictures_of_a_ways_embeddings_are_those_of_its_pipeline():
    stock = StableDiffusionPipeline(**stable_diffusion_components())
    stock.set_progress_bar_config(disable=True)
    toys = Pipes(stock, StableDiffusionLongPipeline.from_pipe(stock, longclip="stretch"))
    ways = {way.name: way for way in find_ways()}
    texts, generation = ["a boat", "a kite " * 20], Generation(steps=2, guidance=3.0)
    for name, pipe in (("truncated", toys.stock), ("long", toys.long)):
        drawn = list(draw_encoded(ways[name], toys, texts, generation, seed=5))
        alone = dict(draw_pictures(pipe, texts, generation, seed=5, batch_size=1))
        for number, one in enumerate(drawn):
            assert_array_equal(one, alone[number])


def test_texts_are_what_their_names_say(pipes):
    tokenizer = pipes.stock.tokenizer
    texts = {text.name: text for text in peer_texts(2000)}
    lengths = {name: len(tokenizer(text.prompt, verbose=False).input_ids) - 2 for name, text in texts.items()}
    assert 280 <= lengths["prose, 300 tokens"] <= 310
    assert 95 <= lengths["one sentence of 100 tokens"] <= 110
    assert 2000 <= len(chapter(2000).split()) <= 2022
    assert texts["chapter"].prompt == chapter(2000)
