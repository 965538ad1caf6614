"""Any picture file as upright RGB with the right colours, or a reason why not."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from longclip_diffusers.training.data import BadSample
from longclip_diffusers.training.data.images import read_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def saved(image, path, **options):
    image.save(path, **options)
    return path


def pixels(path):
    image = read_image(path, str(path))
    assert image.mode == "RGB"
    return [image.getpixel((x, 0)) for x in range(image.width)]


def two_pixels(mode, first, second):
    image = Image.new(mode, (2, 1))
    image.putpixel((0, 0), first)
    image.putpixel((1, 0), second)
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (two_pixels("RGB", RED, (1, 2, 3)), "png", [RED, (1, 2, 3)]),
        (two_pixels("L", 0, 77), "png", [(0, 0, 0), (77, 77, 77)]),
        (two_pixels("1", 0, 1), "png", [(0, 0, 0), WHITE]),
        (two_pixels("RGBA", (255, 0, 0, 255), (255, 0, 0, 0)), "png", [RED, WHITE]),
        (two_pixels("LA", (10, 255), (10, 0)), "png", [(10, 10, 10), WHITE]),
        (two_pixels("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), "tif", [RED, (0, 0, 0)]),
        # 16 bits: the darkest, the middle and the lightest; clipping would make the last two white.
        (Image.fromarray(np.array([[0, 32896, 65535]], np.uint16)), "png", [(0,) * 3, (128,) * 3, WHITE]),
        (Image.fromarray(np.array([[0, 32896, 65535]], np.int32)), "tif", [(0,) * 3, (128,) * 3, WHITE]),
    ],
    ids=lambda value: f"{value.mode}" if isinstance(value, Image.Image) else "",
)
def test_every_mode_has_the_right_colours(tmp_path, image, suffix, expected):
    assert pixels(saved(image, tmp_path / f"it.{suffix}")) == expected


def test_a_transparent_palette_colour_shows_white(tmp_path):
    image = two_pixels("P", 0, 1)
    image.putpalette([*RED, 0, 0, 255])
    assert pixels(saved(image, tmp_path / "it.png", transparency=1)) == [RED, WHITE]
    assert pixels(saved(image, tmp_path / "it.gif")) == [RED, (0, 0, 255)]


def test_a_cmyk_jpeg_is_not_inverted(tmp_path):
    path = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "it.jpg", quality=100)
    np.testing.assert_allclose(pixels(path)[0], RED, atol=4)  # JPEG loses a little


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    assert pixels(saved(two_pixels("RGB", RED, (0, 0, 255)), tmp_path / "it.png", exif=exif)) == [(0, 0, 255), RED]


def test_bytes_are_read_like_files_and_carry_no_extras():
    buffer = io.BytesIO()
    two_pixels("RGB", RED, WHITE).save(buffer, format="PNG", dpi=(72, 72))
    image = read_image(buffer.getvalue(), "it")
    assert image.getpixel((0, 0)) == RED
    assert image.info == {}


def picture_bytes(format, size=64):
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 50).convert("RGB").save(buffer, format=format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "UnidentifiedImageError"),
        (b"<html>404</html>", "UnidentifiedImageError"),
        (picture_bytes("JPEG")[:-500], "truncated"),
        (picture_bytes("PNG")[:-500], "OSError|SyntaxError"),
        (picture_bytes("WEBP")[:-500], "OSError"),
    ],
)
def test_a_broken_file_is_a_bad_sample(tmp_path, content, reason):
    path = tmp_path / "it.jpg"
    path.write_bytes(content)
    with pytest.raises(BadSample, match=rf"it\.jpg: not a usable picture .*({reason})"):
        read_image(path, str(path))


def test_a_missing_file_and_a_folder_are_bad_samples(tmp_path):
    for path in (tmp_path / "no.jpg", tmp_path):
        with pytest.raises(BadSample, match="there is no such file"):
            read_image(path, str(path))


@pytest.mark.parametrize("limit", [3000, 1500])  # Pillow warns of 64 x 64 pixels, and from twice the limit raises
def test_a_decompression_bomb_is_a_bad_sample_without_a_warning(tmp_path, monkeypatch, limit):
    path = tmp_path / "it.png"
    path.write_bytes(picture_bytes("PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings(record=True) as warned, pytest.raises(BadSample, match="DecompressionBomb"):
        read_image(path, str(path))
    assert not warned


@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 1), np.float32), np.full((1, 1), 65536, np.int32), np.full((1, 1), -1, np.int32)]
)
def test_pixels_whose_white_is_unknown_are_bad(tmp_path, pixels):
    path = saved(Image.fromarray(pixels), tmp_path / "it.tif")
    with pytest.raises(BadSample, match="white is unknown"):
        read_image(path, str(path))
