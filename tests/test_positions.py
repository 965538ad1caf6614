"""The stretch against a slow loop, its invariants, and the check for tables that nobody trained."""

import pytest
import torch

from longclip_diffusers.errors import ModelError
from longclip_diffusers.positions import (
    CLIP_LENGTH,
    LONG_LENGTH,
    is_interpolated,
    linear_positions,
    stretch_positions,
    stretch_to,
    stretched_length,
)


def table_of(rows: int = CLIP_LENGTH, width: int = 8, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(rows, width, generator=torch.Generator().manual_seed(0)) * 0.1).to(dtype)


def slow_stretch(table: torch.Tensor, keep: int, factor: int) -> torch.Tensor:
    """The official rule written row by row, in float64."""
    old, rows = table.double(), []
    for index in range(len(old)):
        if index < keep:
            rows.append(old[index])
            continue
        step = old[index + 1] - old[index] if index + 1 < len(old) else old[index] - old[index - 1]
        rows += [old[index] + step * part / factor for part in range(factor)]
    return torch.stack(rows)


@pytest.mark.parametrize(("keep", "factor", "length"), [(20, 4, 248), (30, 4, 218), (20, 3, 191), (20, 8, 476)])
def test_stretch_equals_the_slow_loop(keep: int, factor: int, length: int) -> None:
    new = stretch_positions(table_of(), keep=keep, factor=factor)
    assert new.shape == (length, 8)
    assert stretched_length(CLIP_LENGTH, keep=keep, factor=factor) == length
    # float32 rounding of a sum of two products of size 0.3.
    torch.testing.assert_close(new.double(), slow_stretch(table_of(), keep, factor), atol=1e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_stretch_keeps_dtype_and_every_old_row_bit_for_bit(dtype: torch.dtype) -> None:
    old = table_of(dtype=dtype)
    new = stretch_positions(old)
    assert new.dtype == dtype
    assert torch.equal(new[:20], old[:20])
    assert torch.equal(new[20::4], old[20:])
    torch.testing.assert_close(new, slow_stretch(old, 20, 4).to(dtype))


def test_fp8_is_stretched_in_float32_and_rounded() -> None:
    old = table_of(dtype=torch.float8_e4m3fn)
    new = stretch_positions(old)
    assert new.dtype == old.dtype
    assert torch.equal(new[20::4].float(), old[20:].float())
    assert torch.equal(new.float(), stretch_positions(old.float()).to(old.dtype).float())


def test_the_last_four_rows_go_on_in_the_final_difference() -> None:
    old = table_of(dtype=torch.float64)
    new, step = stretch_positions(old), (old[76] - old[75]) / 4
    torch.testing.assert_close(new[244:], torch.stack([old[76] + part * step for part in range(4)]))
    assert not torch.allclose(new[247], old[76])


@pytest.mark.parametrize(("length", "factor"), [(78, 2), (134, 2), (135, 3), (248, 4), (249, 5), (1024, 18)])
def test_a_length_is_reached_with_the_smallest_factor(length: int, factor: int) -> None:
    assert torch.equal(stretch_to(table_of(), length), stretch_positions(table_of(), factor=factor)[:length])
    assert stretched_length(CLIP_LENGTH, factor=factor - 1) < length


def test_a_table_that_is_long_enough_is_not_stretched_to_a_length() -> None:
    assert torch.equal(stretch_to(table_of(), CLIP_LENGTH), table_of())
    assert torch.equal(stretch_to(table_of(), 50), table_of())
    assert torch.equal(stretch_to(table_of(248), 400), table_of(248))
    with pytest.raises(ModelError, match="keep must be from 0 to 76"):
        stretch_to(table_of(), 248, keep=77)


def test_a_long_table_comes_back_unchanged() -> None:
    long = stretch_positions(table_of())
    assert stretch_positions(long) is long
    assert linear_positions(long) is long
    assert stretched_length(LONG_LENGTH) == LONG_LENGTH


def test_linear_keeps_only_the_ends() -> None:
    old = table_of()
    new = linear_positions(old)
    assert new.shape == (LONG_LENGTH, 8)
    torch.testing.assert_close(new[[0, -1]], old[[0, -1]])
    assert not torch.allclose(new[1:20], old[1:20], atol=1e-3)
    ramp = torch.arange(77.0)[:, None]
    torch.testing.assert_close(linear_positions(ramp), torch.linspace(0, 76, LONG_LENGTH)[:, None])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_an_untrained_stretch_is_recognised(dtype: torch.dtype) -> None:
    assert is_interpolated(stretch_positions(table_of(dtype=dtype)))
    assert is_interpolated(stretch_positions(table_of(dtype=dtype), keep=30, factor=3), keep=30, factor=3)


def test_fp16_arithmetic_stored_as_float32_is_still_untrained() -> None:
    old = table_of(dtype=torch.float16)
    rows = [old[:20]]
    for index in range(20, 76):  # as the official loop does it, each operation rounded to fp16
        rows += [((1 - part / 4) * old[index] + part / 4 * old[index + 1])[None] for part in range(4)]
    rows += [(old[76] + part / 4 * (old[76] - old[75]))[None] for part in range(4)]
    assert is_interpolated(torch.cat(rows).float())


def test_a_trained_table_is_not_called_untrained() -> None:
    stretched = stretch_positions(table_of())
    moved = stretched.clone()
    moved[21, 3] += 1e-5  # ten AdamW steps at Long-CLIP's learning rate of 1e-6
    assert not is_interpolated(moved)
    kept = stretched.clone()
    kept[:20] += 1  # the kept rows say nothing about training
    assert is_interpolated(kept)
    assert not is_interpolated(table_of(LONG_LENGTH))
    assert not is_interpolated(table_of())
    assert not is_interpolated(stretched[:-1])
    assert not is_interpolated(linear_positions(table_of()))


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (table_of()[0], {}, r"\(rows, width\) tensor"),
        (table_of().long(), {}, "int64"),
        (table_of(), {"keep": 77}, "keep must be from 0 to 76"),
        (table_of(), {"keep": -1}, "keep must be from 0 to 76"),
        (table_of(), {"factor": 0}, "factor must be 1 or more"),
    ],
)
def test_what_cannot_be_stretched_is_named(table: torch.Tensor, options: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        stretch_positions(table, **options)


def test_linear_never_shrinks() -> None:
    with pytest.raises(ModelError, match="cannot be stretched to 50"):
        linear_positions(table_of(), length=50)
