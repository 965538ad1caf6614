"""The miniature's stages, a few steps each: they resume, they are not run twice, and their sum opens everywhere."""

import hashlib
import shutil
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from longclip_diffusers import LongClipError, StableDiffusionLongPipeline
from longclip_diffusers.text_encoder import num_positions
from longclip_diffusers.training.miniature.stages import STAGES, Workshop, assemble, run_stage
from longclip_diffusers.training.miniature.unet import SHARPER, build_unet

WEIGHTS = "diffusion_pytorch_model.safetensors"
TINY = {name: replace(schedule, steps=2, batch_size=2) for name, (_, schedule) in STAGES.items()}
TINY["longclip"] = replace(TINY["longclip"], batch_size=16)  # PCM needs more samples than components


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    shop = Workshop(tmp_path_factory.mktemp("workshop"), num_scenes=4)
    for name in STAGES:
        assert len(list(run_stage(shop, name, TINY[name]))) == 2
    return shop


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_finished_stage_is_not_run_again(shop):
    before = sha256(shop.stage("unet") / WEIGHTS)
    assert list(run_stage(shop, "unet", TINY["unet"])) == []
    assert sha256(shop.stage("unet") / WEIGHTS) == before


def test_the_same_seed_gives_the_same_weights_even_when_interrupted(shop, tmp_path, monkeypatch):
    monkeypatch.setattr("longclip_diffusers.training.checkpointing.Checkpoints.due", lambda self: True)
    again = Workshop(tmp_path, num_scenes=4)
    assert len(list(islice(run_stage(again, "autoencoder", TINY["autoencoder"]), 2))) == 2
    assert not again.stage("autoencoder").exists()
    list(run_stage(again, "autoencoder", TINY["autoencoder"]))
    assert sha256(again.stage("autoencoder") / WEIGHTS) == sha256(shop.stage("autoencoder") / WEIGHTS)


def test_the_unet_ships_with_sharper_keys_than_training_leaves(shop, tmp_path):
    again = Workshop(tmp_path / "work", num_scenes=4)
    shutil.copytree(shop.folder, again.folder)
    shutil.rmtree(again.stage("unet"))
    torch.manual_seed(again.seed)
    untrained = build_unet().state_dict()
    list(run_stage(again, "unet", replace(TINY["unet"], learning_rate=0.0)))
    trained = load_file(again.stage("unet") / WEIGHTS)
    keys = {name for name in trained if name.endswith(".attn2.to_k.weight")}
    assert len(keys) == 7
    for name, weight in untrained.items():
        torch.testing.assert_close(trained[name], weight * SHARPER if name in keys else weight)
    assemble(again, tmp_path / "model")
    shipped = load_file(tmp_path / "model/unet" / WEIGHTS)
    assert all(torch.equal(shipped[name], weight.half()) for name, weight in trained.items())


def test_a_stage_names_the_one_it_needs(tmp_path):
    with pytest.raises(LongClipError, match="Stage 'clip' is not finished"):
        next(run_stage(Workshop(tmp_path), "longclip"))
    with pytest.raises(LongClipError, match="no stage 'gan'; the stages are autoencoder, latent_reader"):
        next(run_stage(Workshop(tmp_path), "gan"))


def test_the_model_opens_in_stock_diffusers_and_in_ours_with_one_unet(shop, tmp_path):
    assemble(shop, tmp_path)
    stock = StableDiffusionPipeline.from_pretrained(tmp_path)
    ours = StableDiffusionLongPipeline.from_pretrained(tmp_path)
    # Saved in half precision, opened in single: what a CPU can draw with.
    assert {part.dtype for part in (ours.unet, ours.vae, ours.text_encoder)} == {torch.float32}
    assert num_positions(stock.text_encoder) == 77
    assert num_positions(ours.text_encoder) == 248
    pipe = StableDiffusionLongPipeline.from_pretrained(tmp_path, longclip=None)
    pictures = []
    for made in (stock, pipe):
        noise = torch.Generator().manual_seed(0)
        made.set_progress_bar_config(disable=True)
        pictures.append(made("a red door.", num_inference_steps=2, generator=noise, output_type="np").images)
    assert np.array_equal(*pictures)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"clip/model.safetensors", "longclip/text_encoder/model.safetensors", "training_log.jsonl"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".ckpt"))]


def test_a_work_folder_is_of_one_seed(shop, tmp_path):
    shop.claim()
    for other in (Workshop(shop.folder, seed=1, num_scenes=4), Workshop(shop.folder, num_scenes=5)):
        with pytest.raises(LongClipError, match=r"holds a training of \{'seed': 0, 'num_scenes': 4\}, not .*--work"):
            list(run_stage(other, "unet", TINY["unet"]))
