"""The bench of peers before SDXL's two encoders: what either drops, rows apart, pooled vectors of another window."""

import pytest
from peers_stand_in import write_lpw, write_sd_embed

from longclip_diffusers.evaluation.peers import (
    ENCODERS,
    Text,
    Way,
    find_ways,
    peer_texts,
    random_pipes,
    read_texts,
)
from longclip_diffusers.evaluation.peers.reading import COUNTS

PROSE = "A red boat lay at anchor. The captain (a tall man) smiled. A grey cat slept."
OURS = ("windows_sentence", "windows_context", "long", "long_context")


@pytest.fixture(scope="module")
def pipes():
    return random_pipes(ENCODERS["sdxl"]["tiny"])


def encoded(pipes, first, second=None):
    """Embeddings (1, 77, D) and a pooled vector (1, P), each encoder of a text of its own."""
    embeds, _, pooled, _ = pipes.stock.encode_prompt(first, prompt_2=second or first, negative_prompt="")
    return embeds, pooled


def counts(pipes, change, *, prompt=PROSE, negative=""):
    """What is counted of a way whose prompt is read as `change` makes it, and whose negative is read well."""

    def bind(given):
        def encode(text, other):
            (embeds, pooled), (empty, negative_pooled) = change(given), encoded(given, other)
            return embeds, empty, pooled, negative_pooled

        return encode

    (reading,) = read_texts([Way("it", bind)], pipes, [Text("text", prompt, negative)])
    assert not reading.error
    return {name: count for name in COUNTS if (count := getattr(reading, name))}


def altered_at(embeds, *places):
    for row, columns in places:
        embeds[:, row, columns] *= 1.5
    return embeds


def test_a_faithful_reading_is_whole(pipes):
    assert counts(pipes, lambda given: encoded(given, PROSE)) == {}
    assert counts(pipes, lambda given: encoded(given, PROSE), negative="A blue kite.") == {}


def test_what_either_encoder_drops_counts(pipes):
    shorter = PROSE.replace(" slept", "")
    assert counts(pipes, lambda given: encoded(given, PROSE, shorter)) == {"dropped": 1, "rows_apart": 2}
    assert counts(pipes, lambda given: encoded(given, shorter, PROSE)) == {"dropped": 1, "rows_apart": 2}
    assert counts(pipes, lambda given: encoded(given, shorter, shorter)) == {"dropped": 1}


def test_a_row_that_either_encoder_weighs_is_altered_once(pipes):
    width = pipes.stock.text_encoder.config.hidden_size
    first, second = slice(0, width), slice(width, None)

    def change(given):
        embeds, pooled = encoded(given, PROSE)
        return altered_at(embeds, (3, first), (5, second), (7, first), (7, second)), pooled

    assert counts(pipes, change) == {"altered": 3}


def test_a_pooled_vector_of_another_window_is_seen(pipes):
    def change(given):
        return encoded(given, PROSE)[0], encoded(given, "A grey cat slept.")[1]

    assert counts(pipes, change) == {"pooled_elsewhere": 1}
    beginning = PROSE.split(".")[0]
    assert counts(pipes, lambda given: (encoded(given, PROSE)[0], encoded(given, beginning)[1])) == {}


def test_our_ways_read_everything_and_stock_and_compel_as_they_do(pipes):
    texts = [text for text in peer_texts(200) if text.name != "one sentence of 100 tokens"]
    readings = {(each.way, each.text): each for each in read_texts(find_ways(family="sdxl"), pipes, texts)}
    ours = [str(each) for (way, _), each in readings.items() if way in OURS]
    assert ours == ["whole"] * 4 * len(texts)
    stock = readings["truncated", "chapter"]
    assert stock.dropped == stock.tokens - 75
    assert str(readings["compel", "chapter"]) == "whole"
    assert readings["compel", "round brackets"].dropped == 4


def test_peers_functions_for_sdxl_are_found_and_called_by_their_own_names(pipes, tmp_path):
    ways = find_ways(write_sd_embed(tmp_path / "one"), write_lpw(tmp_path / "two"), family="sdxl")
    assert [way.name for way in ways] == ["truncated", "compel", "sd_embed", "lpw", *OURS]
    text = Text("text", "A red boat lay at anchor.", "A blue kite.")
    sd_embed, lpw = read_texts([way for way in ways if way.name in ("sd_embed", "lpw")], pipes, [text])
    assert (str(sd_embed), sd_embed.error) == ("2 pooled elsewhere", "")
    assert (lpw.dropped, lpw.pooled_elsewhere, lpw.error) == (0, 2, "")
    assert lpw.rows_apart > 10


def test_both_encoders_are_those_of_the_family():
    assert [size["hidden_size"] for size in ENCODERS["sdxl"]["full"]] == [768, 1280]
    toys = random_pipes(ENCODERS["sdxl"]["tiny"])
    assert [half.width for half in toys.halves] == [32, 48]
    assert [half.tokenizer.pad_token_id for half in toys.halves] == [49407, 0]
    assert [len(half.encoders) for half in toys.halves] == [2, 2]
