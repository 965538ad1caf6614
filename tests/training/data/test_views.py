"""Held-out rows, and captions without pictures."""

import pytest
from PIL import Image

from longclip_diffusers.training.data import BadSample, open_data, split, without_images


def lines(tmp_path, num):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"text {number}\n" for number in range(num)), encoding="utf-8")
    return open_data(f"txt:{path}")


def captions(data):
    return [data[index].caption for index in range(len(data))]


@pytest.mark.parametrize(("asked", "held_out"), [(0, 0), (2, 2), (3, 3), (1000, 3)])
def test_the_first_rows_are_held_out_at_most_a_tenth(tmp_path, asked, held_out):
    train, validation = split(lines(tmp_path, 30), asked)
    assert captions(validation) == [f"text {number}" for number in range(held_out)]
    assert captions(train) == [f"text {number}" for number in range(held_out, 30)]
    assert train.label(0).endswith(f"sample {held_out + 1}")  # the row of the file, not of the view
    for view in (train, validation):
        with pytest.raises(IndexError):
            view[len(view)]
        with pytest.raises(IndexError):
            view[-1]


def test_the_storybook_holds_out_scenes_of_its_own():
    data = open_data("storybook", seed=1)
    train, validation = split(data, 20)
    assert (len(train), len(validation)) == (len(data), 20)
    assert not set(captions(validation)) & {train[index].caption for index in range(200)}


def test_without_images_no_picture_is_opened(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"broken")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"picture {name}", encoding="utf-8")
    data = open_data(f"folder:{tmp_path}")
    with pytest.raises(BadSample):
        data[1]
    texts = without_images(data)
    assert captions(texts) == ["picture a", "picture b"]
    assert texts[0].image is None
    assert not texts.has_images
    assert not texts.workers_help
    assert data.workers_help
