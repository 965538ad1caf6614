"""Stage 2: the miniature's CLIP, both towers, 77 tokens, in rounds of more and more phrases.

A model this small does not learn its world from the contrastive loss alone in minutes, so both towers are warmed up
with temporary heads that read the slots: from the picture, from the text's end-of-text feature and from the last
token of each sentence. The contrastive loss joins half-way, and the heads are thrown away.

The last rounds are about references: half of their captions are crowded with them, and in the very last the text tower
has two layers more.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ...storybook.phrases import FIRST, FOURTH, SECOND, THIRD, TRAINING, Phrases
from ...storybook.scene import draw_scene
from ...storybook.slots import MAX_WORDS, SLOTS
from ..loop import Schedule, Step, optimise
from .autoencoder import pixels_of
from .texts import (
    CUE,
    DIRECT,
    MAX_DETAILS,
    REFERENCE,
    CompactVocabulary,
    TextBatch,
    base_caption,
    batch_captions,
    word_indices,
)

__all__ = [
    "LENGTH",
    "ROUNDS",
    "WIDTH",
    "Round",
    "build_clip",
    "deepen_clip",
    "expand_clip",
    "shrink_clip",
    "train_clip",
]


@dataclass(frozen=True)
class Round:
    """One round: how long, in which phrases, what its batches are drawn from, beside the seed, and how often a caption
    is crowded with references.

    Where that is ever, references count once more in the loss, and the vision tower stays as it is. `layers` of the
    text tower: where there are more than before, the new ones do nothing at first.
    """

    schedule: Schedule
    phrases: Phrases
    batches: str
    crowded: float = 0.0
    layers: int = 4


# By the name of its stage. Each starts from the weights of the one before.
ROUNDS = {
    "clip_warm_up": Round(Schedule(5000, 64, 1.5e-3, warmup=100), FIRST, "clip"),
    "clip_second": Round(Schedule(2400, 64, 1e-3, warmup=100), SECOND, "clip/phrases"),
    "clip_third": Round(Schedule(1500, 64, 1e-3, warmup=100), THIRD, "clip/more"),
    "clip_fourth": Round(Schedule(3000, 64, 1e-3, warmup=100), FOURTH, "clip/references", crowded=0.5),
    "clip": Round(Schedule(4000, 64, 1e-3, warmup=100, optimizer="muon"), TRAINING, "clip/deep", crowded=0.5, layers=6),
}
WIDTH = 64
LENGTH = 77
NUM_SCENES = 6144  # painted once, told anew each time
PAINTED_AT_ONCE = 64
TEXT_LAYERS = "text_model.encoder.layers."
FILLED_FROM = 0.2  # share of the steps after which captions fill the 77 tokens
STEPS_UNTIL, STEPS_FADE = 0.75, 0.25  # when the heads of the steps to a reference are gone, and over which share
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
    numbers = (len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return _with_vocabulary(clip, numbers, vocabulary.expand).eval()


def shrink_clip(clip: CLIPModel, vocabulary: CompactVocabulary) -> CLIPModel:
    """An expanded model with compact token rows again, to train it further; the vocabulary may know more tokens."""
    return _with_vocabulary(
        clip, (vocabulary.size, vocabulary.end - 1, vocabulary.end, vocabulary.end), vocabulary.shrink
    )


def deepen_clip(clip: CLIPModel, num_layers: int) -> CLIPModel:
    """The same model, to the bit, with a text tower of `num_layers`: among the old layers stand new ones that add
    nothing until they are trained."""
    old = len(clip.text_model.encoder.layers)
    if num_layers == old:
        return clip
    model = _untrained(clip, {"num_hidden_layers": num_layers})
    places = [index * num_layers // old for index in range(old)]
    layers = model.text_model.encoder.layers
    for index, layer in enumerate(layers):
        if index not in places:
            for last in (layer.self_attn.out_proj, layer.mlp.fc2):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
    for index, layer in zip(places, clip.text_model.encoder.layers, strict=True):
        layers[index].load_state_dict(layer.state_dict())
    rest = {name: weight for name, weight in clip.state_dict().items() if not name.startswith(TEXT_LAYERS)}
    model.load_state_dict(rest, strict=False)
    return model


def _with_vocabulary(clip: CLIPModel, numbers: tuple[Any, ...], convert: Callable[[Tensor], Tensor]) -> CLIPModel:
    weights = clip.state_dict()
    name = "text_model.embeddings.token_embedding.weight"
    weights[name] = convert(weights[name].cpu())
    names = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    model = _untrained(clip, dict(zip(names, numbers, strict=True)))
    model.load_state_dict(weights)
    return model


def _untrained(clip: CLIPModel, changes: dict[str, Any]) -> CLIPModel:
    """A new model of the same sizes, but for those of its text tower that change."""
    values = clip.config.to_dict()
    values["text_config"] |= changes
    return CLIPModel(CLIPConfig.from_dict(values))


class _WarmUp(nn.Module):
    """CLIP and its temporary heads, trained as one module.

    References form in steps: a sentence knows what it tells (first layer), the words that name another thing know what
    was told of it (in the middle), the sentence that leans on it knows its own fact (last layer but one). A head at
    each of them shows the way and is faded out; two at the end, over the token states and the text feature, stay.
    """

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip
        self.feature_head = nn.Linear(WIDTH, len(SLOTS) * MAX_WORDS)
        self.state_head = nn.Linear(WIDTH, len(SLOTS) * MAX_WORDS)
        before_last = len(clip.text_model.encoder.layers) - 1
        self.step_layers = (1, (1 + before_last) // 2, before_last)
        self.step_heads = nn.ModuleList([nn.Linear(WIDTH, len(SLOTS) * MAX_WORDS) for _ in (DIRECT, CUE, REFERENCE)])

    def forward(
        self,
        batch: TextBatch,
        image_features: Tensor,
        truth: Tensor,
        *,
        steps: float,
        contrastive: float,
        references: float = 0.0,
    ) -> Tensor:
        """The weighted sum of all losses: `steps` weighs the faded heads, `references` a loss on references alone,
        beside that on all facts, and `contrastive` the contrastive loss."""
        text = self.clip.text_model(input_ids=batch.ids, output_hidden_states=True)
        text_features = self.clip.text_projection(text.pooler_output)
        told = batch.only(batch.places != CUE)
        loss = _told_loss(self.feature_head(text_features[told.rows]), told)
        for weight, facts in ((1.0, told), (references, batch.only(batch.places == REFERENCE))):
            if weight and len(facts.rows):
                states = text.last_hidden_state[facts.rows, facts.positions]
                loss = loss + weight * _named_loss(self.state_head(states), facts)
        image_logits = self.feature_head(image_features).unflatten(-1, (len(SLOTS), MAX_WORDS))
        loss = loss + cross_entropy(image_logits.flatten(0, 1), truth.flatten())
        for place, layer, head in zip((DIRECT, CUE, REFERENCE), self.step_layers, self.step_heads, strict=True):
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


def _told_loss(logits: Tensor, told: TextBatch) -> Tensor:
    """Cross-entropy of the words of slots that are known to be told, from logits (F, S * W)."""
    by_slot = logits.unflatten(-1, (len(SLOTS), MAX_WORDS))
    return cross_entropy(by_slot[torch.arange(len(told.slots), device=logits.device), told.slots], told.words)


def _named_loss(logits: Tensor, facts: TextBatch) -> Tensor:
    """Cross-entropy of slot and word together; of the slot alone where no word is known."""
    scores = logits.log_softmax(-1).unflatten(-1, (len(SLOTS), MAX_WORDS))
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


def train_clip(
    clip: CLIPModel,
    vocabulary: CompactVocabulary,
    tokenizer: CLIPTokenizer,
    *,
    seed: int,
    checkpoints: Path,
    name: str,
    schedule: Schedule,
) -> Iterator[Step]:
    """Train in place on scenes and their captions, cut at 77 tokens: both towers, in a crowded round the text alone.

    Args:
        name: of the round. In the first captions of a few sentences come before those that fill 77 tokens, and the
            contrastive loss joins in the second half; the others have blurred captions and all losses from the start.
    """
    model = _WarmUp(clip)
    pool = _Pool(min(NUM_SCENES, schedule.steps * schedule.batch_size), seed)
    warm_up, plan = name == "clip_warm_up", ROUNDS[name]
    kept = None
    if plan.crowded:
        for part in (clip.vision_model, clip.visual_projection):
            part.requires_grad_(False)
        parts = torch.arange(len(pool.scenes)).split(PAINTED_AT_ONCE)
        with torch.no_grad():
            kept = torch.cat([pool.features(clip, part.tolist()) for part in parts])

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{seed}/{plan.batches}/{step}")
        progress = step / schedule.steps
        # Few sentences first, so that facts are learned before positions.
        max_details = max(2, min(MAX_DETAILS, round(MAX_DETAILS * progress / FILLED_FROM))) if warm_up else MAX_DETAILS
        chosen = [rng.randrange(len(pool.scenes)) for _ in range(schedule.batch_size)]
        scenes = [pool.scenes[index] for index in chosen]
        captions = [
            base_caption(scene, rng, max_details=max_details, phrases=plan.phrases, crowded=plan.crowded)
            for scene in scenes
        ]
        batch = batch_captions(captions, scenes, tokenizer, length=LENGTH)
        ids = vocabulary.compact(batch.ids)
        if not warm_up:
            ids = vocabulary.blur(ids, torch.Generator().manual_seed(rng.getrandbits(32)))
        return model(
            replace(batch, ids=ids).to(clip.device),
            pool.features(clip, chosen) if kept is None else kept[chosen],
            word_indices(scenes).to(clip.device),
            steps=min(1.0, max(0.0, (STEPS_UNTIL - progress) / STEPS_FADE)),
            contrastive=CONTRASTIVE_WEIGHT if progress > CONTRASTIVE_FROM or not warm_up else 0,
            references=1.0 if plan.crowded else 0.0,
        )

    yield from optimise(model, loss_of, schedule, checkpoints)
