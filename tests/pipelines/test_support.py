"""What of diffusers works with long prompts: each feature in each family, and the tests that say so.

`PYTHONPATH=tests python tests/pipelines/test_support.py > samples/support.md` writes the table down; a test keeps that
file up to date.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import toys
import toys_xl
from accelerate import cpu_offload
from adapters import (
    IMAGE_WIDTH,
    ip_adapter,
    kohya_keys,
    lora,
    merge_lora,
    old_diffusers_keys,
    peft_keys,
)
from diffusers import AnimateDiffPipeline, AnimateDiffSDXLPipeline, DiffusionPipeline, LCMScheduler
from diffusers.models import UNetMotionModel
from drawing import CHAPTER, KINDS, Kind, draw, frames
from drawing_xl import XL_KINDS
from torch import nn

from longclip_diffusers import AutoLongPipeline

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "samples" / "support.md"
FAMILIES = {"SD 1.x": KINDS, "SDXL": XL_KINDS}
ROUNDING = 1e-4  # of pictures in 0..1: the same sums in another order, then two steps with guidance


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def kind(request) -> Kind:
    """Text to image of the family."""
    return request.param["text2img"]


def pipeline(kind: Kind, **replaced) -> DiffusionPipeline:
    return kind.long(**kind.components(length=248, **replaced))


def models(pipe: DiffusionPipeline) -> list[nn.Module]:
    return [model for model in pipe.components.values() if isinstance(model, nn.Module)]


def reads_to_the_end(pipe: DiffusionPipeline, **arguments) -> bool:
    """Whether the last word of a chapter changes the picture."""
    first, second = (draw(pipe, CHAPTER + end, **arguments) for end in ("red", "blue"))
    return np.abs(first - second).max() > 1e-3  # float noise between equal prompts is exactly zero


# ---- LoRA


@pytest.mark.parametrize("keys", [peft_keys, kohya_keys, old_diffusers_keys], ids=lambda keys: keys.__name__)
def test_lora_is_what_its_matrices_add(kind, keys):
    merged, pipe = pipeline(kind), pipeline(kind)
    before, matrices = draw(pipe, CHAPTER), lora(pipe)
    pipe.load_lora_weights(keys(matrices))
    merge_lora(merged, matrices)
    loaded, expected = draw(pipe, CHAPTER), draw(merged, CHAPTER)
    assert np.abs(expected - before).max() > 100 * ROUNDING
    np.testing.assert_allclose(loaded, expected, atol=ROUNDING)
    assert np.array_equal(draw(pipe, CHAPTER, cross_attention_kwargs={"scale": 0.0}), before)
    pipe.unload_lora_weights()
    assert np.array_equal(draw(pipe, CHAPTER), before)


def test_lora_of_a_text_encoder_is_not_hotswapped(kind):
    pipe = pipeline(kind)
    matrices = lora(pipe)
    in_unet = {each: pair for each, pair in matrices.items() if each[0] == "unet"}
    pipe.load_lora_weights(peft_keys(in_unet), adapter_name="style")
    expected = draw(pipe, CHAPTER)
    pipe.load_lora_weights(peft_keys({each: (-down, up) for each, (down, up) in in_unet.items()}), "style", True)
    assert not np.array_equal(draw(pipe, CHAPTER), expected)
    with pytest.raises(ValueError, match="hotswapping is not supported for text encoders"):
        pipe.load_lora_weights(peft_keys(matrices), adapter_name="style", hotswap=True)


# ---- IP-Adapter, LCM, AnimateDiff


def test_ip_adapter_beside_a_chapter(kind):
    stock, pipe = kind.stock(**kind.components()), kind.long(**kind.components())
    for each in (stock, pipe):
        each.load_ip_adapter(ip_adapter(each.unet), None, "", image_encoder_folder=None)
        each.set_ip_adapter_scale(0.1)  # beside random images at their full strength no text is to be seen
    image = torch.randn(2, 1, IMAGE_WIDTH, generator=torch.Generator().manual_seed(6))
    given = {"ip_adapter_image_embeds": [image]}
    assert np.array_equal(draw(pipe, "a cat", **given), draw(stock, "a cat", **given))
    assert reads_to_the_end(pipe, **given)
    other = draw(pipe, CHAPTER, ip_adapter_image_embeds=[-image])
    assert np.abs(draw(pipe, CHAPTER, **given) - other).max() > 1e-3
    pipe.set_ip_adapter_scale(0.0)
    assert np.array_equal(draw(pipe, CHAPTER, **given), draw(pipe, CHAPTER, ip_adapter_image_embeds=[-image]))


def test_lcm_of_sdxl_is_a_scheduler():
    assert not [name for name in dir(diffusers) if "LatentConsistency" in name and "XL" in name]
    kind = XL_KINDS["text2img"]
    unet = toys.unet(**{**toys_xl._added(refiner=False), "time_cond_proj_dim": 8})
    components = {"unet": unet, "scheduler": LCMScheduler()}
    stock, pipe = kind.stock(**kind.components(**components)), pipeline(kind, **components)
    short = kind.long(**stock.components)
    assert np.array_equal(draw(short, guidance_scale=8.0), draw(stock, guidance_scale=8.0))
    assert reads_to_the_end(pipe, guidance_scale=8.0)


@pytest.mark.parametrize(
    ("stock", "components"),
    [(AnimateDiffPipeline, toys.stable_diffusion_components), (AnimateDiffSDXLPipeline, toys_xl.components)],
    ids=FAMILIES,
)
def test_animatediff_draws_a_chapter(stock, components):
    adapter = toys.motion_adapter()
    made = components()
    made = {name: made[name] for name in made if name not in ("safety_checker", "requires_safety_checker")}
    made["unet"] = UNetMotionModel.from_unet2d(made["unet"], adapter)
    pipe = stock(**made, motion_adapter=adapter)
    twin = AutoLongPipeline.from_pipe(pipe)
    assert np.array_equal(frames(twin, "a cat"), frames(pipe, "a cat"))
    red, blue = (frames(twin, CHAPTER + end) for end in ("red", "blue"))
    assert red.shape == (1, 2, 64, 64, 3)
    assert np.abs(red - blue).max(axis=(0, 2, 3, 4)).min() > 1e-3  # in every frame


# ---- callbacks, given embeddings


def test_callbacks_see_and_change_the_long_embeddings(kind):
    pipe, rows = pipeline(kind), []

    def on_step_end(pipe, step, timestep, tensors):
        rows.append(tensors["prompt_embeds"].shape[1])
        return {"prompt_embeds": -tensors["prompt_embeds"]}

    called = {"callback_on_step_end": on_step_end, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    assert not np.array_equal(draw(pipe, CHAPTER, **called), draw(pipe, CHAPTER))
    assert rows == [77 * math.ceil((pipe.plan_prompt(CHAPTER).num_tokens + 2) / 77)] * 2


def test_given_embeddings_draw_what_their_prompt_draws():
    pipe = pipeline(KINDS["text2img"])
    with torch.no_grad():
        positive, negative = pipe.encode_prompt(CHAPTER, "cpu", 1, True, negative_prompt="dark")
    several = {"num_images_per_prompt": 2}
    expected = draw(pipe, CHAPTER, negative_prompt="dark", **several)
    given = {"prompt_embeds": positive, **several}
    assert np.array_equal(draw(pipe, None, negative_prompt_embeds=negative, **given), expected)
    np.testing.assert_allclose(draw(pipe, None, negative_prompt="dark", **given), expected, atol=ROUNDING)


def test_sdxl_wants_the_pooled_vector_beside_given_embeddings():
    pipe = pipeline(XL_KINDS["text2img"])
    with pytest.raises(ValueError, match="`pooled_prompt_embeds` also have to be passed"):
        draw(pipe, None, prompt_embeds=torch.randn(1, 248, toys.WIDTH + toys_xl.WIDTH_2))


# ---- offload, torch.compile


def offload_models(pipe: DiffusionPipeline) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def offload_groups(pipe: DiffusionPipeline) -> None:
    cpu = torch.device("cpu")
    pipe.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")


def offload_layers(pipe: DiffusionPipeline) -> None:
    # What enable_sequential_cpu_offload does; its own way of naming the device trips accelerate where that is the CPU.
    for model in models(pipe):
        cpu_offload(model, execution_device=torch.device("cpu"))


@pytest.mark.parametrize("offload", [offload_models, offload_groups, offload_layers], ids=lambda each: each.__name__)
def test_offloaded_it_draws_the_same(kind, offload):
    pipe = pipeline(kind)
    expected = draw(pipe, CHAPTER)
    offload(pipe)
    assert all(is_offloaded(model) for model in models(pipe))
    assert np.array_equal(draw(pipe, CHAPTER), expected)
    assert reads_to_the_end(pipe)


def is_offloaded(model: nn.Module) -> bool:
    return any(hasattr(each, "_hf_hook") or hasattr(each, "_diffusers_hook") for each in model.modules())


@pytest.fixture
def no_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_compiled_it_draws_the_same(kind, no_graphs):
    pipe = pipeline(kind)
    expected = draw(pipe, CHAPTER)
    compiled = [model for name, model in pipe.components.items() if name.startswith(("text_encoder", "unet"))]
    for model in compiled:
        model.compile(backend="aot_eager", dynamic=False)  # all but the C++ compiler
    np.testing.assert_allclose(draw(pipe, CHAPTER), expected, atol=ROUNDING)
    assert len(compiled) == (3 if "text_encoder_2" in pipe.components else 2)
    assert torch._dynamo.utils.counters["frames"]["ok"] >= len(compiled)


# ---- clip_skip


def test_stock_has_no_clip_skip_here():
    kind = KINDS["text2img"]
    pipe = kind.stock(**kind.components())
    assert not hasattr(pipe.text_encoder, "text_model")  # so it is on transformers >= 5.6
    with pytest.raises(AttributeError, match="text_model"):
        draw(pipe, "a cat", clip_skip=1)
    assert not np.array_equal(draw(pipeline(kind), CHAPTER, clip_skip=1), draw(pipeline(kind), CHAPTER))


# ---- the table


@dataclass(frozen=True)
class Cell:
    """A feature in a family: the tests that show it (node ids; all of a function's where none is named) and a note."""

    tests: tuple[str, ...]
    note: str = ""


def cell(*tests: str, note: str = "") -> Cell:
    """A cell with tests named from `tests/`, or, without a path, from this file."""
    return Cell(tuple(f"tests/{test if '::' in test else HERE + test}" for test in tests), note)


def both(test: str, note: str = "") -> dict[str, Cell]:
    """The cells of a feature that one test of this file shows, whose first parameter is the family."""
    name, bracket, rest = test.partition("[")
    ends = {family: f"[{family}-{rest}" if bracket else f"[{family}]" for family in FAMILIES}
    return {family: cell(name + end, note=note) for family, end in ends.items()}


HERE = "pipelines/test_support.py::"
SD, SDXL = FAMILIES
FROM_PIPE = "through `AutoLongPipeline.from_pipe`"
OFF = ("skip", "skipif", "xfail", "gpu")  # what may keep a test from running
INTRODUCTION = """# What of diffusers works with long prompts

Made by `PYTHONPATH=tests python tests/pipelines/test_support.py > samples/support.md`.
Every cell and line stands for tests, named below, that run with the suite on tiny random models: they show that a
chapter is read and that nothing else changes, not how good the pictures of real models are.
"""
HOTSWAP = "in the UNet only: diffusers refuses to swap a text encoder's in place"
OFFLOAD = "shown on a CPU; diffusers' switches want an accelerator unless told a device"
COMPILE = "text encoders and UNet; the prompt cache leaves compiled models alone"
LAST = "test_last_sentence_changes_the_picture"

TABLE: dict[str, dict[str, Cell]] = {
    "Image to image": {
        SD: cell(f"pipelines/test_long_prompts.py::{LAST}[img2img-248-a chapter]"),
        SDXL: cell(
            f"pipelines/test_xl.py::{LAST}[img2img]", f"pipelines/test_xl.py::{LAST}[refiner]", note="the refiner too"
        ),
    },
    "Inpainting": {
        SD: cell(f"pipelines/test_long_prompts.py::{LAST}[inpaint-248-a chapter]"),
        SDXL: cell(f"pipelines/test_xl.py::{LAST}[inpaint]"),
    },
    "ControlNet": {
        SD: cell(f"pipelines/test_long_prompts.py::{LAST}[controlnet-248-a chapter]"),
        SDXL: cell(f"pipelines/test_xl.py::{LAST}[controlnet]"),
    },
    "LoRA, peft's keys": both("test_lora_is_what_its_matrices_add[peft_keys]"),
    "LoRA, kohya's keys": both("test_lora_is_what_its_matrices_add[kohya_keys]"),
    "LoRA, old diffusers keys": both("test_lora_is_what_its_matrices_add[old_diffusers_keys]"),
    "LoRA, scale of a call": {
        SD: cell(
            "test_mixin.py::test_lora_scale_is_stocks", "test_mixin.py::test_lora_scale_is_taken_back_after_an_error"
        ),
        SDXL: cell("test_mixin_xl.py::test_lora_scale_is_stocks_and_taken_back"),
    },
    "LoRA, hotswap": both("test_lora_of_a_text_encoder_is_not_hotswapped", HOTSWAP),
    "Textual inversion": {
        SD: cell(
            "test_mixin.py::test_textual_inversion_draws_what_stock_draws",
            "test_mixin.py::test_textual_inversion_group_is_read_whole_wherever_it_stands",
        ),
        SDXL: cell(
            "test_mixin_xl.py::test_textual_inversion_is_stocks",
            "test_mixin_xl.py::test_textual_inversion_stays_in_step_and_whole_where_only_pieces_end",
            "test_mixin_xl.py::test_pooled_stays_at_the_end_where_an_old_config_would_take_the_inversion",
            note="loaded once for each encoder",
        ),
    },
    "IP-Adapter": both("test_ip_adapter_beside_a_chapter"),
    "PAG": {
        SD: cell("pipelines/test_auto.py::test_from_pipe_of_pag_reads_a_chapter_and_saves_as_stock", note=FROM_PIPE),
        SDXL: cell("pipelines/test_xl.py::test_from_pipe_of_pag_reads_a_chapter", note=FROM_PIPE),
    },
    "LCM": {
        SD: cell("pipelines/test_auto.py::test_from_pipe_of_lcm_with_a_long_encoder_recasts_nothing", note=FROM_PIPE),
        SDXL: cell("test_lcm_of_sdxl_is_a_scheduler", note="by `LCMScheduler`: diffusers has no LCM pipeline for SDXL"),
    },
    "AnimateDiff": both("test_animatediff_draws_a_chapter", FROM_PIPE),
    "Callbacks": both("test_callbacks_see_and_change_the_long_embeddings"),
    "`prompt_embeds` passed in": {
        SD: cell("test_given_embeddings_draw_what_their_prompt_draws"),
        SDXL: cell(
            "pipelines/test_xl.py::test_given_embeddings_draw_what_their_prompt_draws",
            "test_sdxl_wants_the_pooled_vector_beside_given_embeddings",
            note="with `pooled_prompt_embeds`, or diffusers raises ValueError",
        ),
    },
    "`num_images_per_prompt`": {
        SD: cell(
            "test_mixin.py::test_images_of_one_prompt_are_neighbours",
            "pipelines/test_long_prompts.py::test_batch_of_unequal_prompts_with_several_images_each",
        ),
        SDXL: cell("test_mixin_xl.py::test_batch_equals_its_singles"),
    },
    "`clip_skip`": {
        SD: cell(
            "test_stock_has_no_clip_skip_here",
            "test_mixin.py::test_clip_skip_reads_an_earlier_layer_of_the_positive_only",
            note="stock diffusers 0.42 raises AttributeError on transformers >= 5.6",
        ),
        SDXL: cell("test_mixin_xl.py::test_clip_skip_counts_from_the_penultimate_layer_of_both"),
    },
    "CPU offload, whole models": both("test_offloaded_it_draws_the_same[offload_models]", OFFLOAD),
    "CPU offload, groups": both("test_offloaded_it_draws_the_same[offload_groups]", "shown on a CPU"),
    "CPU offload, layers": both("test_offloaded_it_draws_the_same[offload_layers]", OFFLOAD),
    "`torch.compile`": both("test_compiled_it_draws_the_same", COMPILE),
}

EXPERIMENTAL = "experimental: nothing was trained for it. Syntax plain only, no embeddings files, no prompt cache"
CLIP_ONLY = "test_experimental.py::test_a_syntax_that_t5_would_read_as_text_is_refused"
NO_FILES = "pipelines/test_limits.py::test_sd3_and_flux_have_no_embeddings_files_and_no_prompt_cache"
TWINS = "pipelines/test_twins.py"
# Under each heading what is said about a thing, and the tests that show it.
BESIDE: dict[str, dict[str, Cell]] = {
    "Other families": {
        "SD 2.x": cell(
            "pipelines/test_sd2.py::test_auto_says_that_no_long_clip_is_known_and_names_the_choices",
            "pipelines/test_sd2.py::test_stretched_it_reads_what_stock_cuts_off_and_keeps_its_padding",
            note='the pipelines of SD 1.x; no Long-CLIP is known for it, so say `longclip="stretch"` (untrained), or '
            "`None` for windows of 77",
        ),
        "SD3": cell(
            "test_experimental.py::test_sd3_reads_the_whole_text_and_moves_t5_along",
            CLIP_ONLY,
            NO_FILES,
            note=f"{EXPERIMENTAL}; both CLIP encoders read the whole text, T5 its own 256 tokens",
        ),
        "Flux": cell(
            "test_experimental.py::test_flux_says_what_clip_does_not_read",
            CLIP_ONLY,
            NO_FILES,
            note=f"{EXPERIMENTAL}; CLIP reads one window, and says so, T5 its own 512 tokens",
        ),
        "Everything else that `AutoLongPipeline.from_pipe` takes": cell(
            f"{TWINS}::test_the_classes_with_a_twin_are_those_that_were_read",
            f"{TWINS}::test_every_twin_encodes_a_long_text_and_of_a_short_one_stocks_tensors",
            f"{TWINS}::test_rare_twins_draw_a_chapter",
            note="listed in `tests/pipelines/test_twins.py`",
        ),
    },
    "What does not work": {
        "`StableDiffusionInstructPix2PixPipeline`": cell(
            f"{TWINS}::test_instruct_pix2pix_takes_the_embeddings_of_a_long_pipeline",
            note="refused, it encodes its prompt in a method of its own; it draws from the `prompt_embeds` and "
            "`negative_prompt_embeds` of a long pipeline's `encode_prompt`. SDXL's has a twin",
        ),
        "Attend-and-Excite, AltDiffusion, CycleDiffusion, DiffEdit, model editing, Pix2PixZero, UniDiffuser": cell(
            f"{TWINS}::test_what_cannot_read_more_than_77_rows_is_refused",
            note="refused, each with its reason: they count the rows of one window, join prompts of unequal lengths "
            "or have no CLIP",
        ),
        "`custom_pipeline=`": cell(
            "pipelines/test_auto.py::test_custom_pipeline_is_the_installed_class",
            "pipelines/test_auto.py::test_custom_pipeline_wants_trust_and_stays_at_77_until_told",
            note="wants `trust_remote_code=True`, and `load_longclip()` afterwards: `longclip=` does not reach it",
        ),
        "`enable_model_cpu_offload()`, `enable_sequential_cpu_offload()` on a machine without an accelerator": cell(
            "pipelines/test_limits.py::test_offload_without_a_device_wants_an_accelerator",
            note="diffusers raises RuntimeError",
        ),
        '`unet.set_attention_backend("xformers")`': cell(
            "pipelines/test_limits.py::test_an_attention_backend_leaves_a_unet_as_it_is",
            note="does nothing to a UNet, whose processors do not ask for it; "
            "`enable_xformers_memory_efficient_attention()` does",
        ),
    },
}


def page() -> str:
    """The table as Markdown, and behind it the tests of each row."""
    head = ["feature", *FAMILIES]
    rows = [[name, *(f"yes; {c.note}" if c.note else "yes" for c in cells.values())] for name, cells in TABLE.items()]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    for heading, things in BESIDE.items():
        lines += ["", f"## {heading}", "", *(f"- {name}: {cell.note}." for name, cell in things.items())]
    tests = [
        f"- {name}: {', '.join(dict.fromkeys(f'`{test}`' for c in cells for test in c.tests))}"
        for name, cells in all_cells().items()
    ]
    return "\n".join([INTRODUCTION, *lines, "", "## The tests", "", *tests, ""])


def all_cells() -> dict[str, list[Cell]]:
    """What the tests of this page are about: the table's rows, and the lines below it."""
    beside = {name: [cell] for things in BESIDE.values() for name, cell in things.items()}
    return {**{name: [*cells.values()] for name, cells in TABLE.items()}, **beside}


def test_every_row_has_every_family():
    assert all(list(cells) == list(FAMILIES) for cells in TABLE.values())


@pytest.mark.parametrize("feature", all_cells())
def test_every_cell_has_tests_that_run(feature, collected):
    for each in all_cells()[feature]:
        assert each.tests
        for test in each.tests:
            items = [item for name, item in collected(test.split("::")[0]) if test in (name, name.split("[")[0])]
            assert items, f"{test} does not exist"
            assert not any(item.get_closest_marker(mark) for item in items for mark in OFF)


@pytest.fixture(scope="module")
def collected(request):
    """Node ids and items of a file of tests, collected without being run."""

    @cache
    def collect(file: str) -> list[tuple[str, pytest.Item]]:
        module = pytest.Module.from_parent(request.session, path=ROOT / file)
        return [(f"{file}::{item.name}", item) for item in module.collect()]

    return collect


def test_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: PYTHONPATH=tests python tests/pipelines/test_support.py > samples/support.md"
    )


if __name__ == "__main__":
    sys.stdout.write(page())
