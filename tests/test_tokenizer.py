import html
import json
import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import ftfy
import pytest
import regex  # a dependency of transformers and diffusers
import toys
from tokenizers import Tokenizer, models
from transformers.convert_slow_tokenizer import bytes_to_unicode

from longclip_diffusers.errors import CheckpointError, LongClipError, PromptError
from longclip_diffusers.tokenizer import load_tokenizer, normalize_text

TEXTS = [
    "",
    "a cat on a mat",
    "“Don’t,” she said — ‘never’…",
    "a ﬁne ﬂower ＡＢＣ！ １２",
    "salt &amp;amp; pepper &lt;b&gt; it&#39;s",
    "<b> salt &amp;amp; pepper",  # ftfy resolves no entity beside a "<"
    "cafÃ© naÃ¯ve â€œquotedâ€\x9d",
    "Cafe\u0301 \u00a0NBSP\ttab\r\nline\n\nparagraph   spaces  ",
    "🙂👩‍👩‍👧 emoji 日本の猫。 Ёж Ünïcödé ①②",
    "it's we're I'll I'd 10:30 3.5 1,000 C++ well-known--very (aged 40) [x]",
    "<|startoftext|> a <|endoftext|>",
    "\ud800 lone surrogate \x00 control \ufeff bom",
]


@cache
def vocabulary() -> tuple[dict[str, int], dict[tuple[str, ...], int]]:
    folder = Path(toys.longclip_diffusers.models.__file__).parent / "storybook" / "tokenizer"
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    return model["vocab"], {tuple(pair): rank for rank, pair in enumerate(model["merges"])}


@pytest.fixture(scope="module")
def bundled():
    return load_tokenizer()


def official_ids(text: str) -> list[int]:
    """A slow copy of what openai/CLIP's SimpleTokenizer does, for comparison."""
    vocab, ranks = vocabulary()
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    text = regex.sub(r"\s+", " ", text).strip().lower()
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    ids = []
    for token in regex.findall(pattern, text, regex.IGNORECASE):
        if token in vocab and token.startswith("<|"):
            ids.append(vocab[token])
            continue
        word = [bytes_to_unicode()[byte] for byte in token.encode()]
        word[-1] += "</w>"
        while len(word) > 1:
            rank, at = min((ranks.get(pair, 10**9), at) for at, pair in enumerate(pairwise(word)))
            if rank == 10**9:
                break
            word[at : at + 2] = [word[at] + word[at + 1]]
        ids += [vocab[piece] for piece in word]
    return ids


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_the_official_tokenizers(text, bundled):
    ours = bundled(normalize_text(text), add_special_tokens=False).input_ids
    assert ours == official_ids(text)


def test_ids_are_the_official_tokenizers_on_random_characters(bundled):
    draw = random.Random(0)
    alphabet = "abcXYZ 019 .,!?'\"-“”’…—éßÅΩжあ猫🙂&;<>#\n\t\u00a0\u200b\u0301"
    for _ in range(300):
        text = "".join(draw.choices(alphabet, k=draw.randrange(40)))
        assert bundled(normalize_text(text), add_special_tokens=False).input_ids == official_ids(text), repr(text)


@pytest.mark.parametrize("text", ["a cat", "Salt & pepper, 3.5 boats;", "Ünïcödé 猫 🙂", "line\n\nparagraph"])
def test_plain_text_is_left_as_it_was(text):
    assert normalize_text(text) == text


def test_typography_costs_fewer_tokens_after_normalisation(bundled):
    text = "“I don’t,” she said, “and you won’t.”"
    assert len(bundled(normalize_text(text)).input_ids) < len(bundled(text).input_ids)


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["a list"]])
def test_only_text_is_normalised(text):
    with pytest.raises(PromptError, match=type(text).__name__):
        normalize_text(text)


def test_the_bundled_tokenizer_has_the_whole_vocabulary_and_the_long_limit(bundled):
    tokenizer = bundled
    assert (len(tokenizer), tokenizer.model_max_length) == (toys.REAL_VOCABULARY_SIZE, 248)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (49406, 49407, 49407)
    assert load_tokenizer(max_length=77).model_max_length == 77


@pytest.mark.parametrize("place", ["", "tokenizer"])
def test_a_tokenizer_folder_and_a_diffusers_folder_open(tmp_path, place):
    toys.tokenizer().save_pretrained(tmp_path / place)
    tokenizer = load_tokenizer(tmp_path, max_length=100)
    assert (len(tokenizer), tokenizer.model_max_length) == (514, 100)


def empty_folder(folder: Path) -> None:
    """Of this transformers makes a dummy of two tokens without an error."""


def broken_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version":')


def another_kind(folder: Path) -> None:
    Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "d": 3}, unk_token="a")).save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("make", [empty_folder, broken_json, another_kind])
def test_what_is_no_clip_tokenizer_is_refused(tmp_path, make):
    make(tmp_path)
    with pytest.raises(CheckpointError, match=r"No CLIP tokenizer at .*tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(LongClipError, match="missing"):
        load_tokenizer(tmp_path / "missing")


def test_a_limit_that_holds_no_token_is_refused():
    with pytest.raises(PromptError, match="max_length is 2"):
        load_tokenizer(max_length=2)
