"""`longclip storybook train`, with two steps a stage, in processes side by side."""

import hashlib
from dataclasses import replace

from safetensors.torch import load_file

from longclip_diffusers.cli.longclip import main
from longclip_diffusers.training.miniature import stages


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_train_leaves_a_model_finds_its_stages_again_and_needs_no_second_process(tmp_path, monkeypatch, capsys):
    tiny = {name: (train, replace(plan, steps=2, batch_size=2)) for name, (train, plan) in stages.STAGES.items()}
    monkeypatch.setattr(stages, "STAGES", tiny)
    monkeypatch.setattr(stages.Workshop.__init__, "__defaults__", (0, "cpu", 4))  # the last: four scenes
    work = ["--work", str(tmp_path / "work")]
    assert main(["storybook", "train", "--output", str(tmp_path / "first"), *work, "--jobs", "2"]) == 0
    assert "The model is in" in capsys.readouterr().out
    before = {name: (tmp_path / "work" / name).stat().st_mtime_ns for name in tiny}
    assert main(["storybook", "train", "--output", str(tmp_path / "second"), *work, "--jobs", "1"]) == 0
    assert {name: (tmp_path / "work" / name).stat().st_mtime_ns for name in tiny} == before
    alone = ["--work", str(tmp_path / "alone"), "--jobs", "1"]
    assert main(["storybook", "train", "--output", str(tmp_path / "third"), *alone]) == 0
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second") == hashes(tmp_path / "third")
    vision, clip = (load_file(tmp_path / "work" / name / "model.safetensors") for name in ("vision", "clip"))
    seen = {name for name in vision if name.startswith("vision") or name == "visual_projection.weight"}
    assert {name for name in seen if not vision[name].half().equal(clip[name])} == set()  # the text tower alone learns
    assert not vision["text_projection.weight"].half().equal(clip["text_projection.weight"])
