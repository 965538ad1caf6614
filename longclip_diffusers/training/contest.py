"""The contest: every way to get a long prompt into one UNet, on the same scenes and the same noise.

What is fine-tuned is so from several seeds. Finished fine-tunes and measurements are kept in the work folder, with the
SHA-256 of what they were made of, and are done again only if that changes.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from ..checkpoints import load_text_encoder
from ..checkpoints.files import sha256_of
from ..errors import LongClipError
from ..evaluation.detail import CHANCE, Fact, Kind, describe_scenes, drift_row, recall_rows, score
from ..evaluation.encoders import ENCODERS, Encoder, draw_pictures, encode_texts, load_encoder
from ..evaluation.examples import Example
from ..evaluation.reader import Reader, train_reader
from ..evaluation.report import Row
from ..positions import CLIP_LENGTH
from ..sidecar import read_generation
from ..storybook.checker import read_picture
from ..text_encoder import TextEncoder
from ..tokenizer import load_tokenizer
from .finetune import fine_tune
from .recipe import Recipe, read_recipe

__all__ = [
    "ARMS",
    "CONTESTANTS",
    "Contest",
    "Job",
    "Measurement",
    "ReaderTraining",
    "Training",
    "contest_examples",
    "contest_rows",
    "seed_rows",
]

# What each fine-tuning changes of preset storybook. Contrastive losses alone, at the preset's rate, undo in ten steps
# what a base this small has learned.
ARMS: dict[str, dict[str, Any]] = {
    "longclip": {
        "objective": "contrastive",
        "optimizer": "adamw",
        "freeze_vision": False,
        "steps": 600,
        "batch_size": 32,
        "lr": 2e-4,
    },
    "ours": {},
}
CONTESTANTS = tuple(name for name in ENCODERS if name != "long")
STOCK = "truncated"
BATCH_SIZE = 20  # texts read or drawn at once
READER_SEED = 0


@dataclass(frozen=True)
class Contest:
    """What all measurements have in common: the model whose UNet draws, where results are kept, scenes and noise.

    With `reader` a frozen reader of the stock encoder's token states takes the place of the UNet.
    """

    model: Path
    work: Path
    num_scenes: int = 200
    seed: int = 0
    reader: bool = False
    device: str = "cpu"

    def trainings(self, encoders: Sequence[str], seeds: int) -> list["Training | ReaderTraining"]:
        """What is trained before the encoders can be measured; the longest first."""
        arms = [arm for arm in ARMS if arm in {_encoder(name).arm for name in encoders}]
        found = [Training(self, arm, seed) for arm in arms for seed in range(seeds)]
        found.sort(key=lambda training: -training.recipe.steps)
        return [*([ReaderTraining(self)] if self.reader else []), *found]

    def measurements(self, encoders: Sequence[str], kinds: Sequence[Kind], seeds: int) -> list["Measurement"]:
        """One for each encoder, kind of text and, where it is fine-tuned, seed."""
        return [
            Measurement(self, name, kind, seed)
            for name in encoders
            for kind in kinds
            for seed in range(seeds if _encoder(name).arm else 1)
        ]

    @property
    def unet(self) -> Path:
        """The weights that draw every picture."""
        return self.model / "unet" / "diffusion_pytorch_model.safetensors"

    @property
    def stock_encoder(self) -> Path:
        """The weights that the UNet was trained with."""
        return self.model / "text_encoder" / "model.safetensors"

    @property
    def reader_file(self) -> Path:
        """The frozen reader of this stock encoder."""
        return self.work / f"reader-{sha256_of(self.stock_encoder)[:12]}.safetensors"


@dataclass(frozen=True)
class Training:
    """One fine-tuning of one arm."""

    contest: Contest
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder in the work folder."""
        return f"{self.arm}-{self.seed}"

    @property
    def total(self) -> int:
        """Steps."""
        return self.recipe.steps

    @property
    def folder(self) -> Path:
        """Where it trains."""
        return self.contest.work / self.name

    @property
    def recipe(self) -> Recipe:
        """The arm's, from the model's own CLIP."""
        told = {"base": str(self.contest.model / "clip"), "output": str(self.folder), "seed": self.seed}
        return read_recipe({"evaluate_every": 0, **ARMS[self.arm], **told}, preset="storybook")

    @property
    def export(self) -> Path:
        """The weights that it ends with."""
        return self.folder / "last" / "model.safetensors"

    def run(self) -> Iterator[int]:
        """Train, yielding the number of each step; nothing where it is finished, what is left where it was stopped."""
        file, base = self.folder / "contest.json", self.contest.model / "clip" / "model.safetensors"
        settings = {**asdict(self.recipe), "base": sha256_of(base), "output": self.name}
        known = _read(file)
        if known.get("settings") != settings:
            shutil.rmtree(self.folder, ignore_errors=True)
            known = {"settings": settings, "finished": False}
            _write(file, known)
        if known["finished"]:
            return
        for told in fine_tune(self.recipe, device=self.contest.device):
            yield told.step
        for name in ("best", "checkpoints", "tensorboard"):  # `last` is what is measured
            shutil.rmtree(self.folder / name, ignore_errors=True)
        _write(file, {"settings": settings, "finished": True})


