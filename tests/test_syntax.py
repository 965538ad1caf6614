"""How prompts may be written: what each syntax makes of a text, and what is said of one that it cannot read."""

import random
import re

import pytest
import toys

from longclip_diffusers.errors import PromptError, PromptSyntaxError
from longclip_diffusers.syntax import SYNTAXES, parse_prompt, plan_prompt
from longclip_diffusers.windows import plan_windows

SENTENCE = "A gull cried over the bay. "
PROSE = (
    'Ann (aged 40) wrote C++, well-known--very; [sic] "no" \\(x\\), and took a BREAK at 10:30 :) (x:1.3) <lora:a:1> '
    '("a", "b").blend(1, 2)'
)


def fragments(text, syntax):
    """What a prompt of one passage is parsed into: (text, weight) pairs, blank ones left out."""
    ((passage,),) = (reading.passages for reading in parse_prompt(text, syntax).readings)
    return [(words.strip(), round(weight, 6)) for words, weight in passage.fragments if words.strip()]


def passages(text, syntax):
    (reading,) = parse_prompt(text, syntax).readings
    return ["".join(words for words, _ in passage.fragments).strip() for passage in reading.passages]


def plan(text, syntax="a1111", window=77, **options):
    return plan_prompt(parse_prompt(text, syntax), toys.tokenizer(), window=window, **options)


def escaped(text):
    return re.sub(r"([\\()\[\]])", r"\\\1", text)


# ---- plain


def test_plain_takes_every_sign_as_text():
    assert fragments(PROSE, "plain") == [(PROSE, 1.0)]
    assert plan(PROSE * 9, "plain") == plan_windows(PROSE * 9, toys.tokenizer(), window=77)


# ---- a1111


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [("a cat", 1)]),
        ("a (red) cat", [("a", 1), ("red", 1.1), ("cat", 1)]),
        ("a [red] cat", [("a", 1), ("red", 1 / 1.1), ("cat", 1)]),
        ("a (red:1.3) cat", [("a", 1), ("red", 1.3), ("cat", 1)]),
        ("(red : .5 )", [("red", 0.5)]),
        ("(red:-1)", [("red", -1)]),
        ("((red))", [("red", 1.21)]),
        ("((red:1.5) car:2)", [("red", 3), ("car", 2)]),
        ("(a [b] (c:0.5):2)", [("a", 2), ("b", 2 / 1.1), ("c", 1)]),
        ("(Star Trek: the film)", [("Star Trek: the film", 1.1)]),
        ("(a ratio of 1:2 or so)", [("a ratio of 1:2 or so", 1.1)]),
        ("[a note: see below]", [("a note: see below", 1 / 1.1)]),
        ("a | b, 10:30, a cat AND a dog", [("a | b, 10:30, a cat AND a dog", 1)]),
        ("", []),
    ],
)
def test_a1111_weights(text, expected):
    assert fragments(text, "a1111") == [(words, round(weight, 6)) for words, weight in expected]


@pytest.mark.parametrize("text", ["(x)", "[x]", "((a) [b:1])", "\\", "a\\b", "\\(", "C:\\dir\\(x:1.3)"])
def test_a1111_escapes_round_trip(text):
    assert passages(escaped(text), "a1111") == [text]
    assert plan(escaped(text)).windows == plan_windows(text, toys.tokenizer(), window=77).windows


def test_a_backslash_before_other_characters_is_text():
    assert passages("a\\b (c\\d)", "a1111") == ["a\\b c\\d"]


@pytest.mark.parametrize("space", [" ", "\n", "  \n\n "])
def test_break_starts_a_window_and_is_no_token(space):
    text = f"a cat{space}BREAK{space}a dog"
    expected = plan_windows(["a cat", "a dog"], toys.tokenizer(), window=77)
    assert plan(text).windows == expected.windows
    assert [window.text for window in expected.windows] == ["a cat", "a dog"]


def test_break_is_a_word_of_its_own_in_capitals():
    assert len(plan("BREAKFAST, a break, BREAKS, DAY_BREAK").windows) == 1


def test_a_bracket_goes_on_behind_break():
    first, second = plan("a (b BREAK c:1.5) d").windows
    assert (first.weights, second.weights) == ((1.0, 1.5), (1.5, 1.0))


def test_windows_are_cut_where_plain_cuts_them():
    plain = plan_windows(SENTENCE * 12, toys.tokenizer(), window=77)
    weighted = plan(SENTENCE * 3 + f"({SENTENCE * 4}:1.3) [{SENTENCE}]" + SENTENCE * 4)
    assert [window.ids for window in weighted.windows] == [window.ids for window in plain.windows]
    assert [window.cut for window in weighted.windows] == [window.cut for window in plain.windows]


