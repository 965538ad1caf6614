"""Every SPEC gives back the tiny set that was written, and every unusable one is told what is wrong with it."""

import csv
import io
import json
import pickle
import sys
import tarfile
import warnings
from pathlib import Path

import datasets
import pytest
from PIL import Image

from longclip_diffusers import LongClipError
from longclip_diffusers.training.data import BadSample, open_data
from longclip_diffusers.training.data.tars import expand

# Caption, the short caption that the data holds, red of the one-colour picture.
ROWS = [
    ("Mr. X has a dog. It is No. 5, of six.", "", 10),
    ("The “sky”, é ☕, is red. A cat sleeps.", "a red sky", 20),
    ("One sentence only.", "", 30),
]
EXPECTED = [
    ("Mr. X has a dog. It is No. 5, of six.", "Mr. X has a dog.", (10, 0, 0)),
    ("The “sky”, é ☕, is red. A cat sleeps.", "a red sky", (20, 0, 0)),
    ("One sentence only.", "One sentence only.", (30, 0, 0)),
]
FIRST_SENTENCES = [
    (caption, short.replace("a red sky", "The “sky”, é ☕, is red."), red) for caption, short, red in EXPECTED
]


def picture(red):
    return Image.new("RGB", (2, 2), (red, 0, 0))


def png(red):
    buffer = io.BytesIO()
    picture(red).save(buffer, format="PNG")
    return buffer.getvalue()


def pictures(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for number, (_, _, red) in enumerate(ROWS):
        picture(red).save(folder / f"{number}.png")


def records():
    return [
        {"image": f"pictures/{number}.png", "caption": caption, "short_caption": short or None}
        for number, (caption, short, _) in enumerate(ROWS)
    ]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8-sig")
    return path


def write_csv(path, rows, **options):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, **options)
        writer.writerows(rows)
    return path


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def contents(spec):
    """What the data gives, after a trip through pickle as to a worker process that is not a fork."""
    data = pickle.loads(pickle.dumps(open_data(str(spec))))
    assert data.name == str(spec)
    samples = [data[index] for index in range(len(data))]
    for index in (-1, len(data)):
        with pytest.raises(IndexError):
            data[index]
    assert all((sample.image is not None) == data.has_images for sample in samples)
    return [
        (sample.caption, sample.short_caption, sample.image and sample.image.getpixel((1, 1))) for sample in samples
    ]


def texts_of(expected):
    return [(caption, short, None) for caption, short, _ in expected]


@pytest.mark.parametrize("kind", ["folder:", ""])
def test_folder(tmp_path, kind):
    pictures(tmp_path / "b")
    for number, (caption, _, _) in enumerate(ROWS):
        (tmp_path / "b" / f"{number}.txt").write_text(f"{caption}\n", encoding="utf-8")
    (tmp_path / ".hidden").mkdir()
    picture(99).save(tmp_path / ".hidden" / "a.png")
    assert contents(f"{kind}{tmp_path}") == FIRST_SENTENCES
    picture(5).save(tmp_path / "a.JPG")
    with pytest.warns(UserWarning, match=r"1 pictures have no \.txt and are left out, the first is a\.JPG"):
        data = open_data(str(tmp_path))
    assert len(data) == 3
    (tmp_path / "a.txt").write_text("Sorted by path.", encoding="utf-8")
    assert contents(tmp_path)[0][:2] == ("Sorted by path.", "Sorted by path.")


def test_folder_laid_out_as_urban1k(tmp_path):
    pictures(tmp_path / "image")
    (tmp_path / "caption").mkdir()
    for number, (caption, _, _) in enumerate(ROWS):
        (tmp_path / "caption" / f"{number}.txt").write_text(caption, encoding="utf-8")
    assert contents(f"folder:{tmp_path}") == FIRST_SENTENCES


@pytest.mark.parametrize("kind", ["jsonl:", ""])
def test_jsonl(tmp_path, kind):
    pictures(tmp_path / "pictures")
    assert contents(f"{kind}{write_jsonl(tmp_path / 'a.jsonl', records())}") == EXPECTED


def test_jsonl_of_texts_alone_with_several_captions(tmp_path):
    rows = [{"id": 1, "text": [caption, "another"]} for caption, _, _ in ROWS]
    assert contents(write_jsonl(tmp_path / "a.jsonl", rows)) == texts_of(FIRST_SENTENCES)


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
@pytest.mark.parametrize("kind", ["csv:", ""])
def test_csv(tmp_path, name, delimiter, kind):
    pictures(tmp_path / "pictures")
    header = list(records()[0])
    path = write_csv(tmp_path / name, [header, *(row.values() for row in records())], delimiter=delimiter)
    assert contents(f"{kind}{path}") == EXPECTED


