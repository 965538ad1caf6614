"""The ablation: arms that differ as their names say, intervals over seeds, finished runs never done again."""

from dataclasses import replace

import pytest

from longclip_diffusers import LongClipError
from longclip_diffusers.training import ablation
from longclip_diffusers.training.ablation import ARMS, BASELINES, ablation_rows, run_task, tasks


@pytest.fixture(scope="module")
def todo(tmp_path_factory):
    made = tasks(tmp_path_factory.mktemp("ablation"), steps=1, num_scenes=2, seeds=(0, 1))
    return [replace(task, num_pairs=8) for task in made]


def test_every_arm_is_a_recipe_of_its_own(todo):
    trained = [task for task in todo if task.seed == 0 and task.arm in ARMS]
    assert len({(task.recipe, task.folder) for task in trained}) == len(ARMS)
    recipes = {str(replace(task.recipe, output="")) for task in trained}
    assert len(recipes) == len(ARMS)
    assert len({task.folder for task in todo}) == len(todo) == 2 * (len(ARMS) + len(BASELINES))


def test_a_finished_run_is_read_and_one_of_other_settings_is_done_again(todo, monkeypatch):
    task = next(task for task in todo if task.arm.name == "anchor, then with KPS + PCM")
    values = run_task(task)
    assert {"long i2t_R@1", "short t2i_R@1", "HiMo@3", "zero-shot slots", "drift", "CPU minutes"} < set(values)
    assert any(name.startswith("detail ") for name in values)
    assert not (task.folder / "checkpoints").exists()
    monkeypatch.setattr(ablation, "measure", lambda task: {"measured": 1.0})
    assert run_task(task) == values
    assert run_task(replace(task, num_scenes=3))["measured"] == 1.0
    task.result_file.unlink()  # as if stopped while it measured; and then with other steps
    assert run_task(replace(task, steps=2))["CPU minutes"] > 0


def test_the_base_does_not_drift_and_stretching_alone_does(todo):
    base, _, stretched = (run_task(next(task for task in todo if task.arm == arm)) for arm in BASELINES)
    assert base["drift"] == 0
    assert 0 < stretched["drift"] < 0.1


def test_rows_are_means_over_seeds_with_an_interval(todo):
    first, second = (task for task in todo if task.arm == ARMS[0])
    rows = ablation_rows([(first, {"x": 0.4}), (second, {"x": 0.6})])
    assert [(row.encoder, row.column, row.value, row.n) for row in rows] == [(ARMS[0].name, "x", 0.5, 2)]
    assert rows[0].high - rows[0].value == pytest.approx(12.71 * 0.1)
    with pytest.raises(LongClipError, match="1 seeds: give 2 to 5"):
        tasks(todo[0].folder, steps=1, num_scenes=2, seeds=(0,))