@dataclass(frozen=True)
class ReaderTraining:
    """The frozen reader, trained on the stock encoder's token states."""

    contest: Contest
    name: str = "reader"
    total: int = 1

    def run(self) -> Iterator[int]:
        """Train it unless that is done, then yield 1."""
        if not self.contest.reader_file.is_file():
            encoder, tokenizer = _stock(self.contest)
            reader = train_reader(encoder, tokenizer, seed=READER_SEED)
            unfinished = self.contest.reader_file.with_suffix(".unfinished")
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            save_file(reader.state_dict(), unfinished)
            unfinished.replace(self.contest.reader_file)
            yield 1


@dataclass(frozen=True)
class Measurement:
    """One encoder, one seed of its fine-tuning (0 where there is none), one kind of text."""

    contest: Contest
    encoder: str
    kind: Kind
    seed: int = 0

    @property
    def name(self) -> str:
        """Of its files."""
        seed = f"-{self.seed}" if _encoder(self.encoder).arm else ""
        return f"{'reader-' * self.contest.reader}{self.encoder}{seed}-{self.kind}"

    @property
    def total(self) -> int:
        """Texts."""
        return self.contest.num_scenes

    @property
    def file(self) -> Path:
        """Where its facts are kept."""
        return self.contest.work / "measured" / f"{self.name}.json"

    @property
    def pictures(self) -> Path:
        """Where pictures are kept, (S, H, W, 3): the first text's, and of short prompts, whose drift counts, all."""
        return self.file.with_suffix(".npz")

    def run(self) -> Iterator[int]:
        """Measure, yielding how many texts are done; nothing where it is known already."""
        pairs = describe_scenes(self.contest.num_scenes, seed=self.contest.seed, kind=self.kind)
        texts = [str(caption) for _, caption in pairs]
        key = self._key(texts)
        if _read(self.file).get("key") == key and (self.contest.reader or self.pictures.is_file()):
            return
        found: dict[int, Mapping[str, str]] = {}
        pixels: dict[int, np.ndarray] = {}
        for number, words, picture in self._read_back(texts):
            found[number] = words
            if picture is not None:
                pixels[number] = picture
            yield len(found)
        facts = score(pairs, [found[number] for number in range(len(texts))], kind=self.kind)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if pixels:
            np.savez_compressed(self.pictures, pixels=np.stack([pixels[number] for number in sorted(pixels)]))
        _write(self.file, {"key": key, "facts": [asdict(fact) for fact in facts]})

    def result(self) -> tuple[dict[str, Any], list[Fact]]:
        """What it was made of, and every fact.

        Raises:
            LongClipError: it was not run.
        """
        if not self.file.is_file():
            raise LongClipError(f"{self.name} is not measured in {self.file.parent}; run the contest.")
        content = _read(self.file)
        return content["key"], [Fact(**fact) for fact in content["facts"]]

    def drifts(self, stock: "Measurement") -> list[float]:
        """Of each short prompt's picture, the mean absolute difference from the stock encoder's, 0 to 255."""
        own, other = (np.load(each.pictures)["pixels"].astype(float) for each in (self, stock))
        return np.abs(own - other).mean(axis=(1, 2, 3)).tolist()

    @property
    def _trained(self) -> Path | None:
        arm = _encoder(self.encoder).arm
        return Training(self.contest, arm, self.seed).export.parent if arm else None

    def _key(self, texts: Sequence[str]) -> dict[str, Any]:
        contest, trained = self.contest, self._trained
        judge: dict[str, Any] = (
            {"reader": sha256_of(contest.reader_file)}
            if contest.reader
            else {
                "unet": sha256_of(contest.unet),
                "vae": sha256_of(contest.model / "vae" / "diffusion_pytorch_model.safetensors"),
                "generation": asdict(read_generation(contest.model)),
            }
        )
        return {
            "encoder": sha256_of(trained / "model.safetensors" if trained else contest.stock_encoder),
            **judge,
            "seed": contest.seed,
            "num_scenes": contest.num_scenes,
            "texts": _sha256_of_texts(texts),
        }

    def _read_back(self, texts: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str], np.ndarray | None]]:
        contest = self.contest
        pipe = load_encoder(contest.model, self.encoder, trained=self._trained, device=contest.device)
        if contest.reader:
            reader = _load_reader(contest)
            for numbers, states in encode_texts(pipe, texts, batch_size=BATCH_SIZE):
                for number, words in zip(numbers, reader.read(states), strict=True):
                    yield number, words, None
            return
        settings = read_generation(contest.model)
        for number, picture in draw_pictures(pipe, texts, settings, seed=contest.seed, batch_size=BATCH_SIZE):
            kept = self.kind == "short" or number == 0
            yield number, read_picture(picture), np.asarray(picture.convert("RGB")) if kept else None