def test_csv_as_open_clip_writes_it(tmp_path):
    pictures(tmp_path / "pictures")
    rows = [(str(tmp_path / row["image"]), row["caption"]) for row in records()]  # absolute paths
    path = write_csv(tmp_path / "a.csv", [("filepath", "title"), *rows], delimiter="\t")
    assert contents(path) == FIRST_SENTENCES


@pytest.mark.parametrize("kind", ["txt:", ""])
def test_txt(tmp_path, kind):
    path = tmp_path / "a.txt"
    path.write_bytes("\r\n \r\n".join(caption for caption, _, _ in ROWS).encode())
    assert contents(f"{kind}{path}") == texts_of(FIRST_SENTENCES)


def sharegpt4v_rows():
    return [
        {
            "id": number,
            "image": row["image"],
            "conversations": [
                {"from": "human", "value": "What is it?\n<image>"},
                {"from": "gpt", "value": row["caption"].replace(" It", "\nIt")},
            ],
        }
        for number, row in enumerate(records())
    ]


def test_sharegpt4v(tmp_path):
    pictures(tmp_path / "root" / "pictures")
    path = tmp_path / "a.json"
    path.write_text(json.dumps(sharegpt4v_rows()), encoding="utf-8")
    assert contents(f"sharegpt4v:{path}:{tmp_path / 'root'}") == FIRST_SENTENCES


def test_the_colon_of_a_drive_parts_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # on Windows the same two are absolute paths
    pictures(tmp_path / r"D:\root" / "pictures")
    Path(r"C:\a.json").write_text(json.dumps(sharegpt4v_rows()), encoding="utf-8")
    assert contents(r"sharegpt4v:C:\a.json:D:\root") == FIRST_SENTENCES


def tars(folder):
    """Three shards: a text, a JSON beside a text, a JSON alone, in folders of the tar and with other files between."""
    first, second, third = ((caption, short, png(red)) for caption, short, red in ROWS)
    members = [
        [("d/x.0.png", b"a mask, not the picture"), ("d/x.png", first[2]), ("d/x.txt", first[0].encode())],
        [
            ("y.txt", second[0].encode()),
            ("y.PNG", second[2]),
            ("y.json", json.dumps({"width": 2, "short_caption": second[1]}).encode()),
        ],
        [("z.json", json.dumps({"caption": third[0]}).encode()), ("z.webp", third[2])],
    ]
    for number, shard in enumerate(members, 9):
        write_tar(folder / f"s-{number:03}.tar", shard)
    return folder


@pytest.mark.parametrize(
    "pattern", ["wds:{}/s-{{009..011}}.tar", "{}/s-{{009..011}}.tar", "wds:{}/s-*.tar", "wds:{}", "{}"]
)
def test_webdataset(tmp_path, pattern):
    assert contents(pattern.format(tars(tmp_path))) == EXPECTED


def test_braces_and_stars_are_expanded_in_order(tmp_path):
    for name in ("a-9", "a-10", "b-9", "b-10"):
        (tmp_path / f"{name}.tar").touch()
    assert [path.stem for path in expand(f"{tmp_path}/{{b,a}}-{{9..10}}.tar")] == ["b-9", "b-10", "a-9", "a-10"]
    assert [path.stem for path in expand(f"{tmp_path}/{{b,a}}-*.tar")] == ["b-10", "b-9", "a-10", "a-9"]


def hub_rows(column="image"):
    cells = {column: [{"bytes": png(red), "path": None} for *_, red in ROWS]}
    cells |= {"long_caption": [[caption, "another"] for caption, _, _ in ROWS]}
    cells |= {"short_caption": [short or None for _, short, _ in ROWS]}
    features = {
        column: datasets.Image(),
        "long_caption": datasets.Sequence(datasets.Value("string")),
        "short_caption": datasets.Value("string"),
    }
    return datasets.Dataset.from_dict(cells, features=datasets.Features(features))


def test_hub_data_written_by_save_to_disk(tmp_path):
    hub_rows("photo").save_to_disk(tmp_path / "one")
    for spec in (f"hf:{tmp_path / 'one'}", str(tmp_path / "one")):
        assert contents(spec) == EXPECTED
    datasets.DatasetDict(test=hub_rows(), val=hub_rows().select([1])).save_to_disk(tmp_path / "two")
    assert contents(f"hf:{tmp_path / 'two'}:test") == EXPECTED
    assert contents(f"hf:{tmp_path / 'two'}:val") == EXPECTED[1:2]
    with pytest.raises(LongClipError, match=r"two has no split 'train'\. There are: test, val\. Say hf:NAME:SPLIT"):
        open_data(f"hf:{tmp_path / 'two'}")


