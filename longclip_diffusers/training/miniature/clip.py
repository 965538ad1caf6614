"""Stage 2: the miniature's CLIP, both towers, 77 tokens.

A model this small does not learn its world from the contrastive loss alone in minutes, so both towers are warmed up
with temporary heads that read the slots: from the picture, from the text's end-of-text feature and from the last
token of each sentence. The contrastive loss joins half-way, and the heads are thrown away.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ...storybook.scene import Scene, draw_scene
from ...storybook.slots import SLOTS
from ..loop import Schedule, Step, optimise
from .autoencoder import pixels_of
from .texts import MAX_DETAILS, CompactVocabulary, TextBatch, base_caption, batch_captions

__all__ = ["CLIP_SCHEDULE", "LENGTH", "WIDTH", "build_clip", "expand_clip", "train_clip"]

CLIP_SCHEDULE = Schedule(steps=2200, batch_size=64, learning_rate=1.5e-3, warmup=100)
WIDTH = 64
LENGTH = 77
NUM_COLOURS = 6
CONTRASTIVE_FROM = 0.5  # share of the steps before the contrastive loss joins
CONTRASTIVE_WEIGHT = 0.5
MAX_LOGIT_SCALE = 4.6052  # ln 100, CLIP's own bound
# transformers' 0.02 leaves a vision tower of this size blind to where things are.
VISION_POSITION_STD = 0.3


def build_clip(vocabulary_size: int, end_of_text: int) -> CLIPModel:
    """An untrained CLIP of the miniature's size: text 4 layers of 64, vision 3 layers of 96 over 16 px patches."""
    config = CLIPConfig(
        text_config={
            "vocab_size": vocabulary_size,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 4,
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
    values = clip.config.to_dict()
    values["text_config"] |= {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig.from_dict(values)
    weights = clip.state_dict()
    name = "text_model.embeddings.token_embedding.weight"
    weights[name] = vocabulary.expand(weights[name].cpu())
    model = CLIPModel(config)
    model.load_state_dict(weights)
    return model.eval()


class _WarmUp(nn.Module):
    """CLIP and its temporary heads, trained as one module."""

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip
        self.feature_head = nn.Linear(WIDTH, len(SLOTS) * NUM_COLOURS)
        self.sentence_head = nn.Linear(WIDTH, len(SLOTS) * NUM_COLOURS)

    def facts_loss(self, head: nn.Linear, features: Tensor, slots: Tensor, colours: Tensor) -> Tensor:
        """Cross-entropy of the named slots' colours (F,), read from features (F, D)."""
        logits = head(features).unflatten(-1, (len(SLOTS), NUM_COLOURS))
        return cross_entropy(logits[torch.arange(len(slots), device=slots.device), slots], colours)

    def forward(self, ids: Tensor, batch: TextBatch, pixels: Tensor, truth: Tensor, contrastive: float) -> Tensor:
        text = self.clip.text_model(input_ids=ids)
        states = text.last_hidden_state
        text_features = self.clip.text_projection(text.pooler_output)
        image_features = self.clip.get_image_features(pixels).pooler_output
        loss = self.facts_loss(self.feature_head, text_features[batch.rows], batch.slots, batch.colours)
        loss = loss + self.facts_loss(
            self.sentence_head, states[batch.rows, batch.positions], batch.slots, batch.colours
        )
        image_logits = self.feature_head(image_features).unflatten(-1, (len(SLOTS), NUM_COLOURS))
        loss = loss + cross_entropy(image_logits.flatten(0, 1), truth.flatten())
        if contrastive == 0:
            return loss
        text_unit, image_unit = (nn.functional.normalize(part, dim=-1) for part in (text_features, image_features))
        logits = self.clip.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp() * text_unit @ image_unit.T
        target = torch.arange(len(logits), device=logits.device)
        return loss + contrastive * (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def _truth(scenes: list[Scene]) -> Tensor:
    return torch.tensor([[slot.words.index(scene[slot.name]) for slot in SLOTS] for scene in scenes])


def train_clip(
    clip: CLIPModel,
    vocabulary: CompactVocabulary,
    tokenizer: CLIPTokenizer,
    *,
    seed: int,
    checkpoints: Path,
    schedule: Schedule = CLIP_SCHEDULE,
) -> Iterator[Step]:
    """Train both towers in place on scenes and their captions, cut at 77 tokens."""
    model = _WarmUp(clip)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{seed}/clip/{step}")
        progress = step / schedule.steps
        # Few sentences first, so that facts are learned before positions.
        max_details = max(1, min(MAX_DETAILS, round(4 * MAX_DETAILS * progress)))
        scenes = [draw_scene(rng) for _ in range(schedule.batch_size)]
        captions = [base_caption(scene, rng, max_details=max_details) for scene in scenes]
        batch = batch_captions(captions, scenes, tokenizer, length=LENGTH)
        ids = vocabulary.compact(batch.ids).to(clip.device)
        pixels, truth = pixels_of(scenes).to(clip.device), _truth(scenes).to(clip.device)
        return model(
            ids, batch.to(clip.device), pixels, truth, CONTRASTIVE_WEIGHT if progress > CONTRASTIVE_FROM else 0
        )

    yield from optimise(model, loss_of, schedule, checkpoints)
