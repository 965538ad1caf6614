"""Zero-shot: accuracies against plain counting, class folders, templates, the storybook's slots."""

import json
import re

import pytest
import torch
import toy_clip
from torch.nn.functional import normalize

from longclip_diffusers.errors import LongClipError
from longclip_diffusers.evaluation.features import encode_images, encode_texts, open_encoder
from longclip_diffusers.evaluation.slots import slot_prompts, storybook_zeroshot
from longclip_diffusers.evaluation.zeroshot import (
    class_features,
    class_folders,
    classification_rows,
    evaluate_zeroshot,
    read_classes,
    read_templates,
)
from longclip_diffusers.models import bundled
from longclip_diffusers.storybook.slots import OPENING_SLOTS, SLOTS


def open_image(file):
    try:
        return toy_clip.picture(int(file.stem))
    except ValueError:
        raise LongClipError(f"{file} is broken") from None


@pytest.fixture
def folders(tmp_path):
    """Three classes of 4, 2 and 0 pictures, a broken one and a text among them."""
    for name, pictures in (("tree_frog", ("1.png", "2.jpg", "3.png", "4.png")), ("cat", ("5.png", "x.png", "a.txt"))):
        (tmp_path / name).mkdir()
        for picture in pictures:
            (tmp_path / name / picture).touch()
    (tmp_path / "dog").mkdir()
    (tmp_path / "license.txt").touch()
    return tmp_path


def test_accuracies_are_what_counting_gives():
    generator = torch.Generator().manual_seed(0)
    classes = normalize(torch.randn(7, 16, generator=generator), dim=-1)
    labels = torch.tensor([0] * 20 + [3] * 5 + [6] * 2)
    images = normalize(classes[labels] + 0.8 * torch.randn(27, 16, generator=generator), dim=-1)
    order = (images @ classes.T).argsort(dim=1, descending=True)
    right = order == labels[:, None]
    acc1, acc5, recall = classification_rows("toy", "x", images, labels, classes)
    assert acc1.value == pytest.approx(right[:, 0].double().mean().item())
    assert acc5.value == pytest.approx(right[:, :5].any(dim=1).double().mean().item())
    assert recall.value == pytest.approx(sum(right[labels == label, 0].double().mean() for label in (0, 3, 6)) / 3)
    assert 0.2 < acc1.value < acc5.value < 1 and acc1.value != pytest.approx(recall.value)
    assert all(row.low < row.value < row.high and row.n == 27 for row in (acc1, acc5, recall))


def test_classes_of_one_feature_are_a_tie_that_nobody_wins():
    classes = torch.ones(3, 4) / 2
    rows = classification_rows("toy", "x", classes, torch.arange(3), classes)
    assert [(row.column, row.value) for row in rows] == [("x/acc1", 0), ("x/mean_per_class_recall", 0)]


def test_a_class_is_the_mean_of_its_prompts():
    encoder = toy_clip.encoder()
    features, cut = class_features(encoder.clip, encoder.tokenizer, [["a cat", "one cat"], ["x" * 99]])
    alone = encode_texts(encoder.clip, encoder.tokenizer, ["a cat", "one cat", "x" * 99]).features
    torch.testing.assert_close(features[0], normalize(alone[:2].mean(dim=0), dim=-1))
    torch.testing.assert_close(features[1], alone[2])
    assert cut == pytest.approx(1 / 3)


def test_folders_are_classes_in_order_and_their_pictures_are_found(folders):
    found = class_folders(folders)
    assert found.names == (("cat",), ("dog",), ("tree frog",))
    assert [(file.name, label) for file, label in zip(found.files, found.labels, strict=True)] == [
        ("5.png", 0),
        ("x.png", 0),
        ("1.png", 2),
        ("2.jpg", 2),
        ("3.png", 2),
        ("4.png", 2),
    ]
    part = found.sample(3, seed=1)
    assert len(part.files) == 3 and set(part.files) < set(found.files) and part.names == found.names
    assert part == found.sample(3, seed=1) and part != found.sample(3, seed=2)
    assert found.sample(100, seed=1) == found


def test_names_of_classes_may_be_given(folders):
    named = folders / "names.json"
    named.write_text(json.dumps({"cat": ["cat", "kitten"], "dog": "dog", "tree_frog": "frog"}))
    assert class_folders(folders, read_classes(named)).names == (("cat", "kitten"), ("dog",), ("frog",))
    named.write_text(json.dumps({"cat": "cat"}))
    with pytest.raises(LongClipError, match=r"does not name 2 folders of .* such as dog"):
        class_folders(folders, read_classes(named))