def test_hub_data_in_a_folder_of_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    hub_rows().to_parquet(tmp_path / "set" / "train.parquet")
    assert contents(tmp_path / "set") == EXPECTED


def test_hub_data_needs_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(LongClipError, match=r'hf:any is read .* pip install "longclip-diffusers\[train\]"'):
        open_data("hf:any")


def test_the_storybook_depends_on_its_seed():
    first, again, other = (open_data("storybook", seed=seed) for seed in (1, 1, 2))
    assert first[7] == again[7] != other[7]
    assert first[7] != first[8]
    assert pickle.loads(pickle.dumps(first))[7] == first[7]
    assert first[7].image.size == (128, 128)
    assert not first.workers_help


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "nowhere: this does not exist and names no kind. Expected storybook, folder:DIR"),
        ("owner/name", "does not exist and names no kind"),
        ("fodler:x", "fodler:x: this does not exist"),
        ("{}/a.bin", "is of no kind that its name tells"),
        ("storybook:x", r"'storybook:x' names no data\. Expected storybook\."),
        ("folder:", r"'folder:' names no data\. Expected folder:DIR"),
        ("folder:{}/no", "no is not a folder"),
        ("folder:{}/empty", "holds no pair: 0 pictures"),
        ("folder:{}/alone", "holds no pair: 3 pictures, none with a .txt"),
        ("jsonl:{}/no.jsonl", r"no\.jsonl cannot be read: No such file"),
        ("jsonl:{}/empty", "cannot be read: Is a directory"),
        ("jsonl:{}/a.bin", "a.bin is not UTF-8 text"),
        ("txt:{}/blank.txt", "holds no text"),
        ("sharegpt4v:{}/a.json", "lacks the pictures' folder. Expected sharegpt4v:JSON:IMAGE_ROOT"),
        ("sharegpt4v:{}/a.json:{}/no", "no is not a folder. Expected the pictures"),
        ("wds:{}/no-*.tar", r"no-\*\.tar: there is no such file"),
        ("wds:{}/no-{{0..1}}.tar", r"no-0\.tar: there is no such file"),
        ("wds:{}/a.bin", "cannot be read as an uncompressed tar"),
        ("wds:{}/empty", r"empty/\*\.tar: there is no such file"),
        ("hf:{}/no", "no cannot be opened as a data set"),
    ],
)
def test_a_wrong_spec_is_refused(tmp_path, spec, message, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00" * 99)
    (tmp_path / "blank.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    pictures(tmp_path / "alone")
    with pytest.raises(LongClipError, match=message):
        open_data(spec.replace("{}", str(tmp_path)).replace("{{", "{").replace("}}", "}"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"caption": "a"}\n\n{"caption": ', r"a\.jsonl, line 3: not JSON"),
        ("a.jsonl", '{"caption": "a"}\n["b"]\n', r"line 2: expected a JSON object"),
        ("a.jsonl", '{"caption": 5}\n{"caption": "a"}\n', "line 1: 5 is not a text"),
        ("a.jsonl", '{"img": "a.png", "cap": "a"}', "line 1: there is no caption.*the columns there are: img, cap"),
        ("a.jsonl", "\n", "holds no text"),
        ("a.csv", "image,words\na.png,b\n", "line 2: there is no caption.*the columns there are: image, words"),
        ("a.csv", "image,caption\na.png,one, two\n", "line 2: more cells than the header's 2"),
        ("a.csv", f'image,caption\na.png,"{"x" * 140_000}\n', r"a\.csv, after line 1: field larger than field limit"),
        (
            "a.csv",
            'image,caption\na.png,"open\nb.png,b\n',
            r"a\.csv, after line 1: unexpected end of data\. Put a caption",
        ),
        ("a.csv", 'image,caption\na.png,"One" says he\n', r"a\.csv, after line 1: ',' expected after"),
        ("a.csv", "image,caption\n", "holds no text"),
        ("a.json", "{", r"a\.json: not JSON"),
        ("a.json", "{}", "entry 1 is not ShareGPT4V's"),
        ("a.json", "5", "entry 1 is not ShareGPT4V's"),
        ("a.json", '"text"', "entry 1 is not ShareGPT4V's"),
        ("a.json", json.dumps([*sharegpt4v_rows(), {"image": "a.png"}]), "entry 4 is not ShareGPT4V's"),
        ("a.json", json.dumps([{**sharegpt4v_rows()[0], "image": None}]), "entry 1 is not ShareGPT4V's"),
        ("a.json", "[]", "holds no text"),
    ],
)
def test_an_unusable_file_is_told_why(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(LongClipError, match=message):
        open_data(f"sharegpt4v:{path}:{tmp_path}" if name == "a.json" else str(path))


def test_tars_without_captions_are_told_why(tmp_path):
    lone = write_tar(tmp_path / "lone.tar", [("a.png", png(1)), ("b.txt", b"text")])
    with pytest.raises(LongClipError, match="holds no sample: 2 groups of files"):
        open_data(str(lone))
    other = write_tar(tmp_path / "other.tar", [("a.png", png(1)), ("a.json", b'{"width": 2}')])
    with pytest.raises(LongClipError, match=r"there is no caption.*the columns there are: width"):
        open_data(str(other))
    good = write_tar(tmp_path / "good.tar", [("a.png", png(1)), ("a.txt", b"text"), ("b.png", png(1))])
    with pytest.warns(UserWarning, match="1 groups of files lack a picture or a caption"):
        assert len(open_data(str(good))) == 1
    cut = tmp_path / "cut.tar"
    cut.write_bytes(good.read_bytes()[:600])
    with pytest.raises(LongClipError, match=r"cut\.tar cannot be read as an uncompressed tar \(unexpected end of data"):
        open_data(str(cut))


def test_a_bad_row_is_a_bad_sample_and_the_others_are_read(tmp_path):
    pictures(tmp_path / "pictures")
    (tmp_path / "pictures" / "1.png").write_bytes(b"broken")
    (tmp_path / "pictures" / "2.png").unlink()
    extra = [{"caption": " \n"}, {"caption": None, "image": "a"}, {"caption": "No picture."}]
    extra += [{"caption": "Half a pair: \ud83d.", "image": "pictures/0.png"}]
    extra += [{"caption": 7, "image": "pictures/0.png"}, {"caption": "A number for a picture.", "image": 12}]
    data = open_data(str(write_jsonl(tmp_path / "a.jsonl", [*records(), *extra])))
    assert data[0].caption == ROWS[0][0]
    assert data[6].caption == "Half a pair: ?."
    reasons = [
        r"1\.png: not a usable picture",
        r"2\.png: there is no such file",
        r"a\.jsonl, sample 4: the caption is empty",
        r"a\.jsonl, sample 5: the caption is empty",
        r"a\.jsonl, sample 6: it names no picture",
    ]
    for index, reason in [*enumerate(reasons, 1), (7, "sample 8: the caption is empty"), (8, "sample 9: the caption")]:
        with pytest.raises(BadSample, match=reason):
            data[index]


def test_a_bad_caption_file_is_a_bad_sample(tmp_path):
    pictures(tmp_path)
    for number, content in enumerate([b"\xff\xff", b" ", b"good"]):
        (tmp_path / f"{number}.txt").write_bytes(content)
    data = open_data(str(tmp_path))
    (tmp_path / "2.txt").unlink()
    for index, reason in enumerate(["0.txt: the caption cannot be read", "1.txt: the caption is empty", "2.txt: the"]):
        with pytest.raises(BadSample, match=reason):
            data[index]


def test_a_bad_member_of_a_tar_is_a_bad_sample(tmp_path):
    members = [("0.png", png(1)), ("0.json", b"{"), ("a.png", png(1)), ("a.txt", b"good")]
    bad = {"b": b"{", "c": b'["caption"]', "d": b'{"width": 2}', "e": b'{"caption": 5}', "f": b'{"caption": ""}'}
    for key, content in bad.items():
        members += [(f"{key}.png", png(1)), (f"{key}.json", content)]
    members += [("g.png", b"broken"), ("g.txt", b"good")]
    (tmp_path / "[2026]").mkdir()
    write_tar(tmp_path / "[2026]" / "a.tar", members)
    data = open_data(f"wds:{tmp_path / '[2026]'}")
    assert data[1].caption == "good"
    reasons = ["cannot be read"] * 4 + ["caption is empty", "not a usable picture"]
    for index, reason in [(0, "cannot be read"), *enumerate(reasons, 2)]:
        with pytest.raises(BadSample, match=rf"a\.tar, picture at byte \d+: .*{reason}"):
            data[index]


def test_a_bad_hub_row_is_a_bad_sample(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("int32")})
    cells = {"image": [None, {"bytes": b"broken", "path": None}], "caption": [1, None]}
    datasets.Dataset.from_dict(cells, features=features).save_to_disk(tmp_path / "set")
    data = open_data(str(tmp_path / "set"))
    for index, reason, other in [(0, "1 is not a text", "it has no picture"), (1, "caption is empty", "not a usable")]:
        with pytest.raises(BadSample, match=reason):
            data[index]
        with pytest.raises(BadSample, match=other):
            data.image(index)


def test_nothing_warns_where_nothing_is_wrong(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_data(str(tars(tmp_path)))
