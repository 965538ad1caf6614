"""Windows of a prompt that ComfyUI's own tokenizer read: nothing lost, cut where a reader would pause."""

from itertools import chain

import comfyui_stand_in
import pytest
from comfyui_stand_in import Clip, fragments

from longclip_diffusers.comfyui import prompts
from longclip_diffusers.comfyui.prompts import Fragment, empty_windows, plan_prompt, read_fragments
from longclip_diffusers.errors import ModelError, PromptError

PROSE = "Mr. Fox ran, and ran. The hen slept! It was late; nobody saw. " * 4
ROOF = "The roof is violet and steep. A dog barks at a passing cart. A hen naps in the sun. The door is like the roof."


@pytest.fixture(autouse=True)
def parser(monkeypatch):
    monkeypatch.setattr(prompts, "_fragments", fragments)


def plan(text, clip=None, split="sentence", **options):
    return plan_prompt(clip or Clip(l=32), text, split=split, **options)


def letters(made, tower="l"):
    items = (position[tower] for window in made.windows for position in window.own_ids if tower in position)
    return "".join(chr(token) for token, _ in items)


def texts(made):
    return [window.text for window in made.windows]


@pytest.mark.parametrize("split", ["sentence", "paragraph", "token"])
@pytest.mark.parametrize(
    "text",
    ["", " \n", "a", PROSE, "x" * 99, "no stop at all " * 9, "猫は大きい。犬も！「そう」、" * 9, "a (b c:1.2) d." * 9],
)
def test_every_token_is_in_one_window_in_order(text, split):
    made = plan(text, split=split)
    assert letters(made) == "".join("".join(part.text for part in fragments(text)).split())
    assert all(len(window.own_ids) <= 30 for window in made.windows)
    assert made.windows


def test_windows_end_with_sentences_and_the_report_has_a_line_for_each():
    made = plan("Mr. Fox ran, and then ran. The hen slept! It was late.")
    assert texts(made) == ["Mr. Fox ran, and then ran.", "The hen slept! It was late."]
    assert [window.cut for window in made.windows] == ["sentence", "end"]
    assert [line.split(":")[0] for line in str(made).splitlines()[1:]] == ["window 1", "window 2"]


def test_paragraphs_are_kept_together_where_they_fit():
    text = "One fox. Two.\n\nThree hens. Four more hens.\n\nFive."
    assert texts(plan(text, split="paragraph")) == ["One fox. Two.", "Three hens. Four more hens.\n\nFive."]
    assert texts(plan(text)) == ["One fox. Two.\n\nThree hens.", "Four more hens.\n\nFive."]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a photo, embedding: cat now", ["a", "photo,", "embedding:cat", "now"]),
        ("(embedding:  cat) embedding:dog", ["(embedding:cat)", "embedding:dog"]),
        ("so much for embedding:", ["so", "much", "for", ""]),  # core fails for want of a name
    ],
)
def test_a_space_behind_embedding_is_left_out_as_core_does(text, words):
    heard = []

    def tokenize(word):
        heard.append(word)
        return {"l": [(ord(letter), 1.0) for letter in word]}

    read_fragments([Fragment(text)], tokenize)
    assert heard == words


def test_break_starts_a_window_and_is_no_word():
    made = plan("One fox. BREAK Two BREAK BREAK three, breakfast BREAKERS")
    assert texts(made) == ["One fox.", "Two", "three, breakfast BREAKERS"]
    assert letters(made) == "Onefox.Twothree,breakfastBREAKERS"
    assert letters(plan("a BREAK b", split="token")) == "aBREAKb"


def test_weights_are_those_of_the_fragments_and_break_cuts_inside_brackets():
    made = plan("a (b BREAK c:1.5) d")
    assert texts(made) == ["a b", "c d"]
    weights = [next(iter(position.values()))[1] for window in made.windows for position in window.own_ids]
    assert weights == [1.0, 1.5, 1.5, 1.0]


def test_brackets_that_fit_a_window_are_not_cut():
    inside = "one. two. three"
    made = plan(f"A long start of text. ({inside}:1.2) and the end.")
    assert texts(made) == ["A long start of text.", f"{inside} and the end."]


