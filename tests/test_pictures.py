"""Pictures on disk: whole or not there, with their settings inside; and side by side, none of them scaled or hidden."""

import numpy as np
import pytest
from PIL import Image

from longclip_diffusers.errors import LongClipError
from longclip_diffusers.pictures import numbered, reserved_path, save_picture, side_by_side, writable_folder


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_pixels_and_metadata_come_back(tmp_path):
    picture, prompt = noise(16, 8), "Fenêtre ☕ — " * 20_000  # a long chapter in letters beyond Latin-1
    save_picture(picture, tmp_path / "a.png", {"prompt": prompt, "seed": 7, "negative": ""})
    with Image.open(tmp_path / "a.png") as back:
        assert back.text == {"prompt": prompt, "seed": "7", "negative": ""}
        assert np.array_equal(np.asarray(back), np.asarray(picture))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_old_picture_stays_when_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_picture(noise(8, 8), path, {})
    before = path.read_bytes()

    def disk_full(self, file, **options):
        file.write_bytes(b"\x89PNG half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", disk_full)
    with pytest.raises(LongClipError, match=r"a\.png cannot be written: No space left"):
        save_picture(noise(8, 8, seed=1), path, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_folder_is_made_and_one_that_cannot_be_is_refused(tmp_path):
    assert writable_folder(tmp_path / "a" / "b").is_dir()
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(LongClipError, match=r"cannot be written: .*Name another place"):
        writable_folder(tmp_path / "file" / "below")


def test_reserved_path_is_the_first_that_overwrites_nothing_and_nobody_elses(tmp_path):
    with reserved_path(tmp_path) as first, reserved_path(tmp_path) as second:
        assert (first.name, second.name) == ("longgen.png", "longgen-2.png")
        with reserved_path(tmp_path, 3) as several:
            assert several.name == "longgen-2.png"  # of longgen-1.png to longgen-3.png the second is taken
        assert sorted(path.name for path in tmp_path.iterdir()) == ["longgen-2.png", "longgen.png"]
        save_picture(noise(8, 8), second, {})
    assert [path.name for path in tmp_path.iterdir()] == ["longgen-2.png"]  # what stayed empty is gone


def test_metadata_takes_half_a_surrogate_pair(tmp_path):
    save_picture(noise(8, 8), tmp_path / "a.png", {"prompt": "a boat \ud83d"})
    with Image.open(tmp_path / "a.png") as back:
        assert back.text == {"prompt": "a boat ?"}


def test_several_pictures_are_numbered(tmp_path):
    assert numbered(tmp_path / "a.png", 1) == [tmp_path / "a.png"]
    assert [path.name for path in numbered(tmp_path / "a.png", 2)] == ["a-1.png", "a-2.png"]


def test_a_small_picture_is_enlarged_by_a_whole_factor_to_be_compared():
    pictures = [("a", noise(32, 48, seed=1)), ("b", noise(500, 400, seed=2))]
    narrow, wide = (side_by_side([each]) for each in pictures)
    assert narrow.width == 32 * 8 + 2 * 6  # 384 pixels of height are eight times 48
    assert wide.width == 500 + 2 * 6


def test_side_by_side_shows_every_picture_whole_under_its_label(monkeypatch):
    monkeypatch.setattr("longclip_diffusers.pictures.SMALLEST_COMPARED", 1)  # nothing is enlarged
    pictures = [noise(32, 48, seed=1), noise(64, 40, seed=2)]
    labels = ["a label wider than its picture", "b"]
    canvas = np.asarray(side_by_side(list(zip(labels, pictures, strict=True))))
    corners = []
    for picture in pictures:
        pixels = np.asarray(picture)
        starts = np.argwhere((canvas == pixels[0, 0]).all(axis=-1))
        found = [
            (top, left)
            for top, left in starts
            if np.array_equal(canvas[top : top + picture.height, left : left + picture.width], pixels)
        ]
        assert len(found) == 1
        corners += found
    assert corners[0][0] == corners[1][0]
    above = canvas[: corners[0][0]]
    assert (above[:, : corners[1][1] - 1] < 128).any()
    assert (above[:, corners[1][1] :] < 128).any()
    assert corners[1][1] > corners[0][1] + 32 + 50  # the first label's end, not its picture's
