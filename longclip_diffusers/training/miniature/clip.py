"""The miniature's CLIP: its vision tower first, then its text tower of 77 tokens beside that.

A model this small does not learn its world from the contrastive loss alone in minutes. Temporary heads read the slots:
from the picture, from the text's end-of-text feature and from the token states at which something is known. The
contrastive loss joins half-way, and the heads are thrown away.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ...storybook.phrases import OWNERS
from ...storybook.scene import draw_scene
from ...storybook.slots import MAX_WORDS, SLOTS
from ..loop import Schedule, Step, optimise
from .autoencoder import pixels_of
from .texts import (
    CUE,
    DIRECT,
    INTRODUCTION,
    MAX_DETAILS,
    REFERENCE,
    CompactVocabulary,
    TextBatch,
    base_caption,
    batch_captions,
    owners_caption,
    word_indices,
)

__all__ = [
    "CLIP_SCHEDULE",
    "LENGTH",
    "VISION_SCHEDULE",
    "WIDTH",
    "build_clip",
    "expand_clip",
    "train_clip",
    "train_vision",
]

VISION_SCHEDULE = Schedule(1500, 64, 1.5e-3, warmup=100, optimizer="muon")
CLIP_SCHEDULE = Schedule(10_000, 64, 2e-3, warmup=200, shares=2, optimizer="muon")
WIDTH = 64
LENGTH = 77
NUM_SCENES = 6144  # painted once, told anew each time
PAINTED_AT_ONCE = 64
OWNERS_SHARE = 1 / 3  # captions of owners alone
FILLED_FROM = 0.2  # share of the steps after which captions fill the 77 tokens and words are hidden
STEPS_UNTIL, STEPS_FADE = 0.75, 0.25  # when the heads of the steps to a reference are gone, and over which share
CONTRASTIVE_FROM = 0.5  # share of the steps before the contrastive loss joins
CONTRASTIVE_WEIGHT = 0.5
MAX_LOGIT_SCALE = 4.6052  # ln 100, CLIP's own bound
# transformers' 0.02 leaves a vision tower of this size blind to where things are.
VISION_POSITION_STD = 0.3


def build_clip(vocabulary_size: int, end_of_text: int) -> CLIPModel:
    """An untrained CLIP of the miniature's size: text 6 layers of 64, vision 3 layers of 96 over 16 px patches."""
    config = CLIPConfig(
        text_config={
            "vocab_size": vocabulary_size,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "max_position_embeddings": LENGTH,
            "projection_dim": WIDTH,
            "bos_token_id": end_of_text - 1,
            "eos_token_id": end_of_text,
            "pad_token_id": end_of_text,
        },
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 128,
            "patch_size": 16,
            "projection_dim": WIDTH,
        },
        projection_dim=WIDTH,
    )
    model = CLIPModel(config)
    nn.init.normal_(model.vision_model.embeddings.position_embedding.weight, std=VISION_POSITION_STD)
    return model