@pytest.mark.parametrize("context", ["none", "related"])
def test_a_weight_is_that_of_the_tokens_inside_the_bracket(context):
    words = SENTENCE.split() * 12
    marked = [f"({word}:1.5)" if index % 7 == 3 else word for index, word in enumerate(words)]
    made = plan(" ".join(marked), context=context)
    lengths = [len(word) for word in words]  # the toy tokenizer makes a token of each letter
    expected = [1.5 if index % 7 == 3 else 1.0 for index, length in enumerate(lengths) for _ in range(length)]
    weights = [weight for window in made.windows for weight in window.weights or [1.0] * len(window.own_ids)]
    assert weights == expected


def test_pieces_have_the_weights_of_their_tokens():
    made = plan(SENTENCE * 3 + f"({SENTENCE}:2)" + SENTENCE * 3, window=248, piece=77)
    (window,) = made.windows
    assert len(window.pieces) > 2
    pieces = [weight for piece in window.pieces for weight in piece.weights or [1.0] * len(piece.own_ids)]
    assert tuple(pieces) == window.weights
    assert pieces.count(2.0) == 21


def test_a_bracket_inside_a_word_weighs_the_token_that_it_touches():
    tokenizer = toys.real_tokenizer()
    for text in ("a ca(ts:1.3)", "a (ca:1.3)ts", "a c(at:1.3)s"):
        (window,) = plan_prompt(parse_prompt(text, "a1111"), tokenizer, window=77).windows
        assert window.ids == tuple(tokenizer("a cats").input_ids)
        assert window.weights == (1.0, 1.3)


def test_weighted_text_is_normalised_in_its_stretches():
    text = "it’s (caf&eacute;:1.2) “here”  (ﬁne)"
    (window,) = plan(text).windows
    assert window.text == 'it\'s café "here"  fine'
    assert [weight for weight in window.weights if weight != 1] == [1.2] * 5 + [1.1] * 4  # é is two bytes


def test_full_width_brackets_and_entities_are_text():
    assert not any(window.weights for window in plan("（a） &#40;b&#41;").windows)


def test_the_report_says_what_is_weighted():
    assert "9 tokens, 4 weighted 0.5 to 1.3;" in str(plan("(ab:1.3) cde [f] (g:0.5) hi"))
    blend = str(plan('("a cat", "a dog++").blend(3, 1)', "compel"))
    assert blend.splitlines()[0].startswith("0.75 of: 4 tokens in 1 window")
    assert "0.25 of: 4 tokens in 1 window" in blend
    assert "the whole weighted 0.5" in str(plan('("a", "b").and(1, 0.5)', "compel"))


# ---- compel


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red++ cat", [("a", 1), ("red", 1.21), ("cat", 1)]),
        ("a (red car)1.3 b", [("a", 1), ("red car", 1.3), ("b", 1)]),
        ("(a (b)1.2 c)0.5", [("a", 0.5), ("b", 0.6), ("c", 0.5)]),
        ("\\(a\\) b--", [("(a)", 1), ("b", 0.81)]),
        ("", []),
    ],
)
def test_compel_weights_are_compels(text, expected):
    assert fragments(text, "compel") == expected


def test_compel_blends_have_shares_and_conjunctions_windows():
    blend = parse_prompt('("a cat", "a dog").blend(3, 1)', "compel")
    assert [reading.share for reading in blend.readings] == [0.75, 0.25]
    raw = parse_prompt('("a cat", "a dog").blend(3, 1, no_normalize)', "compel")
    assert [reading.share for reading in raw.readings] == [3, 1]
    made = plan('("a cat", "a dog").and(1, 0.5)', "compel")
    assert [(window.text, window.share) for window in made.windows] == [("a cat", 1), ("a dog", 0.5)]
    assert plan('("a cat", "a dog").blend(3, 1)', "compel").num_tokens == 8


def test_compels_grammar_bears_nested_brackets():
    # Without memory each level costs four times the one inside it: this would take a day.
    assert fragments("(" * 16 + "a" + ")1.1" * 16, "compel") == [("a", round(1.1**16, 6))]


# ---- complaints


