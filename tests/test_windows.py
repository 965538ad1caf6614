import random
import time
from itertools import chain

import pytest
import toys

from longclip_diffusers.errors import ModelError, PromptError
from longclip_diffusers.tokenizer import normalize_text
from longclip_diffusers.windows import WindowPlan, plan_windows

ODD_TEXTS = [
    "",
    " \n ",
    "a",
    "A cat sat. It slept! Did it? " * 9,
    "no stop at all " * 30,
    "x" * 500,
    "short " + "y" * 200 + " end",
    "one, two, three; four: five — six " * 12,
    "“Don’t,” she said… ‘never’ &amp; 3.5 ﬁne " * 5,
    "猫は大きい。犬も！「そう」、" * 9,
    "🙂👩‍👩‍👧" * 20,
    "a\n\nb\n- c\n- d\n" * 9,
    "..." * 100,
    "<|endoftext|> inside <|startoftext|> " * 3,
    "\x00\ud800 \u200b\u0301 e\u0301" * 10,
]
PROSE = (
    "The harbour lay under a grey sky, and Mr. Finch counted 3.5 boats. “Look!” she said; nobody did. "
    "A gull, white as salt, cried over the water. The roof is green. "
)


@pytest.fixture(scope="module")
def tokenizer():
    return toys.tokenizer()


@pytest.fixture(scope="module")
def real():
    return toys.real_tokenizer()


def content_ids(text, tokenizer):
    return tokenizer(normalize_text(text), add_special_tokens=False, verbose=False).input_ids


def own_ids(plan):
    return list(chain.from_iterable(window.own_ids for window in plan.windows))


def random_text(seed):
    draw = random.Random(seed)
    alphabet = "abcdef      .,;:!?\n\"'—-…。，猫é🙂019()<>&"
    return "".join(draw.choices(alphabet, k=draw.randrange(400)))


