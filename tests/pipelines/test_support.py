"""What of diffusers works with long prompts: each feature in each family, and the tests that say so.

`PYTHONPATH=tests python tests/pipelines/test_support.py > samples/support.md` writes the table down; a test keeps that
file up to date.
"""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from drawing_xl import FAMILIES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "samples" / "support.md"


@dataclass(frozen=True)
class Cell:
    """A feature in a family: the tests that show it (node ids; all of a function's where none is named) and a note."""

    tests: tuple[str, ...]
    note: str = ""


def cell(*tests: str, note: str = "") -> Cell:
    """A cell with tests named from `tests/`, or, without a path, from `test_features.py`."""
    return Cell(tuple(f"tests/{test if '::' in test else FEATURES + test}" for test in tests), note)


def both(test: str, note: str = "") -> dict[str, Cell]:
    """The cells of a feature that one test of `test_features.py` shows, whose first parameter is the family."""
    name, bracket, rest = test.partition("[")
    ends = {family: f"[{family}-{rest}" if bracket else f"[{family}]" for family in FAMILIES}
    return {family: cell(name + end, note=note) for family, end in ends.items()}


FEATURES = "pipelines/test_features.py::"
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
        SDXL: cell("test_mixin_xl_adapters.py::test_lora_scale_is_stocks_and_taken_back"),
    },
    "LoRA, hotswap": both("test_lora_of_a_text_encoder_is_not_hotswapped", HOTSWAP),
    "Textual inversion": {
        SD: cell(
            "test_mixin.py::test_textual_inversion_draws_what_stock_draws",
            "test_mixin.py::test_textual_inversion_group_is_read_whole_wherever_it_stands",
        ),
        SDXL: cell(
            "test_mixin_xl_adapters.py::test_textual_inversion_is_stocks",
            "test_mixin_xl_adapters.py::test_textual_inversion_stays_in_step_and_whole_where_only_pieces_end",
            "test_mixin_xl_adapters.py::test_pooled_stays_at_the_end_where_an_old_config_would_take_the_inversion",
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
        "AnimateDiff's FreeNoise with more than 77 tokens": cell(
            f"{TWINS}::test_free_noise_takes_short_texts_and_refuses_longer_ones",
            note="refused: it reads prompts and negatives in two calls, which must end with as many rows",
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
