import random
import time

import pytest
import toys

from longclip_diffusers.context import MAX_RELATED, related_sentences
from longclip_diffusers.windows import plan_windows

FILLER = [f"Folk {a} talked {b} of {c}." for a, b, c in zip("pqrstuvw", "abcdefgh", "ijklmnop", strict=True)]


def chosen(sentences, span, *, limit=100, length=10):
    return related_sentences(sentences, [length] * len(sentences), [span], limit=limit)[0]


def test_a_rare_word_finds_its_sentence_and_the_ones_just_before_fill_the_room():
    sentences = ["The roof is green.", *FILLER, "The door is as green as the roof."]
    last = len(sentences) - 1
    assert chosen(sentences, (last, last + 1), limit=20) == (0,)
    assert chosen(sentences, (last, last + 1), limit=40) == (0, last - 2, last - 1)
    assert chosen(sentences, (last, last + 1), limit=19) == ()


def test_the_rarer_word_wins_and_between_equals_the_sentence_that_introduced_it():
    sentences = ["a mill", "a mast", "a kite", "a mast", "mill and mast"]
    assert chosen(sentences, (4, 5), limit=20) == (0,)  # "mill" has two holders, "mast" three
    sentences = ["a mast", "a mast", "a kite", "the mast"]
    assert chosen(sentences, (3, 4), limit=20) == (0,)


def test_where_a_word_stands_again_it_weighs_a_quarter():
    sentences = ["a mast", "a kite", "mast mill", "kite mill", *FILLER, "mast and mill"]
    last = len(sentences) - 1
    # "mast" stands first in 0 (1/3), again in 2 (1/12), "mill" first in 2 (1/3), again in 3 (1/12).
    assert chosen(sentences, (last, last + 1), limit=20) == (2,)
    assert chosen(sentences, (last, last + 1), limit=30) == (0, 2)


def test_at_most_four_related_sentences_then_the_last_ones():
    words = ["kite", "mill", "mast", "door", "oar"]
    sentences = [*(f"{word} {index}" for index, word in enumerate(words)), *FILLER, "kite mill mast door oar"]
    last = len(sentences) - 1
    related = chosen(sentences, (last, last + 1), limit=10 * (1 + MAX_RELATED))
    assert related == (0, 1, 2, 3)
    assert chosen(sentences, (last, last + 1), limit=10 * (3 + MAX_RELATED)) == (0, 1, 2, 3, last - 2, last - 1)


def test_a_sentence_that_begins_with_a_pronoun_asks_for_one_related_sentence_and_more_of_the_last():
    sentences = ["a kite", "a mill", *FILLER, "it was like the kite and the mill"]
    last = len(sentences) - 1
    assert chosen(sentences, (last, last + 1), limit=40) == (0, last - 2, last - 1)
    sentences[-1] = "the kite and the mill and it"
    assert chosen(sentences, (last, last + 1), limit=40) == (0, 1, last - 1)


def test_each_sentence_of_a_span_has_its_own_choices_the_first_before_any_second():
    sentences = ["a kite", "kite kite", "a mill", "mill mill", *FILLER, "the kite", "the mill"]
    last = len(sentences) - 1
    assert chosen(sentences, (last - 1, last + 1), limit=40) == (0, 2)


def test_of_a_word_that_many_sentences_hold_the_first_alone_counts():
    sentences = ["x", *["the sky"] * 5, *FILLER, "the sky"]
    last = len(sentences) - 1
    assert chosen(sentences, (last, last + 1), limit=30) == (1, last - 1)


@pytest.mark.parametrize(("num_holders", "is_rare"), [(6, True), (32, True), (33, False)])
def test_in_a_long_text_a_word_is_rare_up_to_32_sentences(num_holders, is_rare):
    sentences = [*["a kite"] * (num_holders - 1), *(f"x{index} y{index}" for index in range(1000)), "the kite"]
    last = len(sentences) - 1
    assert chosen(sentences, (last, last + 1), limit=30) == ((0, 1) if is_rare else (0, last - 1))


def test_an_answer_asks_for_what_its_question_asks_for_and_is_read_behind_it():
    sentences = ["a mill", "a kite", *FILLER, "What of the kite and the mill?", "None."]
    last = len(sentences) - 1
    assert chosen(sentences, (last, last + 1), limit=40) == (0, 1, last - 1)
    sentences[-2] = "So much of the kite and the mill."
    assert chosen(sentences, (last, last + 1), limit=40) == (last - 3, last - 2, last - 1)


def test_a_name_asks_before_other_words():
    sentences = ["the kite and the mill", "all of that was for Ada", "then Ada", *FILLER, "kite mill of Ada"]
    last = len(sentences) - 1
    assert chosen(sentences, (last, last + 1), limit=20) == (1,)
    sentences[1:3] = "all of that was for ada", "then ada"
    sentences[-1] = "kite mill of ada"
    assert chosen(sentences, (last, last + 1), limit=20) == (0,)


