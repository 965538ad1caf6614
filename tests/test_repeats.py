"""A book's shared windows are read once: fewer forward passes, the same bits, bounded memory."""

from functools import partial

import pytest
import torch
import toys
import toys_xl

from longclip_diffusers import StableDiffusionLongPipeline, StableDiffusionXLLongPipeline, repeats
from longclip_diffusers.repeats import remembered, repeats_remembered

PAGES = ["a red roof. " * 12, "a blue door. " * 40, "a gull.", "a red roof. " * 12]  # 1, 2, 1 and 1 windows


def counted(encoder, passes):
    """Counts the windows of every forward pass of an encoder."""
    encoder.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))


def encoded(pipe, **arguments):
    settings = {"device": torch.device("cpu"), "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    with torch.no_grad():
        return [pipe.encode_prompt(prompt=page, **settings, **arguments) for page in PAGES]


def sd():
    return StableDiffusionLongPipeline(**toys.stable_diffusion_components(length=toys.LONG_LENGTH))


def sdxl():
    return StableDiffusionXLLongPipeline(**toys_xl.components(length=toys.LONG_LENGTH))


@pytest.mark.parametrize("negative", ["", "grey. " * 60, "(grey:0.5) [sky]"])
@pytest.mark.parametrize("build", [sd, sdxl])
@pytest.mark.parametrize("syntax", ["plain", "a1111", "compel"])
def test_same_bits_in_fewer_passes(build, negative, syntax):
    pipe, passes = build(), []
    pipe._choose(syntax=syntax)
    for name in pipe.clip_encoders:
        counted(getattr(pipe, name), passes)
    alone = encoded(pipe, negative_prompt=negative)
    num_alone = len(passes)
    with repeats_remembered():
        together = encoded(pipe, negative_prompt=negative)
    assert len(passes) - num_alone < num_alone
    for page, again in zip(alone, together, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(page, again, strict=True))


def test_a_book_reads_its_negative_and_its_empty_window_once():
    pipe, passes = sd(), []
    pipe._choose(context="none")
    counted(pipe.text_encoder, passes)
    with repeats_remembered():
        encoded(pipe, negative_prompt="")
    # Page 1 in a window of 248, which is also the last page's, page 2 in two, page 3 in a window of 77; the empty
    # text, which is the negative too, once for each of the two widths.
    assert sorted(passes) == [1, 1, 1, 1, 2]


def test_what_differs_is_read_anew():
    pipe = sd()
    with repeats_remembered():
        plain = encoded(pipe)
        skipped = encoded(pipe, clip_skip=1)
        pipe.text_encoder = toys.text_encoder(toys.LONG_LENGTH, seed=4)
        other = encoded(pipe)
    assert not torch.equal(plain[0][0], skipped[0][0])
    assert not torch.equal(plain[0][0], other[0][0])


def test_nothing_is_kept_outside_and_little_inside():
    assert (remembered("a", lambda: 1), remembered("a", lambda: 2)) == (1, 2)
    with repeats_remembered():
        assert [remembered("a", partial(int, number)) for number in (1, 2)] == [1, 1]
        with repeats_remembered():
            assert remembered("a", lambda: 3) == 3
        for number in range(1000):
            remembered(number, partial(int, number))
            remembered("often", partial(int, number))
        kept = repeats._passes.get()
        assert len(kept) == repeats.PASSES
        assert kept["often"] == 0
        assert remembered("a", lambda: 4) == 4
    assert repeats._passes.get() is None
