"""Retrieval of samples: what counts as one picture, what the rows are called, what is left out."""

from dataclasses import dataclass

import pytest
import torch
import toy_clip
from PIL import Image

from longclip_diffusers.errors import LongClipError
from longclip_diffusers.evaluation.features import encode_images, encode_texts
from longclip_diffusers.evaluation.metrics import recall_at
from longclip_diffusers.evaluation.retrieval import (
    evaluate_retrieval,
    monotonicity_rows,
    readable,
    recall_rows,
    sentence_prefixes,
)

TEXT = "One. Two is longer. Three! Four? Five."


@dataclass(frozen=True)
class Pair:
    caption: str
    short_caption: str
    image: Image.Image | None


def pairs(count, **changed):
    given = [
        Pair(f"Picture {index} is here. {index} it is. So.", f"Picture {index}.", toy_clip.picture(index))
        for index in range(count)
    ]
    return [Pair(**{**vars(pair), **changed}) for pair in given]


def rows_of(result):
    return {row.column: row for row in result.rows}


def test_rows_carry_protocol_and_numbers_of_the_features():
    encoder, samples = toy_clip.encoder(), pairs(12)
    rows = rows_of(evaluate_retrieval([encoder], samples, name="toys", batch_size=5))
    images = encode_images(encoder.clip, [pair.image for pair in samples], encoder.processor)
    for kind in ("long", "short"):
        texts = [pair.caption if kind == "long" else pair.short_caption for pair in samples]
        features = encode_texts(encoder.clip, encoder.tokenizer, texts).features
        for name, value in recall_at(images, features, torch.arange(12)).items():
            row = rows.pop(f"toys/{kind}/{name}(n=12)")
            assert (row.value, row.n, row.encoder) == (pytest.approx(value), 12, "toy")
            assert row.low <= row.value <= row.high
    assert set(rows) == {"toys/long/HiMo@2", "toys/long/HiMo@3"}


def test_equal_pictures_are_one_with_several_captions():
    encoder, samples = toy_clip.encoder(), pairs(8)
    more = [Pair(f"Again {index}.", "Again.", toy_clip.picture(index)) for index in (2, 2, 5)]
    result = evaluate_retrieval([encoder], samples + more, name="toys", batch_size=3)
    assert (result.num_images, result.num_texts) == (8, 11)
    rows = rows_of(result)
    assert rows["toys/long/i2t_R@1(n=8)"].n == 8
    assert rows["toys/long/t2i_R@1(n=8)"].n == 11
    images = encode_images(encoder.clip, [pair.image for pair in samples], encoder.processor)
    texts = encode_texts(encoder.clip, encoder.tokenizer, [pair.caption for pair in samples + more]).features
    expected = recall_at(images, texts, torch.tensor([*range(8), 2, 2, 5]))
    assert rows["toys/long/t2i_R@5(n=8)"].value == pytest.approx(expected["t2i_R@5"])
    assert rows["toys/long/i2t_R@5(n=8)"].value == pytest.approx(expected["i2t_R@5"])


def test_a_recall_that_cannot_fail_has_no_row():
    columns = rows_of(evaluate_retrieval([toy_clip.encoder()], pairs(5), name="toys"))
    assert {column for column in columns if "R@" in column and "long" in column} == {
        "toys/long/i2t_R@1(n=5)",
        "toys/long/t2i_R@1(n=5)",
    }


def test_captions_that_are_the_short_ones_too_are_measured_once():
    same = [Pair(pair.caption, pair.caption, pair.image) for pair in pairs(4)]
    columns = rows_of(evaluate_retrieval([toy_clip.encoder()], same, name="toys"))
    assert {column.split("/")[1] for column in columns} == {"text"}


def test_base_encoder_stands_beside_and_cuts_are_told_for_each():
    long, base = toy_clip.encoder(248, name="long"), toy_clip.encoder(name="base")
    samples = [Pair("x" * (100 if index < 3 else 20), "x.", toy_clip.picture(index)) for index in range(4)]
    result = evaluate_retrieval([long, base], samples, name="toys")
    assert result.truncated == {"long": {"long": 0, "short": 0}, "base": {"long": 0.75, "short": 0}}
    assert [row.column for row in result.rows if row.encoder == "long"] == [
        row.column for row in result.rows if row.encoder == "base"
    ]


def test_perfect_features_have_full_recall_and_sure_intervals():
    features = torch.eye(30)
    for row in recall_rows("toy", "toys/long", features, features, torch.arange(30)):
        assert (row.low, row.value, row.high) == (1, 1, 1)


def test_prefixes_end_with_sentences_and_the_last_is_the_whole():
    assert sentence_prefixes(TEXT, 2) == ["One. Two is longer.", TEXT]
    assert sentence_prefixes(TEXT, 3) == ["One.", "One. Two is longer. Three!", TEXT]
    assert sentence_prefixes(TEXT, 5)[1] == "One. Two is longer."
    assert sentence_prefixes(TEXT, 6) == []


def test_monotonicity_follows_the_pictures_side_of_the_texts():
    encoder = toy_clip.encoder()
    captions = [f"{word} {index}. Then more of it. And the end." for index, word in enumerate(("Cat", "Dog", "Sun"))]
    whole = encode_texts(encoder.clip, encoder.tokenizer, captions).features
    # A picture that is its whole text is nearest to it; one on the other side is farthest from it.
    rising, falling = (monotonicity_rows(encoder, "toys/long", side * whole, captions, whole) for side in (1, -1))
    assert (rising[0].column, rising[0].value, rising[0].n) == ("toys/long/HiMo@2", 1, 3)
    assert [row.value for row in falling] == [0, 0]
    assert monotonicity_rows(encoder, "x", whole[:1], ["One sentence."], whole[:1]) == []


def test_monotonicity_counts_the_captions_of_a_picture_together():
    encoder = toy_clip.encoder()
    captions = [f"Cat {index}. Then more of it. And the end." for index in range(12)]
    whole = encode_texts(encoder.clip, encoder.tokenizer, captions).features
    sides = torch.tensor([1, -1]).repeat_interleave(3).repeat(2)[:, None]  # rises with two pictures, falls with two
    apart, (together, *_) = (
        monotonicity_rows(encoder, "x", sides * whole, captions, whole, image_of_text=images)
        for images in (None, torch.arange(4).repeat_interleave(3))
    )
    assert together.value == apart[0].value == 0.5
    assert together.high - together.low > 1.3 * (apart[0].high - apart[0].low)


def test_unreadable_samples_are_left_out_and_kept_as_errors():
    class Data(list):
        def __getitem__(self, index):
            if index in (1, 3):
                raise LongClipError(f"{index}.png is broken")
            return super().__getitem__(index)

    bad = []
    assert len(list(readable(Data(pairs(6)), 5, bad))) == 3
    assert [str(error) for error in bad] == ["1.png is broken", "3.png is broken"]


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(LongClipError, match="1 usable pictures; retrieval chooses between at least 2"):
        evaluate_retrieval([toy_clip.encoder()], pairs(1), name="toys")
    with pytest.raises(LongClipError, match=r"'Picture 0 is here.* has no picture"):
        evaluate_retrieval([toy_clip.encoder()], pairs(3, image=None), name="toys")
