"""With CUDA: what the other tests show on a CPU, in a GPU's dtypes, with its switches and its memory.

Nothing here has run on a GPU: the machines that this was written on have none. Each test is a function of the device,
and was called once with a CPU, xformers and offload stood in for; only the peak of memory is nowhere but on CUDA.
"""

import numpy as np
import pytest
import torch
from cached import both
from drawing import CHAPTER, draw
from folders import miniature
from PIL import Image

from longclip_diffusers import bundled
from longclip_diffusers.cli import longgen
from longclip_diffusers.evaluation.peers import chapter
from longclip_diffusers.evaluation.speed import bench_generate, random_unet, speed_table
from longclip_diffusers.generation import Placement, load_pipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    pytest.mark.parametrize("device", ["cuda"]),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return miniature(tmp_path_factory.mktemp("models") / "miniature")


@pytest.mark.filterwarnings("ignore:::xformers")  # its import warns, of what depends on the version
def test_xformers_draws_what_sdpa_draws_with_the_cache_as_without(device, model):
    pytest.importorskip("xformers")
    pictures = {}
    for attention in ("sdpa", "xformers"):
        pipe = load_pipeline(model, Placement(device, "float16", attention))
        cached, plain = both(pipe)
        assert np.array_equal(cached, plain)
        pictures[attention] = cached
    assert all("XFormers" in type(each).__name__ for each in pipe.unet.attn_processors.values())
    # Of 1. Two ways to compute attention in float16 on a CPU differ by 0.005; another prompt makes 0.4.
    assert np.abs(pictures["sdpa"] - pictures["xformers"]).max() < 0.02


def test_the_prompt_cache_changes_no_bit_in_float16(device, model):
    pipe = load_pipeline(model, Placement(device, "float16"))
    assert pipe.unet.dtype == torch.float16
    cached, plain = both(pipe)
    assert np.isfinite(cached).all()
    assert np.array_equal(cached, plain)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_two_thousand_tokens_give_no_nan(device, dtype):
    pipe = load_pipeline(bundled(), Placement(device, dtype))
    pipe.set_progress_bar_config(disable=True)
    prompt = chapter(2000)
    assert pipe.plan_prompt(prompt).num_tokens > 2000
    picture = pipe(prompt, num_inference_steps=2, output_type="np").images
    assert np.isfinite(picture).all()
    assert picture.std() > 0.01


def test_offload_draws_the_same_and_leaves_the_device(device, model):
    kept, offloaded = (load_pipeline(model, Placement(device, "float16", offload=each)) for each in (False, True))
    assert np.array_equal(draw(offloaded, CHAPTER), draw(kept, CHAPTER))
    parts = ("text_encoder", "unet", "vae")
    assert {getattr(kept, name).device.type for name in parts} == {device}
    assert {getattr(offloaded, name).device.type for name in parts} == {"cpu"}


def test_the_bench_of_drawing_tells_the_peak_of_memory(device):
    rows = bench_generate(lengths=[1984], model="tiny", size=64, device=device, dtype="float16", repeats=1)
    weights = sum(each.nbytes for each in random_unet("tiny", "meta", torch.float16).parameters()) / 2**20
    assert all(row.seconds > 0 for row in rows)
    assert all(row.peak_mib > weights for row in rows)
    assert rows[2].peak_mib > rows[0].peak_mib  # 1984 tokens and 77, without the cache
    assert "peak MiB" in speed_table(rows)


def test_longgen_draws_what_it_draws_on_a_cpu(device, tmp_path):
    pictures = []
    for each in (device, "cpu"):
        file = tmp_path / f"on-{each}.png"
        options = ["--model", str(bundled()), "--seed", "0", "--steps", "4", "--device", each, "--out", str(file)]
        assert longgen.main([chapter(200), *options]) == 0
        with Image.open(file) as picture:
            pictures.append(np.asarray(picture.convert("RGB")).astype(float))
    # Of 255. A GPU computes in float16, which makes 0.1 on a CPU; another text makes 14.
    assert np.abs(pictures[0] - pictures[1]).mean() < 2
