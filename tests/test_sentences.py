import time

import pytest

from longclip_diffusers.sentences import clause_ends, sentence_ends, split_sentences, word_ends


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n\n ", []),
        ("no stop at all", ["no stop at all"]),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("a cat. the door is red. the sky", ["a cat.", "the door is red.", "the sky"]),
        ("Mr. Finch met Dr. Moss. He bowed.", ["Mr. Finch met Dr. Moss.", "He bowed."]),
        ("He lives at No. 5. She said no. The end.", ["He lives at No. 5.", "She said no.", "The end."]),
        ("It cost 3.5 pounds. Really.", ["It cost 3.5 pounds.", "Really."]),
        ("By J. R. R. Tolkien. It was I. Then on.", ["By J. R. R. Tolkien.", "It was I.", "Then on."]),
        ("The U.S. Army left at 5 p.m. The bay, e.g. the pier, was empty.",
         ["The U.S. Army left at 5 p.m.", "The bay, e.g. the pier, was empty."]),
        ("He left at 5 p.m. by boat.", ["He left at 5 p.m. by boat."]),
        ("Nets, etc. lay about. Nets, etc. Then rain.", ["Nets, etc. lay about.", "Nets, etc.", "Then rain."]),
        ("He waited... and then it came. So... Well.", ["He waited... and then it came.", "So...", "Well."]),
        ('"Stop!" he said. "I see." She left.', ['"Stop!" he said.', '"I see."', "She left."]),
        ("(It rained.) We left.", ["(It rained.)", "We left."]),
        ("Who?! Me.", ["Who?!", "Me."]),
        ("CHAPTER ONE\n\nIt was\nwrapped. Next", ["CHAPTER ONE", "It was\nwrapped.", "Next"]),
        ("A list:\n- a red door\n- a roof\n1. The sail\n2. The kite",
         ["A list:", "- a red door", "- a roof", "1. The sail", "2. The kite"]),
        ("猫は大きい。犬も!本当。「そう」", ["猫は大きい。", "犬も!", "本当。", "「そう」"]),
        ("....x", ["....x"]),
        ("Mr.", ["Mr."]),
    ],
)  # fmt: skip
def test_sentences(text, sentences):
    assert split_sentences(text) == sentences
    assert "".join("".join(sentences).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("a, b; c: d", ["a,", " b;", " c:", " d"]),
        ("1,000 at 10:30", ["1,000 at 10:30"]),
        ("boats—each painted", ["boats—", "each painted"]),
        ("wet - and well-known", ["wet -", " and well-known"]),
        ("「犬，猫、」", ["「犬，", "猫、", "」"]),
    ],
)
def test_clauses(text, clauses):
    edges = [0, *clause_ends(text), len(text)]
    assert [text[a:b] for a, b in zip(edges, edges[1:], strict=False)] == clauses  # noqa: RUF007


def test_a_word_ends_at_white_space_only():
    assert word_ends("it's 3.5 well-known\nC++") == [4, 8, 19]


@pytest.mark.parametrize("unit", [".", "5. ", "Mr. ", "\n", "\n ", " -", ",", "—", 'a."', "?!", "a"])
def test_time_is_linear_in_the_length(unit):
    text = unit * (300_000 // len(unit)) + "x"
    start = time.process_time()
    sentence_ends(text), clause_ends(text), word_ends(text)
    assert time.process_time() - start < 3  # measured .02 to .3 s; a quadratic scan takes minutes
