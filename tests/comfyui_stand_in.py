"""What the nodes use of ComfyUI's CLIP, in a few lines: names and rules as in comfy/sd.py and comfy/model_patcher.py.

Token and row are one: row r of the conditioning is (token, weight, place in its window) of every tower, so that a test
reads from it what was encoded.
"""

import copy
import re
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from longclip_diffusers.comfyui.prompts import Fragment

BOS, EOS = 1, 2
PADS = {"l": EOS, "g": 0, "h": 0}
PATH = "clip_{}.transformer.text_model.embeddings.position_embedding"


class Tokenizer:
    """A character is a token, a window holds `max_length`; <ab> is an embedding of two vectors that G does not have."""

    def __init__(self, tower: str, max_length: int) -> None:
        self.tower, self.max_length = tower, max_length

    def content(self, text: str) -> list[tuple[Any, float, int]]:
        made = []
        plain = re.sub(r"(?<!\\)[()]", "", text).replace("\\(", "(").replace("\\)", ")")
        for number, word in enumerate(plain.split(), 1):
            if word.startswith("<"):
                word = "" if self.tower == "g" else word.strip("<>")
            made += [(ord(letter), 1.0, number) for letter in word]
        return made

    def tokenize(self, text: str) -> list[list[tuple[Any, float, int]]]:
        content, size = self.content(text), self.max_length - 2
        windows = [content[start : start + size] for start in range(0, len(content), size)] or [[]]
        pad = PADS[self.tower]
        return [[(BOS, 1.0, 0), *window, (EOS, 1.0, 0), *[(pad, 1.0, 0)] * (size - len(window))] for window in windows]


class Patcher:
    """Object patches and backups; all clones share the model and what is backed up of it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.object_patches: dict[str, Any] = {}
        self.object_patches_backup: dict[str, Any] = {}
        self.backup: dict[str, Any] = {}
        self.patches: dict[str, list[Any]] = {}

    def clone(self) -> "Patcher":
        twin = copy.copy(self)
        twin.object_patches = self.object_patches.copy()
        twin.patches = self.patches.copy()
        return twin

    def add_object_patch(self, name: str, value: Any) -> None:
        self.object_patches[name] = value

    def get_model_object(self, name: str) -> Any:
        for place in (self.object_patches, self.object_patches_backup):
            if name in place:
                return place[name]
        return self.model.get_submodule(name)

    def load(self) -> None:
        """Put this clone's patches into the model, as core does before it encodes."""
        for name, value in self.object_patches_backup.items():
            self._set(name, value)
        self.object_patches_backup.clear()
        for name, value in self.object_patches.items():
            self.object_patches_backup[name] = self.model.get_submodule(name)
            self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        parent, _, last = name.rpartition(".")
        setattr(self.model.get_submodule(parent), last, value)


class Clip:
    """`Clip(l=77, g=77)`: towers and the rows of their tables. `others`: further text encoders, such as "t5xxl"."""

    def __init__(self, *, others: tuple[str, ...] = (), width: int = 8, **rows: int) -> None:
        self.cond_stage_model = nn.Module()
        for tower, length in rows.items():
            holder = self.cond_stage_model
            for part in PATH.format(tower).split(".")[:-1]:
                if not hasattr(holder, part):
                    holder.add_module(part, nn.Module())
                holder = holder.get_submodule(part)
            holder.position_embedding = nn.Embedding(length, width)
        tokenizers = {f"clip_{tower}": Tokenizer(tower, length) for tower, length in rows.items()}
        self.tokenizer = SimpleNamespace(**tokenizers)
        self.patcher = Patcher(self.cond_stage_model)
        self.towers, self.others = tuple(rows), others
        self.passes: list[dict[str, int]] = []

    def clone(self) -> "Clip":
        twin = copy.copy(self)
        twin.patcher = self.patcher.clone()
        return twin

    def table(self, tower: str) -> Tensor:
        """What this CLIP would read with, once loaded."""
        self.patcher.load()
        return self.cond_stage_model.get_submodule(PATH.format(tower)).weight

    def tokenize(self, text: str, return_word_ids: bool = False) -> dict[str, list[list[Any]]]:
        windows = {tower: getattr(self.tokenizer, f"clip_{tower}").tokenize(text) for tower in self.towers}
        if not return_word_ids:
            windows = {tower: [[item[:2] for item in row] for row in rows] for tower, rows in windows.items()}
        return {**windows, **{name: [[(text, 1.0)]] for name in self.others}}

    def encode_from_tokens_scheduled(self, tokens: dict[str, Any]) -> list[list[Any]]:
        self.passes.append({tower: len(tokens[tower]) for tower in self.towers})
        towers = [
            torch.tensor([[*item, place] for row in tokens[tower] for place, item in enumerate(row)])
            for tower in self.towers
        ]
        rows = min(map(len, towers))
        pooled = torch.tensor([[float(sum(token for token, _ in tokens[self.towers[-1]][0]))]])
        states = torch.cat([states[:rows] for states in towers], dim=-1)[None]
        return [[states, {"pooled_output": pooled, "others": [tokens[name] for name in self.others]}]]


def fragments(text: str) -> list[Fragment]:
    """(a b:1.5) only, unnested: enough to write tests with; ComfyUI's own parser is tested in ComfyUI."""
    made: list[Fragment] = []
    for number, part in enumerate(text.replace(")", "(").split("(")):
        words, _, weight = part.partition(":")
        made.append(Fragment(words, float(weight or 1.1), number) if number % 2 else Fragment(part))
    return made
