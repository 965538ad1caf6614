"""Prompts from files: what is read, and what each unusable file or line is told."""

import json
import re

import pytest

from longclip_diffusers.errors import PromptError
from longclip_diffusers.prompt_files import MAX_SEED, BadLine, Request, decode_prompt, read_batch, read_prompt


def batch(tmp_path, lines, suffix=".jsonl"):
    path = tmp_path / f"prompts{suffix}"
    path.write_text("\n".join(lines), encoding="utf-8")
    return list(read_batch(path))


def test_text_is_read_as_it_is_but_for_the_byte_order_mark():
    assert decode_prompt("\ufeff  Zwei\r\nZeilen – ☕\n".encode(), "it") == "  Zwei\r\nZeilen – ☕\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n", r"chapter\.txt is not UTF-8 text \(byte 0\)"),
        ("hällo".encode("utf-16"), "not UTF-8"),
        (b"a\0b", "binary"),
        (b" \n\t", "holds no text"),
        (b"", "holds no text"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, data, message):
    path = tmp_path / "chapter.txt"
    path.write_bytes(data)
    with pytest.raises(PromptError, match=message):
        read_prompt(path)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(PromptError, match=r"nowhere\.txt cannot be read: No such file"):
        read_prompt(tmp_path / "nowhere.txt")
    with pytest.raises(PromptError, match="cannot be read: Is a directory"):
        read_prompt(tmp_path)


def test_lines_of_text_are_named_by_their_number(tmp_path):
    assert batch(tmp_path, ["a cat", "", "  ", '{"prompt": "a dog"}'], ".txt") == [
        Request("a cat", name="1"),
        Request('{"prompt": "a dog"}', name="4"),
    ]


def test_lines_of_json_are_strings_or_objects(tmp_path):
    full = {"prompt": "a dog", "negative": "", "seed": 0, "name": "hound"}
    assert batch(tmp_path, [json.dumps("a cat"), json.dumps(full)]) == [
        Request("a cat", name="1"),
        Request("a dog", name="hound", negative="", seed=0),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a cat", "not JSON"),
        ('{"prompt": "a cat"', "not JSON"),
        ("3", "expected a JSON string, or an object"),
        ('{"text": "a cat"}', "expected a JSON string, or an object"),
        ('{"prompt": "a cat", "sed": 1}', r"unknown key sed\. Known: prompt, negative, seed, name"),
        ('{"prompt": ""}', "empty"),
        ('" "', "empty"),
        ('{"prompt": ["a"]}', r"prompt is \['a'\], expected str"),
        ('{"prompt": "a", "seed": true}', "seed is True, expected int"),
        ('{"prompt": "a", "seed": -1}', "seed -1 is out of range"),
        (f'{{"prompt": "a", "seed": {MAX_SEED + 1}}}', "out of range"),
        ('{"prompt": "a", "name": "../up"}', "not a plain file name"),
        ('{"prompt": "a", "name": "a\\\\b"}', "not a plain file name"),
        ('{"prompt": "a", "name": ".hidden"}', "not a plain file name"),
        ('{"prompt": "a", "name": ""}', "not a plain file name"),
        ('{"prompt": "a", "name": "a\\u0000"}', "not a plain file name"),
        (json.dumps({"prompt": "a", "name": "海" * 67}), "200 bytes at most"),
    ],
)
def test_bad_line_is_told_and_the_next_one_read(tmp_path, line, reason):
    bad, good = batch(tmp_path, [line, '"a dog"'])
    assert isinstance(bad, BadLine)
    assert bad.number == 1
    assert re.search(reason, bad.reason)
    assert good == Request("a dog", name="2")


def test_name_that_is_taken_is_bad_in_any_case_and_against_numbers(tmp_path):
    names = ["Cat", "3", "cat"]
    lines = [json.dumps({"prompt": "a", "name": name}) for name in names] + ['"b"']
    kinds = [type(line) for line in batch(tmp_path, [*lines[:2], '"number 3"', *lines[2:]])]
    assert kinds == [Request, Request, BadLine, BadLine, Request]


def test_batch_of_another_kind_is_refused(tmp_path):
    with pytest.raises(PromptError, match=r"a batch is a \.txt .* or a \.jsonl"):
        list(read_batch(tmp_path / "prompts.csv"))
