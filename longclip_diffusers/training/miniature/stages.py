"""The miniature Stable Diffusion, stage by stage: autoencoder and CLIP, UNet and long CLIP, then one diffusers folder.

Every stage leaves a folder in the working directory and is not run again once that exists; a stage that was
interrupted goes on from its checkpoints. The chains of one wave do not need each other and may run side by side.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer

from ...checkpoints import load_clip, load_text_encoder
from ...checkpoints.processor import image_processor
from ...errors import LongClipError
from ...pictures import whole_file
from ...positions import CLIP_LENGTH
from ...storybook.scene import Scene
from ...text_encoder import keep_text_model_prefix, save_text_encoder
from ...tokenizer import load_tokenizer
from ..finetune import fine_tune
from ..loop import Schedule, Step
from ..recipe import PRESETS, read_recipe
from . import clip, unet
from .autoencoder import AUTOENCODER_SCHEDULE, build_autoencoder, train_autoencoder
from .latents import LATENT_READER_SCHEDULE, NUM_SCENES, LatentReader, encode_latents, train_latent_reader
from .samples import STEPS_BETWEEN_SAMPLES, save_drawings, save_reconstructions
from .texts import CompactVocabulary

__all__ = ["STAGES", "WAVES", "Workshop", "assemble", "run_stage"]

# Chains of stages, each of which needs those before it.
WAVES = (
    (("autoencoder", "latent_reader"), ("vision", "clip")),
    (("unet",), ("longclip",)),
)
_PRESET = PRESETS["storybook"]
LONGCLIP_SCHEDULE = Schedule(_PRESET["steps"], _PRESET["batch_size"], _PRESET["lr"])
LATENTS = "latents.safetensors"
LATENT_READER = "reader.safetensors"
# Written to the training log and kept beside the bundled model.
STEPS_BETWEEN_LOGS = 50
# What `longgen` draws the miniature with unless told otherwise.
STEPS, GUIDANCE = 12, 2.0


@dataclass(frozen=True)
class Workshop:
    """Where a training keeps its stages, and what it starts from."""

    folder: Path
    seed: int = 0
    device: str = "cpu"
    num_scenes: int = NUM_SCENES  # pictures that the UNet sees

    def claim(self) -> None:
        """Write down what this training starts from, or compare.

        Raises:
            LongClipError: the folder holds stages of another seed, or of another number of scenes.
        """
        file, mine = self.folder / "workshop.json", {"seed": self.seed, "num_scenes": self.num_scenes}
        if file.is_file():
            if (there := json.loads(file.read_text())) != mine:
                raise LongClipError(f"{self.folder} holds a training of {there}, not {mine}. Give another --work.")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as unfinished:
            unfinished.write_text(json.dumps(mine) + "\n")

    def stage(self, name: str) -> Path:
        """The folder that a finished stage leaves."""
        return self.folder / name

    def checkpoints(self, name: str) -> Path:
        """The folder that an unfinished stage resumes from."""
        return self.folder / f"{name}.checkpoints"

    def log(self, name: str) -> Path:
        """One line for every fiftieth step of a stage."""
        return self.folder / f"{name}.log.jsonl"

    def sample(self, name: str, step: int) -> Path:
        """A picture saved along the way."""
        return self.folder / "samples" / f"{name}-{step:05d}.png"

    def need(self, name: str) -> Path:
        """The folder of a finished stage.

        Raises:
            LongClipError: the stage has not been run.
        """
        if not self.stage(name).is_dir():
            raise LongClipError(f"Stage {name!r} is not finished in {self.folder}; run it first.")
        return self.stage(name)

    def finish(self, name: str, save: Callable[[Path], object]) -> None:
        """Let `save` write the stage's folder whole or not at all, then drop its checkpoints."""
        unfinished = self.folder / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        save(unfinished)
        unfinished.replace(self.stage(name))
        shutil.rmtree(self.checkpoints(name), ignore_errors=True)


def _stock_tokenizer() -> CLIPTokenizer:
    return load_tokenizer(max_length=CLIP_LENGTH)


