"""`longclip train`: options over a preset, the run, its curves, a dry run, and what it refuses."""

import json

import pytest

from longclip_diffusers.cli.longclip import main

TINY = [
    *("--preset", "storybook", "--steps", "2", "--batch-size", "8", "--anchor-batch", "4", "--components", "3"),
    *("--num-validation", "4", "--evaluate-every", "0", "--anchor-share", "0.5", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "run"
    assert main(["train", *TINY, "--output", str(folder)]) == 0
    return folder


def test_a_run_leaves_its_recipe_its_log_and_a_clip(run, capsys):
    recipe = json.loads((run / "recipe.json").read_text())
    assert (recipe["objective"], recipe["lr"], recipe["steps"]) == ("both", 1.5e-3, 2)
    assert {path.name for path in run.iterdir()} >= {"best", "last", "checkpoints", "log.jsonl", "tensorboard"}
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert (
        main(["evaluate", "retrieval", "--model", str(run), "--num-samples", "8", "--json", str(run / "r.json")]) == 0
    )
    assert json.loads((run / "r.json").read_text())["rows"]


def test_the_same_command_goes_on_and_another_is_refused(run, capsys):
    assert main(["train", *TINY, "--output", str(run)]) == 0
    capsys.readouterr()
    assert main(["train", *TINY, "--output", str(run), "--seed", "3"]) == 1
    assert "holds a run of another recipe: seed 0 (now 3)" in capsys.readouterr().err


def test_curves(run, capsys):
    assert main(["train", "--plot", "--output", str(run)]) == 0
    assert (run / "curves.png").stat().st_size > 10_000
    assert main(["train", "--plot", "--output", str(run / "best")]) == 1
    assert "holds no log.jsonl" in capsys.readouterr().err


def test_a_dry_run_tells_and_writes_nothing(tmp_path, capsys):
    assert main(["train", *TINY, "--dry-run", "--output", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "the anchor alone for 1 steps, then with contrastive losses for 1" in told
    assert {line.split()[0] for line in told.splitlines()} >= {"parameters", "memory", "time", "steps"}
    assert not (tmp_path / "run").exists()


def test_a_config_file_is_read_and_its_unknown_keys_are_refused(tmp_path, capsys):
    file = tmp_path / "recipe.toml"
    file.write_text("step = 3\n")
    assert main(["train", "--config", str(file)]) == 1
    assert "A recipe has no field step." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--data", "txt:nowhere.txt"], "nowhere.txt"),
        (["--base", "nowhere.pt"], "nowhere.pt is neither a file, a folder nor a hub id"),
    ],
)
def test_bad_input_is_one_line(options, complaint, tmp_path, capsys):
    assert main(["train", *TINY, "--output", str(tmp_path / "run"), *options]) == 1
    error = capsys.readouterr().err
    assert complaint in error
    assert "Traceback" not in error


def test_fields_that_do_not_go_together_are_wrong_usage(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train", *TINY, "--batch-size", "9"])
    assert "anchor_batch 4 does not divide batch_size 9" in capsys.readouterr().err