def test_rows_of_class_folders_are_those_of_their_features(folders):
    encoder, found, bad = toy_clip.encoder(), class_folders(folders), []
    pictures = found.readable(open_image, bad)
    templates = ("a {}.", "the " * 30 + "{}.")  # the second is too long for the toy
    result = evaluate_zeroshot([encoder], pictures, found.names, name="zoo", templates=templates, batch_size=2)
    assert [str(error) for error in bad] == [f"{folders / 'cat' / 'x.png'} is broken"]
    images = encode_images(encoder.clip, [toy_clip.picture(seed) for seed in (5, 1, 2, 3, 4)], encoder.processor)
    prompts = [[template.format(name) for template in templates] for (name,) in found.names]
    classes, _ = class_features(encoder.clip, encoder.tokenizer, prompts)
    expected = classification_rows("toy", "zoo/zeroshot", images, torch.tensor([0, 2, 2, 2, 2]), classes)
    assert [row.column for row in result.rows] == [f"{row.column}(classes=3,templates=2,n=5)" for row in expected]
    assert [row.value for row in result.rows] == [row.value for row in expected]
    assert result.truncated == {"toy": {"prompts": 0.5}}


def test_templates_take_both_spellings(tmp_path):
    file = tmp_path / "templates.txt"
    file.write_text("a photo of a {}.\n\nart of {c}\n")
    assert read_templates(file) == ("a photo of a {}.", "art of {}")


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_templates, "a photo", "'a photo' has not one {} where"),
        (read_templates, "\n", "holds no templates"),
        (read_templates, None, "cannot be read"),
        (read_classes, "[1]", "not a readable JSON object"),
        (read_classes, "{", "not a readable JSON object"),
        (read_classes, '{"cat": []}', "cat needs a name"),
        (read_classes, '{"cat": [3]}', "cat needs a name"),
    ],
)
def test_wrong_files_are_refused(tmp_path, read, content, message):
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content)
    with pytest.raises(LongClipError, match=message):
        read(file)


def test_folders_without_classes_or_pictures_are_refused(tmp_path):
    with pytest.raises(LongClipError, match="has 0 sub-folders. Expected one for each class"):  # noqa: RUF043
        class_folders(tmp_path / "nowhere")
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    with pytest.raises(LongClipError, match="no pictures in the sub-folders"):
        class_folders(tmp_path)


@pytest.mark.parametrize("slot", SLOTS, ids=lambda slot: slot.name)
def test_prompts_of_a_slots_words_differ_in_the_word_alone(slot):
    prompts = slot_prompts(slot)
    assert len(prompts) == len(slot.words)
    articles_and_numbers = {("a", "an"), ("an", "a"), ("are", "is"), (f"{slot.nouns[0]}s", slot.nouns[0])}
    for told in zip(*prompts, strict=True):
        first, *others = (re.findall(r"\w+", text.lower()) for text in told)
        for word, other in zip(slot.words[1:], others, strict=True):
            changed = {(old, new) for old, new in zip(first, other, strict=True) if old != new}
            assert changed - articles_and_numbers == {(slot.words[0], word)}


def test_bundled_clip_reads_the_slots_and_a_random_projection_does_not():
    encoder = open_encoder(bundled() / "clip")
    rows = storybook_zeroshot(encoder.clip, encoder.tokenizer, encoder.processor, 40, encoder="bundled")
    everything, opening, details = rows
    assert [row.column for row in rows] == [
        f"storybook/zeroshot/{group}/acc1(n=40)" for group in ("slots", "opening_slots", "detail_slots")
    ]
    assert (everything.n, opening.n, details.n) == (40 * 25, 40 * len(OPENING_SLOTS), 40 * 21)
    assert opening.value > 0.9 and details.value > 0.55  # .98 and .71 of 200 scenes
    assert everything.value == pytest.approx((opening.value * opening.n + details.value * details.n) / everything.n)
    assert everything.low < everything.value < everything.high
    torch.nn.init.normal_(encoder.clip.visual_projection.weight)
    (blind, *_) = storybook_zeroshot(encoder.clip, encoder.tokenizer, encoder.processor, 40)
    chance = sum(1 / len(slot.words) for slot in SLOTS) / len(SLOTS)
    assert blind.value == pytest.approx(chance, abs=0.06)
