"""What a longer text costs in a step of drawing: the targets in FLOPs, and that what is timed is what is counted."""

import pytest

from longclip_diffusers.errors import LongClipError
from longclip_diffusers.evaluation.speed import bench_generate, speed_table, step_flops


def test_a_chapter_costs_little_with_the_cache():
    # SD 1.5 at 512 pixels with guidance; the README's claim.
    counted = step_flops([(77, False), (992, True), (1984, True), (1984, False)])
    reference = counted[77, False]
    assert reference == pytest.approx(1.607e12, rel=1e-3)  # SD 1.5's, as counted elsewhere (facts/diffusers.md A6)
    assert counted[992, True] / reference <= 1.06
    assert counted[1984, True] / reference <= 1.12
    assert counted[1984, False] / reference > 1.19


def test_the_cache_saves_exactly_the_products_of_the_prompt():
    # The toy has 4 cross-attentions, 32 wide, with keys and values of 32 features each.
    counted = step_flops([(100, False), (100, True)], model="tiny", size=64, batch_size=3)
    assert counted[100, False] - counted[100, True] == 4 * 2 * (2 * 3 * 100 * 32 * 32)


def test_rows_are_ratios_to_the_stock_step():
    rows = bench_generate(lengths=[248], model="tiny", size=64, repeats=2)
    assert [(row.tokens, row.cache) for row in rows] == [(77, False), (77, True), (248, False), (248, True)]
    assert (rows[0].flops_ratio, rows[0].seconds_ratio) == (1, 1)
    for row in rows:
        assert row.flops_ratio == row.flops / rows[0].flops
        assert row.seconds_ratio == row.seconds / rows[0].seconds > 0
        assert row.peak_mib is None  # of CUDA only
    assert rows[1].flops < rows[0].flops < rows[3].flops < rows[2].flops
    assert speed_table(rows).splitlines()[2].startswith("| 77 | no | ")


def test_counting_alone_times_nothing():
    rows = bench_generate(lengths=[77], model="tiny", size=64, repeats=0)
    assert all(row.seconds is row.seconds_ratio is row.peak_mib is None for row in rows)
    assert "seconds" not in speed_table(rows)


@pytest.mark.parametrize("wrong", [{"lengths": [0]}, {"lengths": []}, {"repeats": -1}, {"size": 63}, {"batch_size": 0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(LongClipError, match="expected lengths and a batch of 1 or more"):
        bench_generate(**{"model": "tiny", "size": 64, **wrong})