A1111_MISTAKES = [
    ("a (red cat", "(red", "never closed"),
    ("a [red cat", "[red", "never closed"),
    ("a red) cat", ") cat", "closes nothing"),
    ("a (red] cat)", "] cat", r"does not close \("),
    ("a (b [c) d]", ") d", r"does not close \["),
    ("a (b\\) c", "(b", "never closed"),
    ("a (red:high) cat", "high", "'high' is no number"),
    ("a (red:1,3) cat", "1,3", "'1,3' is no number"),
    ("a (red:1.3.4) cat", "1.3.4", "is no number"),
    ("a (red:) cat", ") cat", "'' is no number"),
    ("a (red:nan) cat", "nan", "is no number"),
    ("a (red:1e3) cat", "1e3", "is no number"),
    ("a (b: 1.x) c", " 1.x", "is no number"),
    ("a () cat", "() cat", "nothing in this bracket"),
    ("a (:1.3) cat", "(:1.3", "nothing in this bracket"),
    ("a [  ] cat", "[  ]", "nothing in this bracket"),
    ("a [red:blue:0.5] cat", ":0.5", "schedule"),
    ("a [red:0.5] cat", ":0.5", "schedule"),
    ("a [red|blue] cat", "|blue", "Alternation"),
    ("a <lora:fine:0.8> cat", "<lora", "load_lora_weights"),
    ("BREAK a cat", "BREAK", "no text before this BREAK"),
    ("a cat BREAK", "BREAK", "no text behind this BREAK"),
    ("a BREAK \n BREAK b", "BREAK b", "no text before this BREAK"),
    (f"a (b:{'9' * 400})", "(b", "no finite product"),
    ("((" * 9_000 + "a" + "))" * 9_000, None, "no finite product"),
]
COMPEL_MISTAKES = [
    ("a (red cat", "(red", "never closed"),
    ("a red)++ cat", ")++", "closes nothing"),
    ("a \\(red)++ cat", ")++", "closes nothing"),
    ('("a", "b").blend(1, 2, 3)', ".blend", "compel refuses"),
    ('("a", "b").blend(x, y)', ".blend", "compel refuses"),
    ('("a", "b").blend(1, -1)', ".blend", "add up to 0"),
    ('("a","b,c").blend(1, 1) tail', "tail", "nothing may follow"),
    ('("a", "b").and() tail', "tail", "nothing may follow"),
    ('head ("a", "b").blend(1, 1)', ".blend", "takes it for text"),
    ("(a).attend(x)", ".attend", "takes it for text"),
    ("a cat.swap(dog) runs", ".swap", "not read"),
    ("withLora(fine, 0.5) a cat", "withLora", "load_lora_weights"),
    ('("a", "").and()', ".and", "is empty"),
    ("()", "()", "nothing in these brackets"),
    (f"(a){'9' * 400}", "999", "too large"),
    ("(" * 900 + "a" + ")" * 900, None, "nested deeper"),
]
MISTAKES = [
    *(("a1111", *mistake) for mistake in A1111_MISTAKES),
    *(("a1111-mean", *mistake) for mistake in A1111_MISTAKES[:1]),
    *(("compel", *mistake) for mistake in COMPEL_MISTAKES),
]


@pytest.mark.parametrize(("syntax", "text", "at", "message"), MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_is_shown_with_a_caret_under_it(syntax, text, at, message):
    with pytest.raises(PromptSyntaxError, match=message) as caught:
        parse_prompt(text, syntax)
    _, line, caret = str(caught.value).split("\n")
    assert len(line) < 100
    assert caret.strip() == "^"
    if at is not None:
        behind = line[len(caret) - 1 :].removesuffix("...")
        assert behind
        assert behind == text[text.find(at) :][: len(behind)].replace("\n", " ")
        assert behind.startswith(at[: len(behind)])


def test_the_line_around_a_mistake_is_cut_and_the_caret_keeps_its_place():
    text = "first line\n" + "x " * 60 + "日本 (unclosed " + "y " * 60 + "\nlast"
    with pytest.raises(PromptSyntaxError) as caught:
        parse_prompt(text, "a1111")
    _, line, caret = str(caught.value).split("\n")
    assert line.strip().startswith("...") and line.endswith("...")
    assert "first" not in line and "last" not in line
    assert line.index("(") + 2 == len(caret) - 1  # two wide characters stand before it


def test_any_text_is_read_or_refused():
    # Never another error than ours, and never a sign lost that was no syntax.
    pieces = [
        "a",
        " ",
        "(",
        ")",
        "[",
        "]",
        ":",
        "1.3",
        "\\",
        "BREAK",
        "++",
        "-",
        ",",
        '"',
        ".and()",
        ".blend(1)",
        "é",
        "\n",
    ]
    generator = random.Random(0)
    for _ in range(400):
        text = "".join(generator.choices(pieces, k=generator.randint(1, 9)))
        for syntax in SYNTAXES:
            try:
                parse_prompt(text, syntax)
            except PromptSyntaxError as error:
                assert str(error).count("\n") == 2, text


def test_unknown_syntax_and_what_is_no_text_are_refused():
    with pytest.raises(PromptError, match="syntax is 'webui'; it can be 'plain', 'a1111', 'a1111-mean' or 'compel'"):
        parse_prompt("a", "webui")
    for syntax in SYNTAXES:
        with pytest.raises(PromptError, match="A prompt is a str, not int"):
            parse_prompt(3, syntax)