def _pipeline(**components: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        **components,
        scheduler=unet.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _autoencoder(shop: Workshop, schedule: Schedule) -> Iterator[Step]:
    vae = build_autoencoder().to(shop.device)
    for step in train_autoencoder(vae, seed=shop.seed, checkpoints=shop.checkpoints("autoencoder"), schedule=schedule):
        yield step
        if step.step % STEPS_BETWEEN_SAMPLES == 0:
            save_reconstructions(vae, shop.sample("autoencoder", step.step))
    # In half precision, as it ships: what follows is trained with the very file that users open.
    shop.finish("autoencoder", vae.half().save_pretrained)


def _vision(shop: Workshop, schedule: Schedule) -> Iterator[Step]:
    vocabulary = CompactVocabulary(_stock_tokenizer())
    model = clip.build_clip(vocabulary.size, vocabulary.end).to(shop.device)  # type: ignore[arg-type]
    yield from clip.train_vision(model, seed=shop.seed, checkpoints=shop.checkpoints("vision"), schedule=schedule)
    shop.finish("vision", model.save_pretrained)


def _clip(shop: Workshop, schedule: Schedule) -> Iterator[Step]:
    tokenizer = _stock_tokenizer()
    vocabulary = CompactVocabulary(tokenizer)
    model = CLIPModel.from_pretrained(shop.need("vision")).to(shop.device)  # type: ignore[arg-type]
    checkpoints = shop.checkpoints("clip")
    yield from clip.train_clip(model, vocabulary, tokenizer, seed=shop.seed, checkpoints=checkpoints, schedule=schedule)
    # In half precision for the same reason.
    shop.finish("clip", clip.expand_clip(model, vocabulary, tokenizer).half().save_pretrained)


def _vae(shop: Workshop) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(shop.need("autoencoder")).to(shop.device)


def _latents(shop: Workshop, vae: AutoencoderKL) -> tuple[list[Scene], torch.Tensor]:
    return encode_latents(vae, seed=shop.seed, path=shop.folder / LATENTS, num_scenes=shop.num_scenes)


def _latent_reader(shop: Workshop, schedule: Schedule) -> Iterator[Step]:
    reader, checkpoints = LatentReader().to(shop.device), shop.checkpoints("latent_reader")
    scenes, codes = _latents(shop, _vae(shop))
    yield from train_latent_reader(reader, scenes, codes, seed=shop.seed, checkpoints=checkpoints, schedule=schedule)

    def save(folder: Path) -> None:
        folder.mkdir()
        save_file(reader.state_dict(), folder / LATENT_READER)

    shop.finish("latent_reader", save)


def _load_latent_reader(shop: Workshop) -> LatentReader:
    reader = LatentReader()
    reader.load_state_dict(load_file(shop.need("latent_reader") / LATENT_READER))
    return reader.to(shop.device).requires_grad_(False)


def _unet(shop: Workshop, schedule: Schedule) -> Iterator[Step]:
    model, vae = unet.build_unet().to(shop.device), _vae(shop)
    text_encoder = load_text_encoder(shop.need("clip"), dtype=torch.float32).to(shop.device)  # type: ignore[arg-type]
    tokenizer = _stock_tokenizer()
    scenes, codes = _latents(shop, vae)
    pipe = _pipeline(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=model)
    training = unet.train_unet(
        model,
        text_encoder,
        tokenizer,
        scenes,
        codes,
        seed=shop.seed,
        checkpoints=shop.checkpoints("unet"),
        schedule=schedule,
        reader=_load_latent_reader(shop),
    )
    for step in training:
        yield step
        if step.step % STEPS_BETWEEN_SAMPLES == 0:
            save_drawings(pipe, shop.sample("unet", step.step), steps=STEPS, guidance=GUIDANCE)
    shop.finish("unet", model.save_pretrained)
    (shop.folder / LATENTS).unlink()


def _longclip(shop: Workshop, schedule: Schedule) -> Iterator[Step]:
    # What `longclip train --preset storybook` does to the CLIP that the model ships with.
    base, output = shop.folder / "longclip.base", shop.checkpoints("longclip")
    _save_clip(shop, base)
    told = {"base": str(base), "output": str(output), "seed": shop.seed, "evaluate_every": 0}
    told |= {"steps": schedule.steps, "batch_size": schedule.batch_size, "lr": schedule.learning_rate}
    for step in fine_tune(read_recipe(told, preset="storybook"), device=shop.device):
        if isinstance(step, Step):
            yield step
    shop.finish("longclip", lambda folder: shutil.copytree(output / "last", folder))
    shutil.rmtree(base)


def _save_clip(shop: Workshop, folder: Path) -> None:
    """Both towers in fp16, with the image processor of `pixels_of`; opened in fp32."""
    model = load_clip(shop.need("clip"), dtype=torch.float16)
    model.save_pretrained(folder)
    image_processor(model, mean=(0.5,) * 3, std=(0.5,) * 3).save_pretrained(folder)
    _edit(folder / "config.json", {"dtype": "float32"})


STAGES: dict[str, tuple[Callable[[Workshop, Schedule], Iterator[Step]], Schedule]] = {
    "autoencoder": (_autoencoder, AUTOENCODER_SCHEDULE),
    "latent_reader": (_latent_reader, LATENT_READER_SCHEDULE),
    "vision": (_vision, clip.VISION_SCHEDULE),
    "clip": (_clip, clip.CLIP_SCHEDULE),
    "unet": (_unet, unet.UNET_SCHEDULE),
    "longclip": (_longclip, LONGCLIP_SCHEDULE),
}


def run_stage(shop: Workshop, name: str, schedule: Schedule | None = None) -> Iterator[Step]:
    """Run one stage to its end, yielding its steps; yields nothing where it was finished before.

    Raises:
        LongClipError: an unknown stage, one whose forerunners are not finished, or a loss that became NaN.
    """
    if name not in STAGES:
        raise LongClipError(f"There is no stage {name!r}; the stages are {', '.join(STAGES)}.")
    shop.claim()
    if shop.stage(name).is_dir():
        return
    train, default = STAGES[name]
    torch.manual_seed(shop.seed)
    schedule = schedule or default
    for step in train(shop, schedule):
        if step.step % STEPS_BETWEEN_LOGS == 0 or step.step == schedule.steps:
            with shop.log(name).open("a") as log:
                entry = {"stage": name, "step": step.step, "loss": step.loss, "learning_rate": step.learning_rate}
                log.write(json.dumps(entry) + "\n")
        yield step


def assemble(shop: Workshop, out: Path) -> None:
    """Write one diffusers folder in fp16: the stock model, `longclip/` beside it, `clip/` with both towers.

    Raises:
        LongClipError: a stage is missing.
    """
    text_encoder = load_text_encoder(shop.need("clip"), dtype=torch.float16)
    pipe = _pipeline(
        vae=AutoencoderKL.from_pretrained(shop.need("autoencoder")).half(),
        text_encoder=keep_text_model_prefix(text_encoder),
        tokenizer=_stock_tokenizer(),
        unet=UNet2DConditionModel.from_pretrained(shop.need("unet")).half(),
    )
    pipe.save_pretrained(out)
    long_encoder = load_text_encoder(shop.need("longclip"), dtype=torch.float16)
    save_text_encoder(long_encoder, out / "longclip" / "text_encoder")
    load_tokenizer().save_pretrained(out / "longclip" / "tokenizer")
    _save_clip(shop, out / "clip")
    _tidy(out)
    sidecar = {"longclip": "longclip", "generation": {"steps": STEPS, "guidance": GUIDANCE}}
    (out / "longclip_config.json").write_text(json.dumps(sidecar, indent=2) + "\n")
    with (out / "training_log.jsonl").open("w") as log:
        log.writelines(shop.log(name).read_text() for name in STAGES)


def _tidy(out: Path) -> None:
    """Take this machine's paths out of the configs, and have transformers open half-precision weights in float32.

    By default transformers opens a file in its own precision, diffusers in float32: text encoder and UNet would not fit
    each other.
    """
    for folder in ("text_encoder", "longclip/text_encoder"):
        _edit(out / folder / "config.json", {"dtype": "float32"})
    for folder in ("unet", "vae"):
        _edit(out / folder / "config.json", {"_name_or_path": None})
    for folder in ("tokenizer", "longclip/tokenizer"):
        _edit(out / folder / "tokenizer_config.json", {"is_local": None, "local_files_only": None})


def _edit(file: Path, changes: dict[str, str | None]) -> None:
    content = {**json.loads(file.read_text()), **changes}
    kept = {name: value for name, value in content.items() if name not in changes or value is not None}
    file.write_text(json.dumps(kept, indent=2) + "\n")
