"""A frozen reader that stands in for a UNet: one learned query a slot looks at an encoder's token states for its word.

Trained once on a base encoder's captions of at most 77 tokens, as a UNet is; what another encoder, or another way to
cut a long text, then tells it is what a UNet could draw. Without a UNet's noise, and a thousand times as fast.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTokenizer

from ..errors import LongClipError, ModelError
from ..positions import CLIP_LENGTH
from ..storybook.captions import DETAILS, Caption, Sentence, Shares, compose, fill, num_tokens
from ..storybook.phrases import TRAINING, UNSEEN, Phrases
from ..storybook.scene import Scene, draw_scene
from ..storybook.slots import IS_WORD, MAX_WORDS, OPENING_SLOTS, SLOT_INDEX, SLOTS
from ..text_encoder import TextEncoder, num_positions
from .metrics import bootstrap_interval
from .report import Row

__all__ = ["Reader", "Told", "probe_rows", "told_facts", "train_reader", "window_caption"]

# Some three minutes of one core; a third of it leaves a point or two of the references unread.
STEPS, BATCH_SIZE, LEARNING_RATE = 1500, 64, 4e-3
NUM_HEADS = 4
BINS = {"0-20": (0, 20), "20-40": (20, 40), "40-60": (40, 60), "60-77": (60, CLIP_LENGTH)}
KINDS = ("shared", "owner", "pronoun")
# References as often as the base's own captions have them, so that reading them is learned as well as details.
SHARES = Shares(shared=0.7, owned=0.12, pronoun=0.15)
OPENING_SHARE = 0.6
STORY_SHARE = 0.15  # passages with a sentence of story before them
FILLED_SHARE = 0.5  # captions that fill the 77 tokens
SHORTEST = 12  # content tokens that a caption may be confined to: one detail


class _Layer(nn.Module):
    """Cross-attention and a small network, each added to the queries."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, NUM_HEADS, batch_first=True)
        self.network = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, queries: Tensor, states: Tensor) -> Tensor:
        queries = queries + self.attention(self.norm(queries), states, states, need_weights=False)[0]
        return queries + self.network(queries)


