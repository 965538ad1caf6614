"""Prompts from files: one text, or a batch with a prompt on every line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import PromptError

__all__ = ["MAX_SEED", "BadLine", "Request", "decode_prompt", "read_batch", "read_prompt"]

MAX_SEED = 2**63 - 1  # torch takes twice that; the half leaves room to count on from it, a picture a seed
LONGEST_NAME = 200  # bytes; file systems take 255, with a number, a suffix and what marks an unfinished file


@dataclass(frozen=True)
class Request:
    """What one line of a batch asks for; None leaves `negative` and `seed` to the caller. `name` is a file's stem."""

    prompt: str
    name: str
    negative: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise PromptError("The prompt is empty: there is nothing to draw.")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise PromptError(f"seed {self.seed} is out of range: expected 0 to {MAX_SEED}.")
        if not _is_file_stem(self.name):
            raise PromptError(
                f"name {self.name!r:.60} is not a plain file name: leave out folders, leading dots and .png, and take "
                f"{LONGEST_NAME} bytes at most."
            )


@dataclass(frozen=True)
class BadLine:
    """A line of a batch that cannot be drawn, counted from 1, and why."""

    number: int
    reason: str


def decode_prompt(data: bytes, source: str) -> str:
    """UTF-8 bytes as text; a byte order mark is dropped.

    Raises:
        PromptError: not UTF-8, or binary (a NUL byte), or nothing but white space; `source` names it.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"{source} is not UTF-8 text (byte {error.start}). Save it as plain UTF-8 text.") from error
    if "\0" in text:
        raise PromptError(f"{source} is binary, not text: it holds a NUL byte. Give a plain UTF-8 text file.")
    if not text.strip():
        raise PromptError(f"{source} holds no text: there is nothing to draw.")
    return text


def read_prompt(path: Path) -> str:
    """The text of a file.

    Raises:
        PromptError: no such file, a folder, unreadable, or not UTF-8 text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror or error}. Expected a text file.") from error
    return decode_prompt(data, str(path))


def read_batch(path: Path) -> Iterator[Request | BadLine]:
    """Every line of a batch in order, blank ones left out; a request without a name is called by its line's number.

    Args:
        path: `.txt`, each line a prompt; or `.jsonl`, each line a JSON string or an object with `prompt` and perhaps
            `negative`, `seed`, `name`.

    Raises:
        PromptError: the file is unreadable, holds no text, or is of another kind.
    """
    parsers = {".txt": lambda line: {"prompt": line}, ".jsonl": _parse_json}
    if path.suffix not in parsers:
        raise PromptError(f"{path}: a batch is a .txt (a prompt a line) or a .jsonl file (JSON a line).")
    taken: dict[str, int] = {}
    for number, line in enumerate(read_prompt(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            request = Request(**{"name": str(number), **parsers[path.suffix](line.strip())})
            # Case folded, since file systems differ in whether A.png and a.png are one file.
            if first := taken.setdefault(request.name.casefold(), number) - number:
                raise PromptError(f"name {request.name!r} is taken by line {number + first} already.")
            yield request
        except PromptError as error:
            yield BadLine(number, str(error))


def _parse_json(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise PromptError(f"not JSON ({error}).") from error
    if isinstance(content, str):
        return {"prompt": content}
    if not isinstance(content, dict) or "prompt" not in content:
        raise PromptError('expected a JSON string, or an object with "prompt".')
    types = {"prompt": str, "negative": str, "seed": int, "name": str}
    if unknown := sorted(content.keys() - types.keys()):
        raise PromptError(f"unknown key {', '.join(unknown)}. Known: {', '.join(types)}.")
    for key, value in content.items():
        if type(value) is not types[key]:
            raise PromptError(f"{key} is {value!r:.40}, expected {types[key].__name__}.")
    return content


def _is_file_stem(name: str) -> bool:
    plain = name.isprintable() and not name.startswith(".") and not set(name) & set('/\\:*?"<>|')
    return plain and 0 < len(name.encode()) <= LONGEST_NAME
