"""`longclip storybook train`, with two steps a stage, in processes side by side."""

import hashlib
from dataclasses import replace

from safetensors.torch import load_file

from longclip_diffusers.cli.longclip import main
from longclip_diffusers.training.miniature import stages

UNET = "diffusion_pytorch_model.safetensors"


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_train_leaves_a_model_and_finds_its_stages_again(tmp_path, monkeypatch, capsys):
    tiny = {name: (train, replace(plan, steps=2, batch_size=2)) for name, (train, plan) in stages.STAGES.items()}
    monkeypatch.setattr(stages, "STAGES", tiny)
    monkeypatch.setattr(stages.Workshop.__init__, "__defaults__", (0, "cpu", 4))  # the last: four scenes
    work = ["--work", str(tmp_path / "work")]
    assert main(["storybook", "train", "--output", str(tmp_path / "first"), *work, "--jobs", "2"]) == 0
    assert "The model is in" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(stages, "run_stage", None)  # nothing is left to run
        assert main(["storybook", "train", "--output", str(tmp_path / "second"), *work, "--jobs", "1"]) == 0
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    before, after = (load_file(tmp_path / "work" / name / "model.safetensors") for name in ("clip_third", "clip"))
    seen = {name for name in before if name.startswith("vision") or name == "visual_projection.weight"}
    assert {name for name in seen if not before[name].equal(after[name])} == set()  # the last round is text alone
    assert not before["text_projection.weight"].equal(after["text_projection.weight"])
    finished, shared = tmp_path / "work" / "unet", tmp_path / "shared"
    finished.rename(shared)  # two processes trained it; one does the same
    assert main(["storybook", "train", "--output", str(tmp_path / "third"), *work, "--jobs", "1"]) == 0
    weights = (load_file(folder / UNET) for folder in (finished.with_name("unet_fifth"), finished, shared))
    for (name, start), one, two in zip(*(each.items() for each in weights), strict=True):
        assert (two[1] - one[1]).norm() <= 0.02 * (one[1] - start).norm(), name