def check(plan, text, tokenizer):
    assert own_ids(plan) == content_ids(text, tokenizer)
    for window in plan.windows:
        assert (window.ids[0], window.ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert len(window.ids) <= plan.window
        assert 0 <= window.num_context <= len(window.ids) - 2 - len(window.own_ids)
    assert plan.windows[0].num_context == 0


@pytest.mark.parametrize("context", ["none", "related"])
@pytest.mark.parametrize("window", [3, 4, 16, 77, 248])
def test_every_token_is_in_exactly_one_window_in_order(window, context, tokenizer):
    for text in [*ODD_TEXTS, *map(random_text, range(40))]:
        check(plan_windows(text, tokenizer, window=window, context=context), text, tokenizer)


@pytest.mark.parametrize("context", ["none", "related"])
def test_the_same_with_the_real_vocabulary(context, real):
    for text in [*ODD_TEXTS, PROSE * 9]:
        check(plan_windows(text, real, window=77, context=context), text, real)


def test_ids_of_the_sentences_joined_are_the_ids_of_the_text(real):
    # BPE works inside words, so whatever plans windows from sentences may tokenise them one by one.
    plan = plan_windows(PROSE * 9, real, window=77)
    assert list(chain.from_iterable(content_ids(window.text, real) for window in plan.windows)) == own_ids(plan)


@pytest.mark.parametrize("num_tokens", [0, 1, 74, 75, 76, 150, 151])
def test_windows_are_as_few_as_the_limit_allows(num_tokens, tokenizer):
    plan = plan_windows("a " * num_tokens, tokenizer, window=77)
    assert plan.num_tokens == num_tokens
    assert [len(window.own_ids) for window in plan.windows] == (
        [75] * (num_tokens // 75) + [num_tokens % 75] * (num_tokens % 75 > 0) or [0]
    )


def test_a_text_that_fits_has_the_ids_of_the_stock_pipeline(real):
    text = "a cat on a mat, 3.5 boats and a well-known pier."
    assert list(plan_windows(text, real, window=77).windows[0].ids) == real(text).input_ids


def test_windows_end_with_sentences_and_are_filled_greedily(tokenizer):
    plan = plan_windows("aaaa bbb. " * 9, tokenizer, window=2 + 25)  # a sentence is 8 tokens, three fit
    assert [window.text for window in plan.windows] == ["aaaa bbb. aaaa bbb. aaaa bbb."] * 3
    assert [window.cut for window in plan.windows] == ["sentence", "sentence", "end"]


def test_a_sentence_that_fits_no_window_is_cut_at_a_clause_and_starts_a_window(tokenizer):
    plan = plan_windows("Hi. aaaa bb, cccc dd, eeee ff gggg.", tokenizer, window=2 + 16)
    assert [(window.text, window.cut) for window in plan.windows] == [
        ("Hi.", "sentence"),
        ("aaaa bb, cccc dd,", "clause"),
        ("eeee ff gggg.", "end"),
    ]


def test_a_clause_end_that_would_leave_the_window_half_empty_is_no_cut(tokenizer):
    plan = plan_windows("a, bbbb cccc dddd eeee ffff", tokenizer, window=2 + 16)
    assert [(window.text, window.cut) for window in plan.windows] == [
        ("a, bbbb cccc dddd", "word"),
        ("eeee ffff", "end"),
    ]


@pytest.mark.parametrize("word", ["don't", "3.5", "well-known", "C++", "1,000", "🙂🙂"])
@pytest.mark.parametrize("before", range(9))
def test_no_cut_falls_inside_a_word(word, before, tokenizer):
    text = "a " * before + f"{word} " * 9
    for window in plan_windows(text, tokenizer, window=2 + 10).windows:
        assert set(window.text.split()) <= {"a", word}


def test_only_a_word_longer_than_a_window_is_cut_and_the_report_says_so(tokenizer):
    plan = plan_windows("short " + "y" * 25 + " end", tokenizer, window=2 + 10)
    assert [(window.text, window.cut) for window in plan.windows] == [
        ("short", "word"),
        ("y" * 10, "token"),
        ("y" * 10, "token"),
        ("yyyyy end", "end"),
    ]
    assert "INSIDE A WORD" in str(plan)


@pytest.mark.parametrize("context", ["none", "related"])
@pytest.mark.parametrize("glue", [" ", ""])
@pytest.mark.parametrize("before", range(12))
def test_no_cut_falls_inside_a_textual_inversion_group(before, glue, context):
    tokenizer = toys.tokenizer()
    group = ["<cat>", "<cat>_1", "<cat>_2"]
    tokenizer.add_tokens([*group, "<other>"])
    ids = tokenizer.convert_tokens_to_ids(group)
    text = f"{'a' * before}{glue}{' '.join(group)} <other> b. {' '.join(group)} c. " * 5
    plan = plan_windows(text, tokenizer, window=2 + 7, context=context)
    check(plan, text, tokenizer)
    whole = [list(window.own_ids)[i : i + 3] for window in plan.windows for i in range(len(window.own_ids))]
    assert whole.count(ids) == 10


def test_a_group_longer_than_a_window_is_cut_but_not_dropped():
    tokenizer = toys.tokenizer()
    names = ["<x>", *(f"<x>_{number}" for number in range(1, 8))]
    tokenizer.add_tokens(names)
    plan = plan_windows(" ".join(names), tokenizer, window=2 + 3)
    assert own_ids(plan) == tokenizer.convert_tokens_to_ids(names)
    assert [len(window.own_ids) for window in plan.windows] == [3, 3, 2]


def test_each_text_of_a_list_starts_a_new_window(tokenizer):
    plan = plan_windows(["one. two.", " ", "three"], tokenizer, window=77)
    assert [window.text for window in plan.windows] == ["one. two.", "three"]
    assert plan_windows(["", " "], tokenizer) == plan_windows("", tokenizer)


def test_the_word_break_is_a_word(tokenizer):
    assert [window.text for window in plan_windows("a BREAK b", tokenizer).windows] == ["a BREAK b"]


def test_the_report_counts_and_shows(tokenizer):
    report = str(plan_windows("The roof is red. The door is green.", tokenizer, window=2 + 16))
    assert report.splitlines() == [
        "28 tokens in 2 windows of at most 16",
        'window 1: 13 tokens; cut at a sentence end: "The roof is red."',
        'window 2: 15 tokens; the text ends: "The door is green."',
    ]


def test_a_million_characters_take_under_three_seconds(real):
    text = PROSE * (1_000_000 // len(PROSE))
    plan_windows(PROSE, real)
    start = time.process_time()
    plan = plan_windows(text, real)
    assert time.process_time() - start < 3  # measured 1.6, nearly all in ftfy and the tokenizer
    assert plan.num_tokens > 200_000


@pytest.mark.parametrize("text", [None, 3, b"bytes", [], {"a": 1}, ["a", None]])
def test_what_is_no_text_is_refused(text, tokenizer):
    with pytest.raises(PromptError, match=r"is a str, .*(NoneType|int|bytes|list|dict)"):
        plan_windows(text, tokenizer)


def test_options_out_of_range_are_refused(tokenizer):
    with pytest.raises(PromptError, match="window is 2"):
        plan_windows("a", tokenizer, window=2)
    with pytest.raises(PromptError, match="'none' or 'related'"):
        plan_windows("a", tokenizer, context="some")
    with pytest.raises(ModelError, match="object is no CLIPTokenizer"):
        plan_windows("a", object())


# ---- pieces, for an encoder that is shorter than a window


@pytest.mark.parametrize("text", [*ODD_TEXTS, PROSE * 4])
def test_pieces_are_the_windows_own_tokens_and_the_windows_those_without_pieces(text, tokenizer):
    plan = plan_windows(text, tokenizer, window=248, piece=77)
    plain = plan_windows(text, tokenizer, window=248)
    assert [window.ids for window in plan.windows] == [window.ids for window in plain.windows]
    for window in plan.windows:
        assert bool(window.pieces) == (len(window.ids) > 77)
        assert not window.pieces or own_ids(WindowPlan(window.pieces, 77)) == list(window.own_ids)
        assert all(2 < len(piece.ids) <= 77 for piece in window.pieces)


def test_pieces_end_where_windows_of_their_size_would(tokenizer):
    text = "The old lamp hangs above the grey door. " * 5  # one window of 248
    (window,) = plan_windows(text, tokenizer, window=248, piece=77).windows
    expected = plan_windows(text, tokenizer, window=77).windows
    assert window.pieces == expected
    assert [piece.cut for piece in window.pieces] == ["sentence"] * (len(expected) - 1) + ["end"]


def test_a_rest_that_fits_is_one_piece(tokenizer):
    (window,) = plan_windows("x" * 70 + ". " + "a. " * 30, tokenizer, window=248, piece=77).windows
    assert [len(piece.own_ids) for piece in window.pieces] == [75, 56]


def test_pieces_that_cannot_be_are_refused(tokenizer):
    with pytest.raises(PromptError, match="piece is 2; it holds BOS"):
        plan_windows("a", tokenizer, piece=2)
    with pytest.raises(PromptError, match="piece is 77, which goes with context='none' only"):
        plan_windows("a", tokenizer, piece=77, context="related")
