"""CLIP's 49,408-token vocabulary as a `CLIPTokenizer`, from the merges that the open_clip_torch wheel ships (MIT)."""

import gzip
import zipfile
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..errors import LongClipError

__all__ = ["build_tokenizer", "read_merges"]

# OpenAI's file lists more merges than CLIP uses: 49,408 = 2 * 256 bytes + the merges + 2 special tokens.
VOCABULARY_SIZE = 49_408
NUM_MERGES = VOCABULARY_SIZE - 2 * 256 - 2
MERGES_IN_WHEEL = "open_clip/bpe_simple_vocab_16e6.txt.gz"


def read_merges(wheel: Path) -> list[tuple[str, str]]:
    """CLIP's 48,894 BPE merges, read from an `open_clip_torch-*.whl` without installing it (it drags in torchvision).

    Raises:
        LongClipError: the file is no wheel of open_clip_torch.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            lines = gzip.decompress(archive.read(MERGES_IN_WHEEL)).decode("utf-8").split("\n")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise LongClipError(
            f"{wheel} is not a wheel of open_clip_torch ({error}). Get one with: pip download --no-deps open_clip_torch"
        ) from error
    return [(left, right) for left, right in (line.split() for line in lines[1 : NUM_MERGES + 1])]


def build_tokenizer(merges: list[tuple[str, str]], *, max_length: int) -> CLIPTokenizer:
    """CLIP's tokenizer with `model_max_length=max_length`; it pads with the end-of-text token, as SD 1.x does."""
    characters = list(bytes_to_unicode().values())
    tokens = [*characters, *(character + "</w>" for character in characters), *(left + right for left, right in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != VOCABULARY_SIZE:
        raise LongClipError(f"These merges give {len(vocabulary)} tokens, CLIP has {VOCABULARY_SIZE}.")
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length)  # type: ignore[arg-type]
