"""The bundled model: an ordinary Stable Diffusion to diffusers, and one that shows the last sentence to us."""

import json
import random

import pytest
import torch
from diffusers import StableDiffusionPipeline

from longclip_diffusers import LongClipError, StableDiffusionLongPipeline, bundled
from longclip_diffusers.checkpoints import load_clip, load_text_encoder
from longclip_diffusers.evaluation.detail import describe_scenes, recall_rows, score
from longclip_diffusers.evaluation.encoders import draw_pictures, load_encoder
from longclip_diffusers.sidecar import Generation, read_generation
from longclip_diffusers.storybook.captions import chapter
from longclip_diffusers.storybook.checker import read_picture
from longclip_diffusers.storybook.scene import draw_scene
from longclip_diffusers.text_encoder import num_positions, position_table


def test_it_is_small_and_holds_safetensors_only():
    files = [path for path in bundled().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jsonl", ".md"}


def test_another_name_is_an_error_that_tells_the_names():
    with pytest.raises(LongClipError, match=r"No bundled model is called 'sdxl'\. Bundled: storybook"):
        bundled("sdxl")


def test_no_path_of_the_machine_that_trained_it_is_left():
    for path in bundled().rglob("*.json"):
        if path.name != "tokenizer.json":
            values = str(json.loads(path.read_text()))
            assert "/root" not in values and "/home" not in values, path


def test_both_encoders_share_their_vocabulary_and_the_kept_position_rows():
    stock, long = load_text_encoder(bundled()), load_text_encoder(bundled() / "longclip")
    assert (num_positions(stock), num_positions(long)) == (77, 248)
    assert torch.equal(position_table(stock)[:20], position_table(long)[:20])
    assert torch.equal(stock.get_input_embeddings().weight, long.get_input_embeddings().weight)
    assert not torch.equal(position_table(stock)[40], position_table(long)[40])


def test_the_clip_beside_it_is_the_one_its_unet_was_trained_with():
    clip, stock = load_clip(bundled() / "clip"), load_text_encoder(bundled())
    assert torch.equal(clip.text_model.embeddings.token_embedding.weight, stock.get_input_embeddings().weight)


def test_stock_diffusers_opens_it_with_the_77_row_encoder():
    pipe = StableDiffusionPipeline.from_pretrained(bundled())
    assert (pipe.tokenizer.model_max_length, num_positions(pipe.text_encoder)) == (77, 77)
    assert pipe.text_encoder.dtype == pipe.unet.dtype == torch.float32


def test_saving_it_keeps_what_it_is_drawn_with(tmp_path):
    StableDiffusionLongPipeline.from_pretrained(bundled()).save_pretrained(tmp_path)
    assert read_generation(tmp_path) == read_generation(bundled()) != Generation()


def test_details_after_token_77_appear_and_without_the_long_encoder_they_do_not():
    pairs = describe_scenes(20, seed=1)
    texts = [str(caption) for _, caption in pairs]
    late = {}
    for encoder in ("truncated", "long"):
        pictures = dict(draw_pictures(load_encoder(bundled(), encoder), texts, read_generation(bundled()), seed=1))
        facts = score(pairs, [read_picture(pictures[number]) for number in range(len(texts))])
        late[encoder] = [row.value for row in recall_rows(encoder, facts) if row.column in ("77-150", "150-248")]
    assert max(late["truncated"]) < 0.35  # chance is 1/6; some 130 facts a column
    assert min(late["long"]) > 0.7


def test_the_last_sentence_of_a_chapter_is_in_the_picture():
    pipe, generation = StableDiffusionLongPipeline.from_pretrained(bundled()), read_generation(bundled())
    pipe.set_progress_bar_config(disable=True)
    shown = []
    for seed in range(8):
        rng = random.Random(f"last sentence {seed}")
        scene = draw_scene(rng)
        told = chapter(scene, rng, length=1000).sentences
        last = next(each for each in reversed(told) if each.slots and each.antecedent is None)
        text = " ".join([*(sentence.text for sentence in told if sentence is not last), last.text])
        assert len(pipe.plan_prompt(text).windows) > 2
        noise = torch.Generator().manual_seed(seed)
        picture = pipe(
            text, num_inference_steps=generation.steps, guidance_scale=generation.guidance, generator=noise
        ).images[0]
        shown.append(read_picture(picture)[last.slots[0]] == scene[last.slots[0]])
    assert sum(shown) >= 6