Job = Training | ReaderTraining | Measurement


def contest_rows(measurements: Sequence[Measurement]) -> tuple[list[Row], dict[str, list[Fact]], str]:
    """The rows of every encoder, over all its seeds, and of chance; the facts of each; the judge's SHA-256.

    Raises:
        LongClipError: one is not measured, or they were not all judged by one UNet (or reader).
    """
    judges: dict[str, list[str]] = {}
    facts: dict[str, list[Fact]] = {}
    for measurement in measurements:
        key, told = measurement.result()
        judges.setdefault(key["reader" if measurement.contest.reader else "unet"], []).append(measurement.name)
        facts.setdefault(measurement.encoder, []).extend(told)
    if len(judges) > 1:
        parts = "; ".join(f"{sha256[:12]}: {', '.join(names)}" for sha256, names in judges.items())
        raise LongClipError(f"The judge changed while the contest ran ({parts}). Run it again.")
    stock = next((each for each in measurements if each.encoder == STOCK and each.kind == "short"), None)
    rows = []
    for encoder, told in facts.items():
        rows += recall_rows(encoder, told)
        rows += _drift_rows([each for each in measurements if each.encoder == encoder], stock)
    rows += recall_rows(CHANCE, next(iter(facts.values())), chance=True)
    return rows, facts, next(iter(judges))


def contest_examples(measurements: Sequence[Measurement]) -> list[Example]:
    """The first text of each kind, and its picture and facts by every encoder, of fine-tuned ones by the first seed."""
    examples: dict[Kind, Example] = {}
    for each in measurements:
        if each.seed == 0:
            if each.kind not in examples:
                scene, caption = describe_scenes(2, seed=each.contest.seed, kind=each.kind)[0]
                examples[each.kind] = Example(each.kind, scene, caption)
            picture = Image.fromarray(np.load(each.pictures)["pixels"][0])
            examples[each.kind].add(each.encoder, picture, each.result()[1])
    return list(examples.values())


def seed_rows(measurements: Sequence[Measurement]) -> list[Row]:
    """The recalls of each seed by itself, under the name ENCODER-SEED: how much a fine-tuning's seed matters."""
    facts: dict[str, list[Fact]] = {}
    for each in measurements:
        if _encoder(each.encoder).arm:
            facts.setdefault(f"{each.encoder}-{each.seed}", []).extend(each.result()[1])
    return [row for name, told in facts.items() for row in recall_rows(name, told)]


def _drift_rows(measurements: Sequence[Measurement], stock: Measurement | None) -> list[Row]:
    drawn = [each for each in measurements if each.kind == "short" and not each.contest.reader]
    if stock is None or not drawn:
        return []
    drifts = [each.drifts(stock) for each in drawn]
    scenes = [scene for drift in drifts for scene in range(len(drift))]
    return [drift_row(drawn[0].encoder, scenes, [value for drift in drifts for value in drift])]


def _encoder(name: str) -> Encoder:
    if name not in CONTESTANTS:
        raise LongClipError(f"There is no encoder {name!r} in the contest; choose from {', '.join(CONTESTANTS)}.")
    return ENCODERS[name]


def _stock(contest: Contest) -> tuple[TextEncoder, CLIPTokenizer]:
    encoder = load_text_encoder(contest.model, dtype=torch.float32).to(contest.device)  # type: ignore[arg-type]
    return encoder, load_tokenizer(contest.model, max_length=CLIP_LENGTH)


def _load_reader(contest: Contest) -> Reader:
    encoder, _ = _stock(contest)
    reader = Reader(encoder.config.hidden_size)
    reader.load_state_dict(load_file(contest.reader_file))
    return reader.to(encoder.device).eval()


def _sha256_of_texts(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.is_file() else {}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    # Whole or not at all: it says that what it stands beside is finished.
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(file)