def expand_clip(clip: CLIPModel, vocabulary: CompactVocabulary, tokenizer: CLIPTokenizer) -> CLIPModel:
    """The trained model with CLIP's 49,408 token rows instead of the compact ones."""
    values, weights = clip.config.to_dict(), clip.state_dict()
    names = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    numbers = (len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    values["text_config"] |= dict(zip(names, numbers, strict=True))
    name = "text_model.embeddings.token_embedding.weight"
    weights[name] = vocabulary.expand(weights[name].cpu())
    model = CLIPModel(CLIPConfig.from_dict(values))
    model.load_state_dict(weights)
    return model.eval()


class _WarmUp(nn.Module):
    """CLIP and its temporary heads, trained as one module.

    References form in steps: a sentence knows what it tells or who owns what (first layer), the words that name another
    thing know what was told of it (in the middle), the sentence that leans on it knows its own fact (last layer but
    one). A head at each of them shows the way and is faded out; two at the end, over the token states and the text
    feature, stay.
    """

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip
        self.feature_head = nn.Linear(WIDTH, len(SLOTS) * MAX_WORDS)
        self.state_head = nn.Linear(WIDTH, len(SLOTS) * MAX_WORDS)
        before_last = len(clip.text_model.encoder.layers) - 1
        self.step_layers = {DIRECT: 1, INTRODUCTION: 1, CUE: (1 + before_last) // 2, REFERENCE: before_last}
        self.step_heads = nn.ModuleList(
            nn.Linear(WIDTH, len(SLOTS) * (len(OWNERS) if place == INTRODUCTION else MAX_WORDS))
            for place in self.step_layers
        )

    def forward(
        self, batch: TextBatch, image_features: Tensor, truth: Tensor, *, steps: float, contrastive: float
    ) -> Tensor:
        """The weighted sum of all losses: `steps` weighs the faded heads, `contrastive` the contrastive loss."""
        text = self.clip.text_model(input_ids=batch.ids, output_hidden_states=True)
        text_features = self.clip.text_projection(text.pooler_output)
        told = batch.told()
        loss = _told_loss(self.feature_head(text_features[told.rows]), told)
        # References count once more: a model learns them last.
        for facts in (told, batch.only(batch.places == REFERENCE)):
            if len(facts.rows):
                states = text.last_hidden_state[facts.rows, facts.positions]
                loss = loss + _named_loss(self.state_head(states), facts)
        loss = loss + _picture_loss(self.feature_head(image_features), truth)
        for (place, layer), head in zip(self.step_layers.items(), self.step_heads, strict=True):
            here = batch.only(batch.places == place)
            if steps and len(here.rows):
                states = text.hidden_states[layer][here.rows, here.positions]
                loss = loss + steps * _named_loss(head(states), here)
        if contrastive == 0:
            return loss
        text_unit, image_unit = (nn.functional.normalize(part, dim=-1) for part in (text_features, image_features))
        logits = self.clip.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp() * text_unit @ image_unit.T
        target = torch.arange(len(logits), device=logits.device)
        return loss + contrastive * (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def _picture_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of every slot's word, from logits (B, S * W) and word indices (B, S)."""
    return cross_entropy(logits.unflatten(-1, (len(SLOTS), MAX_WORDS)).flatten(0, 1), truth.flatten())


def _told_loss(logits: Tensor, told: TextBatch) -> Tensor:
    """Cross-entropy of the words of slots that are known to be told, from logits (F, S * W)."""
    by_slot = logits.unflatten(-1, (len(SLOTS), MAX_WORDS))
    return cross_entropy(by_slot[torch.arange(len(told.slots), device=logits.device), told.slots], told.words)


def _named_loss(logits: Tensor, facts: TextBatch) -> Tensor:
    """Cross-entropy of slot and word together, from logits (F, S * W); of the slot alone where no word is known."""
    scores = logits.log_softmax(-1).unflatten(-1, (len(SLOTS), -1))
    scores = scores[torch.arange(len(facts.slots), device=logits.device), facts.slots]
    known = scores.gather(1, facts.words.clamp(min=0)[:, None])[:, 0]
    return -torch.where(facts.words < 0, scores.logsumexp(-1), known).mean()


class _Pool:
    """Scenes and their pictures, painted when they are first asked for: painting costs as much as learning from it."""

    def __init__(self, num_scenes: int, seed: int):
        rng = random.Random(f"{seed}/clip/scenes")
        self.scenes = [draw_scene(rng) for _ in range(num_scenes)]
        self._painted: dict[int, Tensor] = {}

    def pixels(self, chosen: Sequence[int]) -> Tensor:
        """(B, 3, 128, 128) in -1 to 1."""
        for index in chosen:
            if index not in self._painted:
                self._painted[index] = (pixels_of([self.scenes[index]])[0] * 127.5 + 127.5).round().byte()
        return torch.stack([self._painted[index] for index in chosen]).float() / 127.5 - 1

    def features(self, clip: CLIPModel, chosen: Sequence[int]) -> Tensor:
        """What the vision tower makes of the pictures, (B, P)."""
        return clip.get_image_features(self.pixels(chosen).to(clip.device)).pooler_output


def train_vision(clip: CLIPModel, *, seed: int, checkpoints: Path, schedule: Schedule) -> Iterator[Step]:
    """Train the vision tower in place, on scenes alone: a head reads every slot from its features."""
    pool = _Pool(min(NUM_SCENES, schedule.steps * schedule.batch_size), seed)
    model = nn.ModuleDict(
        {
            "tower": clip.vision_model,
            "projection": clip.visual_projection,
            "head": nn.Linear(WIDTH, len(SLOTS) * MAX_WORDS),
        }
    ).to(clip.device)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{seed}/vision/{step}")
        chosen = [rng.randrange(len(pool.scenes)) for _ in range(schedule.batch_size)]
        truth = word_indices([pool.scenes[index] for index in chosen])
        return _picture_loss(model["head"](pool.features(clip, chosen)), truth.to(clip.device))

    yield from optimise(model, loss_of, schedule, checkpoints)


def train_clip(
    clip: CLIPModel,
    vocabulary: CompactVocabulary,
    tokenizer: CLIPTokenizer,
    *,
    seed: int,
    checkpoints: Path,
    schedule: Schedule,
) -> Iterator[Step]:
    """Train the text tower in place on captions of scenes, cut at 77 tokens, beside a vision tower that stays as it is.

    Captions of a few sentences come first, then those that fill 77 tokens and those of owners alone; the contrastive
    loss joins half-way.
    """
    for part in (clip.vision_model, clip.visual_projection):
        part.requires_grad_(False)
    model = _WarmUp(clip).to(clip.device)
    pool = _Pool(min(NUM_SCENES, schedule.steps * schedule.batch_size), seed)
    with torch.no_grad():
        parts = torch.arange(len(pool.scenes)).split(PAINTED_AT_ONCE)
        features = torch.cat([pool.features(clip, part.tolist()) for part in parts])

    def loss_of(share: int) -> Tensor:
        rng = random.Random(f"{seed}/clip/{share}")
        progress = share / (schedule.steps * schedule.shares)
        # Few sentences first, so that facts are learned before positions.
        max_details = max(2, min(MAX_DETAILS, round(MAX_DETAILS * progress / FILLED_FROM)))
        chosen = [rng.randrange(len(pool.scenes)) for _ in range(schedule.share_size)]
        scenes = [pool.scenes[index] for index in chosen]
        captions = [
            owners_caption(scene, rng)
            if progress > FILLED_FROM and rng.random() < OWNERS_SHARE
            else base_caption(scene, rng, max_details=max_details)
            for scene in scenes
        ]
        batch = batch_captions(captions, scenes, tokenizer, length=LENGTH)
        ids = vocabulary.compact(batch.ids)
        if progress > FILLED_FROM:
            ids = vocabulary.blur(ids, torch.Generator().manual_seed(rng.getrandbits(32)))
        return model(
            replace(batch, ids=ids).to(clip.device),
            features[chosen],
            word_indices(scenes).to(clip.device),
            steps=min(1.0, max(0.0, (STEPS_UNTIL - progress) / STEPS_FADE)),
            contrastive=CONTRASTIVE_WEIGHT if progress > CONTRASTIVE_FROM else 0,
        )

    yield from optimise(model, loss_of, schedule, checkpoints)
