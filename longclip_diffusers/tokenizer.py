"""CLIP's tokenizer with a long limit, and the text normalisation that Long-CLIP was trained with."""

import html
import os
from pathlib import Path

import ftfy
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from .errors import CheckpointError, PromptError
from .positions import LONG_LENGTH

__all__ = ["load_tokenizer", "normalize_text"]

BUNDLED = Path(__file__).parent / "models" / "storybook" / "longclip" / "tokenizer"


def load_tokenizer(
    source: str | os.PathLike[str] | None = None, *, max_length: int = LONG_LENGTH, subfolder: str | None = None
) -> CLIPTokenizer:
    """CLIP's tokenizer with `model_max_length=max_length`.

    Args:
        source: a tokenizer folder, a diffusers folder (its `tokenizer/`), or a hub id of either; None is CLIP's own
            vocabulary of 49,408 tokens, which ships with the package.
        max_length: rows of the encoder it will serve, BOS and EOS included; at least 3.
        subfolder: of `source`, such as SDXL's "tokenizer_2"; only there is looked then.

    Raises:
        CheckpointError: there is no CLIP tokenizer at `source`.
        PromptError: `max_length` is below 3.
    """
    if max_length < 3:
        raise PromptError(f"max_length is {max_length}; a window holds BOS, EOS and at least one token, so 3 or more.")
    place = os.fspath(BUNDLED if source is None else source)
    reasons = []
    for folder in ("", "tokenizer") if subfolder is None else (subfolder,):
        try:
            tokenizer = CLIPTokenizer.from_pretrained(place, subfolder=folder, model_max_length=max_length)
        except (
            Exception
        ) as error:  # transformers lets the parser's own errors through: JSON, KeyError, Rust's Exception
            reasons.append(f"{type(error).__name__}: {error}")
            continue
        if not _lacks_bytes(tokenizer):
            return tokenizer
        reasons.append(f"{len(tokenizer)} tokens, not CLIP's")
    where = "or in its folder tokenizer/" if subfolder is None else f"in its folder {subfolder}/"
    raise CheckpointError(
        f"No CLIP tokenizer at {place!r} {where} ({'; '.join(reasons)}). Give a folder with "
        "tokenizer.json (or vocab.json and merges.txt), a diffusers model folder, or None for the one that ships here."
    )


def normalize_text(text: str) -> str:
    """The text as Long-CLIP's own tokenizer reads it: mojibake and typography repaired, HTML entities resolved twice.

    White space inside stays as it is (line ends separate sentences, the tokenizer collapses the rest).

    Raises:
        PromptError: `text` is not a str.
    """
    if not isinstance(text, str):
        raise PromptError(f"A prompt is a str, not {type(text).__name__}. Read the file or join the list first.")
    # openai/CLIP, clip/simple_tokenizer.py: basic_clean; trained encoders saw no other text.
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _lacks_bytes(tokenizer: CLIPTokenizer) -> bool:
    # transformers 5 builds a dummy of 2 or 3 tokens, without an error, where it finds no vocabulary; any other kind of
    # tokenizer file loads too. CLIP's byte-level BPE holds a word-final piece for every byte.
    return not {f"{character}</w>" for character in bytes_to_unicode().values()} <= tokenizer.get_vocab().keys()