def test_brackets_longer_than_a_window_are_cut_at_their_sentences():
    made = plan("(The first sentence is here. The second sentence is there.:1.2)")
    assert texts(made) == ["The first sentence is here.", "The second sentence is there."]


def test_token_cuts_where_the_window_is_full():
    made = plan("aaaa " * 10, split="token")
    assert [len(window.own_ids) for window in made.windows] == [30, 10]
    assert [window.cut for window in made.windows] == ["full", "end"]


def test_a_text_without_white_space_is_cut_at_its_sentences():
    assert texts(plan("猫は大きい。犬も小さい。" * 3, Clip(l=22))) == [
        "猫は大きい。犬も小さい。猫は大きい。",
        "犬も小さい。猫は大きい。犬も小さい。",
    ]


def test_two_towers_share_every_window_and_count_once():
    clip = Clip(l=32, g=32)
    made = plan(PROSE, clip)
    assert letters(made, "l") == letters(made, "g") == "".join(PROSE.split())
    assert made.num_tokens == len("".join(PROSE.split()))


def test_an_embedding_that_one_tower_lacks_takes_the_other_s_place_and_is_not_cut():
    clip = Clip(l=12, g=12)
    made = plan("aaaa bbb <cdef> gg", clip)
    assert texts(made) == ["aaaa bbb", "<cdef> gg"]
    assert (letters(made, "l"), letters(made, "g")) == ("aaaabbbcdefgg", "aaaabbbgg")


def test_related_reads_late_sentences_behind_the_ones_they_share_words_with():
    clip = Clip(l=60)
    text = ROOF
    made = plan(text, clip, context="related")
    assert letters(made) == "".join(text.split())
    assert made.windows[-1].text.endswith("The door is like the roof.")
    assert any("violet" in passage for passage in made.windows[-1].context)


def test_the_shortest_tower_sets_the_windows():
    assert plan("a", Clip(l=64, g=32)).window == 32


def test_a_word_is_tokenised_once_and_its_brackets_are_text():
    asked = []

    def tokenize(word):
        asked.append(word)
        return {"l": [(letter, 1.0) for letter in word]}

    tokens = read_fragments([Fragment("a (b"), Fragment("c)", 1.3, bracket=1)], tokenize)
    assert asked == ["a", "(b", "c)"]
    assert [position["l"] for position in tokens.ids] == [
        *[(letter, 1.0) for letter in "a(b"],
        *[(letter, 1.3) for letter in "c)"],
    ]


def test_word_tokens_have_no_specials():
    tokenize = prompts._word_tokenizer(Clip(l=32))
    assert tokenize("(ab)") == {"l": [(ord(letter), 1.0) for letter in "(ab)"]}
    assert len(tokenize("x" * 99)["l"]) == 99


def test_empty_windows():
    assert {tower: len(window) for tower, window in empty_windows(Clip(l=32, g=16)).items()} == {"l": 32, "g": 16}
    with pytest.raises(ModelError, match="no CLIP tower"):
        empty_windows(Clip(others=("t5xxl",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "word"}, "split is 'word'"),
        ({"context": "all"}, "context 'all'"),
        ({"split": "token", "context": "related"}, 'choose split="sentence"'),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(PromptError, match=message):
        plan("a", **options)


def test_two_thousand_words_take_a_moment():
    asked = []
    clip = Clip(l=77)
    tokenize = clip.tokenize
    clip.tokenize = lambda text, **options: asked.append(text) or tokenize(text, **options)
    made = plan(PROSE * 40, clip)
    assert letters(made) == "".join((PROSE * 40).split())
    assert len(asked) < 40  # each word once, and the empty prompt
    assert list(chain(*[window.text.split() for window in made.windows])) == (PROSE * 40).split()


def test_stand_in_is_what_it_says():
    assert comfyui_stand_in.fragments("a (b:2) c") == [Fragment("a "), Fragment("b", 2.0, 1), Fragment(" c")]
