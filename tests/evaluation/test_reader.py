"""The frozen reader: any number of rows, one reader a seed, and a probe that counts by place and by kind."""

import random

import pytest
import torch
import toys

from longclip_diffusers import LongClipError
from longclip_diffusers.evaluation.reader import Reader, probe_rows, told_facts, train_reader, window_caption
from longclip_diffusers.storybook.captions import num_tokens
from longclip_diffusers.storybook.phrases import TRAINING, UNSEEN
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.storybook.slots import SLOTS

WIDTH = 32


@pytest.fixture(scope="module")
def encoder():
    return toys.text_encoder(vocab_size=toys.REAL_VOCABULARY_SIZE).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return toys.real_tokenizer()


def reader(**options):
    torch.manual_seed(0)
    return Reader(WIDTH, **options).eval()


def drawn(count, phrases=TRAINING):
    for index in range(count):
        rng = random.Random(f"window {index}")
        scene = draw_scene(rng)
        yield scene, window_caption(scene, rng, phrases=phrases)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_text_is_read_by_its_rows_whatever_their_number_and_order(num_layers):
    states = torch.randn(3, 77, WIDTH, generator=torch.Generator().manual_seed(1))
    one = reader(num_layers=num_layers)
    once = one(states)
    assert once.shape[:2] == (3, len(SLOTS))
    # Attention is a mean over rows: the same rows 26 times (2,002) or backwards say the same.
    torch.testing.assert_close(one(states.repeat(1, 26, 1)), once, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one(states.flip(1)), once, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(one(states[:, :40]), once, atol=1e-3)
    assert one.read(states)[1:] == one.read(states[1:])


def test_every_slot_is_read_as_one_of_its_words():
    for found in reader().read(torch.randn(20, 9, WIDTH)):
        assert list(found) == [slot.name for slot in SLOTS]
        assert all(found[slot.name] in slot.words for slot in SLOTS)


def test_states_of_another_width_are_refused():
    with pytest.raises(LongClipError, match=r"token states \(B, N, 32\), got \(1, 77, 64\)"):
        reader().read(torch.randn(1, 77, 64))


def test_training_learns_repeatably_and_leaves_the_encoder_and_the_random_state_alone(encoder, tokenizer):
    before, state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}, torch.get_rng_state()
    first, again, other = (train_reader(encoder, tokenizer, seed=seed, steps=2) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name])
    for (name, tensor), same, different in zip(
        first.state_dict().items(), again.state_dict().values(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, same)
        assert name == "is_word" or not torch.equal(tensor, different)
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_training_of_an_encoder_with_nan_weights_is_refused(tokenizer):
    broken = toys.text_encoder(vocab_size=toys.REAL_VOCABULARY_SIZE)
    torch.nn.init.constant_(broken.embeddings.position_embedding.weight, torch.nan)
    with pytest.raises(LongClipError, match="loss became nan"):
        train_reader(broken, tokenizer, steps=1)


class Oracle:
    """Reads the truth of the probe's scenes in their order, but for some slots."""

    def __init__(self, seed, *, wrong=()):
        self.seed, self.wrong, self.number = seed, wrong, 0

    def read(self, states):
        found = []
        for _ in states:
            scene = draw_scene(random.Random(f"{self.seed}/probe/{self.number}"))
            found.append({slot.name: "" if slot.name in self.wrong else scene[slot.name] for slot in SLOTS})
            self.number += 1
        return found


@pytest.mark.parametrize("phrases", [TRAINING, UNSEEN], ids=["training", "unseen"])
def test_the_probe_counts_by_position_and_by_kind(encoder, tokenizer, phrases):
    rows = probe_rows(Oracle(5), encoder, tokenizer, num_scenes=240, seed=5, phrases=phrases)
    counts = {row.column: row.n for row in rows}
    assert list(counts) == [
        *("0-20", "20-40", "40-60", "60-77", "details", "opening"),
        *("near_reference", "near_shared", "near_owner", "near_pronoun"),
    ]
    assert all(row.value == row.low == row.high == 1 for row in rows)
    assert counts["details"] == sum(counts[name] for name in ("0-20", "20-40", "40-60", "60-77"))
    assert counts["near_reference"] == sum(counts[f"near_{kind}"] for kind in ("shared", "owner", "pronoun"))
    assert min(counts.values()) >= 20


def test_the_probe_finds_what_is_read_wrongly(encoder, tokenizer):
    rows = probe_rows(Oracle(5, wrong=("sky", "animal")), encoder, tokenizer, num_scenes=70, seed=5, name="x")
    values = {row.column: row.value for row in rows}
    assert values["opening"] == 0.75
    assert 0.85 < values["details"] < 1
    assert values["near_reference"] == 1  # an animal is never told by reference
    assert {row.encoder for row in rows} == {"x"}


def test_a_probe_of_nothing_is_refused(encoder, tokenizer):
    with pytest.raises(LongClipError, match="num_scenes is 0"):
        probe_rows(Oracle(5), encoder, tokenizer, num_scenes=0, seed=5)


@pytest.mark.parametrize("phrases", [TRAINING, UNSEEN], ids=["training", "unseen"])
def test_captions_of_a_window_fit_it_whole_and_half_of_them_fill_it(phrases):
    lengths = []
    for scene, caption in drawn(200, phrases):
        lengths.append(num_tokens(str(caption)))
        for fact in told_facts(caption):
            assert scene[fact.slot] in caption_up_to(caption, fact.position)
    assert max(lengths) <= 75
    assert sum(length > 60 for length in lengths) > 90
    assert sum(length < 45 for length in lengths) > 40


def caption_up_to(caption, position):
    """The lower-case text of the sentences that end at or before a position."""
    read, texts = 0, []
    for sentence in caption.sentences:
        read += num_tokens(sentence.text)
        if read <= position:
            texts.append(sentence.text.lower())
    return " ".join(texts)


def test_facts_are_told_directly_or_by_one_of_three_kinds_of_reference():
    kinds = {fact.kind for _, caption in drawn(100) for fact in told_facts(caption)}
    assert kinds == {"direct", "shared", "owner", "pronoun"}
