"""`longclip evaluate retrieval` and `zeroshot`, from the command line to the JSON."""

import json

import pytest

from longclip_diffusers.checkpoints.files import sha256_of
from longclip_diffusers.cli import longclip
from longclip_diffusers.cli.evaluated import data_name
from longclip_diffusers.models import bundled
from longclip_diffusers.training.data.storybook import StorybookData

WEIGHTS = bundled() / "clip" / "model.safetensors"


def run(verb, tmp_path, *arguments):
    """Exit code and, where it is 0, what the JSON holds."""
    file = tmp_path / "out" / "rows.json"
    code = longclip.main(["evaluate", verb, "--json", str(file), *map(str, arguments)])
    return code, json.loads(file.read_text()) if code == 0 else None


@pytest.fixture
def captioned(tmp_path):
    """Five scenes with captions in a JSONL file, and a sixth line whose picture is missing."""
    data, lines = StorybookData(), []
    for index in range(5):
        sample = data[index]
        sample.image.save(tmp_path / f"{index}.png")
        lines.append({"image": f"{index}.png", "caption": sample.caption, "short_caption": sample.short_caption})
    lines.insert(2, {"image": "gone.png", "caption": "Nothing."})
    file = tmp_path / "bay.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_retrieval_runs_offline_on_the_bundled_model(tmp_path, capsys):
    code, content = run("retrieval", tmp_path, "--num-samples", 20)
    assert code == 0
    values = {row["column"]: row["value"] for row in content["rows"]}
    assert values["storybook/short/t2i_R@5(n=20)"] > 0.9
    assert {row["encoder"] for row in content["rows"]} == {"storybook/clip"}
    assert set(content["rows"][0]) == {"encoder", "column", "value", "low", "high", "n"}
    assert content["sha256"] == {"storybook/clip/model.safetensors": sha256_of(WEIGHTS)}
    assert content["truncated"] == {"storybook/clip": {"long": 1, "short": 0}}
    assert (content["num_bad"], content["num_images"], content["data"]) == (0, 20, "storybook")
    shown = capsys.readouterr().out
    assert "| storybook/short/t2i_R@5(n=20) | 1.000 [1.000, 1.000] |" in shown
    assert "storybook/clip read only the beginning of 100.0% of the long texts" in shown


def test_retrieval_of_a_file_tells_what_it_left_out_and_has_the_base_beside(tmp_path, captioned, capsys):
    base = bundled() / "clip"
    code, content = run("retrieval", tmp_path, "--data", captioned, "--base", base)
    assert code == 0
    assert (content["num_bad"], content["num_images"]) == (1, 5)
    assert "left out: " in capsys.readouterr().out
    rows = {
        encoder: [row for row in content["rows"] if row["encoder"] == encoder]
        for encoder in ("storybook/clip", str(base))
    }
    ours, theirs = ([(row["column"], row["value"]) for row in found] for found in rows.values())
    assert ours == theirs
    assert ours[0][0] == "bay/long/i2t_R@1(n=5)"
    assert len(content["sha256"]) == 2


def test_zeroshot_runs_offline_on_the_bundled_model(tmp_path):
    code, content = run("zeroshot", tmp_path, "--num-samples", 10)
    assert code == 0
    (everything, *_) = content["rows"]
    assert everything["column"] == "storybook/zeroshot/slots/acc1(n=10)"
    assert everything["value"] > 0.6
    assert content["sha256"]


def test_zeroshot_of_class_folders(tmp_path, capsys):
    data = StorybookData()
    for name in ("sea", "red_house"):
        (tmp_path / "bay" / name).mkdir(parents=True)
        for index in range(2):
            data[index].image.save(tmp_path / "bay" / name / f"{index}.png")
    (tmp_path / "bay" / "sea" / "broken.png").write_bytes(b"no picture")
    templates = tmp_path / "templates.txt"
    templates.write_text("{} in words")
    for spec in (f"folder:{tmp_path / 'bay'}", str(tmp_path / "bay")):
        code, content = run("zeroshot", tmp_path, "--data", spec, "--templates", templates)
        assert code == 0
        assert content["classes"] == [["red house"], ["sea"]]
        assert [row["column"] for row in content["rows"]] == [
            "bay/zeroshot/acc1(classes=2,templates=1,n=4)",
            "bay/zeroshot/mean_per_class_recall(classes=2,templates=1,n=4)",
        ]
        assert content["rows"][0]["value"] == 0.5  # the same pictures in both
        assert content["num_bad"] == 1
    assert "broken.png: not a usable picture" in capsys.readouterr().out


def test_what_cannot_be_measured_is_one_line(tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("A text.\nAnother.\n")
    assert run("retrieval", tmp_path, "--data", texts)[0] == 1
    assert "captions without pictures; retrieval needs both" in capsys.readouterr().err
    assert run("retrieval", tmp_path, "--model", bundled() / "longclip")[0] == 1
    assert "text tower only" in capsys.readouterr().err
    assert run("retrieval", tmp_path, "--model", bundled() / "clip", "--base", bundled() / "clip")[0] == 1
    assert "is the model itself" in capsys.readouterr().err
    assert run("retrieval", tmp_path, "--num-samples", 0)[0] == 2
    assert run("zeroshot", tmp_path, "--templates", texts)[0] == 2
    assert run("zeroshot", tmp_path, "--data", texts)[0] == 1
    assert "has 0 sub-folders" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("storybook", "storybook"),
        ("folder:/data/urban1k", "urban1k"),
        ("/data/urban1k/", "urban1k"),
        ("jsonl:a/docci.jsonl", "docci"),
        ("sharegpt4v:sv4.json:/images", "sv4"),
        ("hf:owner/flickr30k:test", "flickr30k"),
        ("C:\\data.csv", "C:\\data"),
    ],
)
def test_data_is_called_by_its_file_or_folder(spec, name):
    assert data_name(spec) == name
