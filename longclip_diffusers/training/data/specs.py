"""SPEC, the word after `--data`: its kinds, and what a bare path is taken for."""

import re
from pathlib import Path

from ...errors import LongClipError
from .folder import open_folder
from .hub import open_hub
from .sample import TextImageData
from .storybook import StorybookData
from .tables import open_csv, open_jsonl, open_sharegpt4v, open_txt
from .tars import open_tars

__all__ = ["KINDS", "open_data"]

KINDS = {
    "storybook": "storybook",
    "folder": "folder:DIR",
    "jsonl": "jsonl:FILE",
    "csv": "csv:FILE",
    "txt": "txt:FILE",
    "sharegpt4v": "sharegpt4v:JSON:IMAGE_ROOT",
    "wds": "wds:PATTERN",
    "hf": "hf:NAME[:SPLIT]",
}
# What tells a folder that is not one of pictures: `save_to_disk` writes the first two.
KIND_OF_CONTENT = {
    "state.json": "hf",
    "dataset_dict.json": "hf",
    "*.parquet": "hf",
    "data/*.parquet": "hf",
    "*.tar": "wds",
}
KIND_OF_SUFFIX = {".jsonl": "jsonl", ".csv": "csv", ".tsv": "csv", ".txt": "txt", ".tar": "wds"}


def open_data(spec: str, *, seed: int = 0) -> TextImageData:
    """The data that `spec` names, its texts indexed, its pictures read later, one by one.

    Args:
        spec: one of `KINDS`, or a path, which is recognised by what it is.
        seed: of the storybook's scenes.

    Raises:
        LongClipError: an unknown kind, nothing there, or not what it should be; a missing column tells those there are.
    """
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        kind, rest = _recognised(spec), spec
    if spec == "storybook":
        return StorybookData(seed)
    if not rest or kind == "storybook":
        raise LongClipError(f"{spec!r} names no data. Expected {KINDS[kind]}.")
    if kind == "sharegpt4v":
        file, root = _parted(rest)
        if not root:
            raise LongClipError(f"{spec!r} lacks the pictures' folder. Expected {KINDS[kind]}.")
        return open_sharegpt4v(Path(file), Path(root), spec)
    if kind == "hf":
        name, split = _parted(rest)
        return open_hub(name, split or None, spec)
    if kind == "wds":
        return open_tars(rest, spec)
    openers = {"folder": open_folder, "jsonl": open_jsonl, "csv": open_csv, "txt": open_txt}
    return openers[kind](Path(rest), spec)


def _parted(rest: str) -> tuple[str, str]:
    """What stands before and behind the first colon that is not a drive's (C:\\)."""
    drive = re.match(r"[A-Za-z]:[\\/]", rest)
    head = drive.group() if drive else ""
    first, _, second = rest[len(head) :].partition(":")
    return head + first, second


def _recognised(spec: str) -> str:
    path = Path(spec)
    if path.is_dir():
        return next((kind for content, kind in KIND_OF_CONTENT.items() if any(path.glob(content))), "folder")
    kind = KIND_OF_SUFFIX.get(path.suffix.lower())
    if kind and (path.is_file() or kind == "wds"):
        return kind
    state = "is of no kind that its name tells" if path.exists() else "does not exist and names no kind"
    raise LongClipError(f"--data {spec}: this {state}. Expected {', '.join(KINDS.values())}.")