def test_words_of_grammar_relate_nothing():
    sentences = ["it was there before all these", "a kite", *FILLER, "the kite was before them all these days"]
    last = len(sentences) - 1
    assert chosen(sentences, (last, last + 1), limit=20) == (1,)
    assert chosen(sentences, (last, last + 1), limit=30) == (1, last - 1)


@pytest.mark.parametrize("asked", ["kite", "green"])
def test_a_question_is_read_with_its_answer_whichever_was_asked_for(asked):
    sentences = ["a mill", "What of the kite?", "Green, I say.", *FILLER, f"so {asked} too"]
    last = len(sentences) - 1
    assert chosen(sentences, (last, last + 1), limit=30) == (1, 2)
    sentences[1] = "What of the kite."
    assert chosen(sentences, (last, last + 1), limit=30) == ((1 if asked == "kite" else 2), last - 1)


def test_an_answer_of_the_windows_own_is_no_context():
    sentences = ["a mill", *FILLER, "What of the mill?", "a mill"]
    last = len(sentences) - 1
    assert chosen(sentences, (last - 1, last), limit=20) == (0,)


def test_a_plural_finds_its_singular_and_case_does_not_matter():
    sentences = ["A Sail hung.", *FILLER, "the sails fell"]
    assert chosen(sentences, (9, 10), limit=20) == (0,)


def test_a_related_sentence_that_does_not_fit_is_passed_over_the_nearest_that_does_not_ends_the_run():
    sentences = ["kite", "mill", "x", "y", "kite and mill"]
    assert related_sentences(sentences, [50, 5, 5, 5, 5], [(4, 5)], limit=20) == [(1, 2, 3)]
    assert related_sentences(sentences, [1, 1, 1, 50, 5], [(4, 5)], limit=20) == [(0, 1)]


def test_the_words_of_a_whole_span_count():
    sentences = ["a kite", "a mill", *FILLER, "the kite", "the mill"]
    assert chosen(sentences, (10, 12), limit=40) == (0, 1)


def test_only_earlier_sentences_that_fit_are_chosen():
    draw = random.Random(0)
    sentences = [" ".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(200)]
    lengths = [draw.randrange(1, 30) for _ in sentences]
    spans = [(index, index + draw.randrange(1, 3)) for index in range(198)]
    for (start, stop), found in zip(spans, related_sentences(sentences, lengths, spans, limit=75), strict=True):
        assert list(found) == sorted(set(found))
        assert all(index < start for index in found)
        assert not found or sum(lengths[index] for index in found) + sum(lengths[start:stop]) <= 75


def test_the_work_grows_with_the_text_not_with_its_square():
    def seconds(number):
        sentences = [f"word{index % (number // 30)} of the {index % 97} boats" for index in range(number)]
        start = time.process_time()
        related_sentences(sentences, [10] * number, [(index, index + 1) for index in range(number)], limit=75)
        return time.process_time() - start

    assert seconds(20_000) < 10  # measured .6 s; all pairs of 20,000 sentences take minutes


@pytest.fixture(scope="module")
def tokenizer():
    return toys.real_tokenizer()


def story():
    return "The roof is green. " + " ".join(FILLER * 2) + " The door has the colour of the roof."


def test_a_late_sentence_is_read_behind_its_antecedent_and_alone_gives_rows(tokenizer):
    plan = plan_windows(story(), tokenizer, window=40, context="related")
    last = plan.windows[-1]
    assert last.text == "The door has the colour of the roof."
    assert last.context[0] == "The roof is green."
    text = " ".join([*last.context, last.text])
    assert list(last.ids) == tokenizer(text).input_ids
    assert last.num_context == len(last.ids) - 2 - len(tokenizer(last.text, add_special_tokens=False).input_ids)
    assert 'read behind: "The roof is green."' in str(plan)


def test_the_first_window_is_filled_and_later_ones_hold_one_sentence(tokenizer):
    plain = plan_windows(story(), tokenizer, window=40)
    plan = plan_windows(story(), tokenizer, window=40, context="related")
    assert plan.windows[0] == plain.windows[0]
    assert len(plain.windows) < len(plan.windows)
    assert all(window.text.count(".") == 1 for window in plan.windows[1:])


def test_very_short_sentences_share_a_window(tokenizer):
    text = "One. Two. " * 40
    plan = plan_windows(text, tokenizer, window=77, context="related")  # two tokens each, at most 9 together
    assert {window.text.count(".") for window in plan.windows[1:-1]} == {4}


def test_a_text_that_fits_one_window_is_one_window(tokenizer):
    text = "The roof is green. The door has the colour of the roof."
    plan = plan_windows(text, tokenizer, window=77, context="related")
    assert plan.windows == plan_windows(text, tokenizer, window=77).windows


def test_a_sentence_longer_than_a_window_leaves_room_for_context(tokenizer):
    plan = plan_windows("word " * 300 + ". The end.", tokenizer, window=42, context="related")
    assert all(window.num_context > 0 for window in plan.windows[1:])


def test_texts_of_a_list_are_no_context_for_each_other(tokenizer):
    plan = plan_windows(["The roof is green.", "The door has the colour of the roof."], tokenizer, context="related")
    assert [window.num_context for window in plan.windows] == [0, 0]