class Reader(nn.Module):
    """Learned queries (one a slot), layers of cross-attention over token states, a head for each slot's words."""

    is_word: Tensor

    def __init__(self, width: int, num_layers: int = 2):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(SLOTS), width) * 0.2)
        self.layers = nn.ModuleList([_Layer(width) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(width)
        self.heads = nn.Parameter(torch.randn(len(SLOTS), width, MAX_WORDS) * width**-0.5)
        self.register_buffer("is_word", torch.tensor(IS_WORD))

    def forward(self, states: Tensor) -> Tensor:
        """Logits (B, slots, words) from token states (B, N, D), any N; minus infinity where a slot has fewer words."""
        queries = self.queries.expand(len(states), -1, -1)
        for layer in self.layers:
            queries = layer(queries, states)
        logits = torch.einsum("bsd,sdw->bsw", self.norm(queries), self.heads)
        return logits.masked_fill(~self.is_word, -torch.inf)

    @torch.no_grad()
    def read(self, states: Tensor) -> list[dict[str, str]]:
        """The word of every slot by its name, for each text of token states (B, N, D).

        Raises:
            ModelError: states of another width.
        """
        width = self.queries.shape[1]
        if states.ndim != 3 or states.shape[2] != width:
            raise ModelError(f"This reader reads token states (B, N, {width}), got {tuple(states.shape)}.")
        found = self(states.to(self.queries)).argmax(dim=-1).tolist()
        return [{slot.name: slot.words[word] for slot, word in zip(SLOTS, row, strict=True)} for row in found]


@dataclass(frozen=True)
class Told:
    """A slot that a caption tells: the position of its sentence's last token (BOS = 0), and how: `direct`, or by a
    reference, `shared` (a colour), `owner` or `pronoun`."""

    slot: str
    position: int
    kind: str


def told_facts(caption: Caption) -> Iterator[Told]:
    """Every slot that a caption tells, in order."""
    position = 0
    for sentence in caption.sentences:
        position += num_tokens(sentence.text)
        yield from (Told(slot, position, _kind(caption, sentence)) for slot in sentence.slots)


def _kind(caption: Caption, sentence: Sentence) -> str:
    if sentence.antecedent is None:
        return "direct"
    if caption.sentences[sentence.antecedent].slots:
        return "shared"
    return "owner" if sentence.cue else "pronoun"


def window_caption(scene: Scene, rng: random.Random, *, phrases: Phrases = TRAINING) -> Caption:
    """What the first 77 tokens may hold, uncut: maybe the summary, details and references, now and then story."""
    most = CLIP_LENGTH - 2
    room = most if rng.random() < FILLED_SHARE else rng.randint(SHORTEST, most)
    slots = rng.sample(DETAILS, len(DETAILS) // 2)
    teller, passages = compose(scene, slots, rng, phrases=phrases, shares=SHARES, gap=lambda: rng.randint(0, 2))
    if rng.random() < OPENING_SHARE:
        passages.insert(0, [teller.opening()])
    for passage in passages[1:]:
        if rng.random() < STORY_SHARE:
            passage.insert(0, teller.story())
    return fill(passages, room)


def train_reader(
    text_encoder: TextEncoder, tokenizer: CLIPTokenizer, *, seed: int = 0, steps: int = STEPS, num_layers: int = 2
) -> Reader:
    """A reader of the encoder's last states, trained on captions of at most 77 tokens, then frozen.

    The encoder is only read. The same seed gives the same reader.

    Raises:
        LongClipError: the loss became NaN.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reader = Reader(text_encoder.config.hidden_size, num_layers).to(text_encoder.device)
    optimiser = torch.optim.AdamW(reader.parameters(), LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        rng = random.Random(f"{seed}/reader/{step}")
        scenes = [draw_scene(rng) for _ in range(BATCH_SIZE)]
        captions = [window_caption(scene, rng) for scene in scenes]
        told = [
            (row, SLOT_INDEX[fact.slot], scene.index(fact.slot))
            for row, (caption, scene) in enumerate(zip(captions, scenes, strict=True))
            for fact in told_facts(caption)
        ]
        rows, slots, words = torch.tensor(told, device=text_encoder.device).reshape(-1, 3).T
        loss = cross_entropy(reader(_states(text_encoder, tokenizer, captions))[rows, slots], words)
        if not loss.isfinite():
            raise LongClipError(f"The reader's loss became {loss.item()}. Are the encoder's weights whole?")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return reader.eval().requires_grad_(False)


def probe_rows(
    reader: Reader,
    text_encoder: TextEncoder,
    tokenizer: CLIPTokenizer,
    *,
    num_scenes: int,
    seed: int,
    phrases: Phrases = UNSEEN,
    name: str = "stock",
) -> list[Row]:
    """What a reader finds in captions of at most 77 tokens, read by the encoder that it was trained on.

    A row for the details told directly in each bin of positions (0-20, 20-40, 40-60, 60-77), for all of them
    (`details`) and for the slots of the summary (`opening`), then for references whose antecedent stands in the same 77
    tokens (`near_reference`) and for each kind of them. Intervals are resampled over scenes.

    Raises:
        LongClipError: no scenes.
    """
    if num_scenes < 1:
        raise LongClipError(f"num_scenes is {num_scenes}; give 1 or more.")
    groups: dict[str, list[tuple[int, bool]]] = {
        column: [] for column in (*BINS, "details", "opening", "near_reference", *(f"near_{kind}" for kind in KINDS))
    }
    for first in range(0, num_scenes, BATCH_SIZE):
        numbers = range(first, min(first + BATCH_SIZE, num_scenes))
        rngs = [random.Random(f"{seed}/probe/{number}") for number in numbers]
        scenes = [draw_scene(rng) for rng in rngs]
        captions = [window_caption(scene, rng, phrases=phrases) for scene, rng in zip(scenes, rngs, strict=True)]
        found = reader.read(_states(text_encoder, tokenizer, captions))
        for number, scene, caption, words in zip(numbers, scenes, captions, found, strict=True):
            for fact in told_facts(caption):
                for column in _columns(fact):
                    groups[column].append((number, words[fact.slot] == scene[fact.slot]))
    return [_row(name, column, hits) for column, hits in groups.items() if hits]


def _columns(fact: Told) -> list[str]:
    if fact.kind != "direct":
        return ["near_reference", f"near_{fact.kind}"]
    if fact.slot in OPENING_SLOTS:
        return ["opening"]
    return ["details", *(column for column, (first, last) in BINS.items() if first <= fact.position < last)]


def _row(name: str, column: str, hits: Sequence[tuple[int, bool]]) -> Row:
    scenes, found = zip(*hits, strict=True)
    return Row(name, column, float(np.mean(found)), *bootstrap_interval(scenes, found), len(hits))


@torch.no_grad()
def _states(text_encoder: TextEncoder, tokenizer: CLIPTokenizer, captions: Sequence[Caption]) -> Tensor:
    """The last states (B, 77, D) of captions, normalised, padding's rows included, as a UNet is given them."""
    length = min(CLIP_LENGTH, num_positions(text_encoder))
    texts = [str(caption) for caption in captions]
    ids = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    return text_encoder(ids.to(text_encoder.device)).last_hidden_state
