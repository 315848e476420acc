"""Curricula: what a stage sets, when it is left, what is refused, and one that is killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import command_line, curriculum
from experiments.curriculum import CurriculumOptions, over_all_steps, stages_of, with_stage
from experiments.until import Goal, Until, evaluations_of
from vnl_ppo import checkpoint, run_folder
from vnl_ppo.train import StopTraining

SMALL = """
    --num-envs 8 --unroll-length 4 --batch-size 8 --num-minibatches 2 --num-updates-per-batch 1
    --episode-length 10 --num-eval-envs 2 --network.policy-hidden 4 --network.value-hidden 4
    --encoder mlp(hidden_layer_sizes=(5,)) --quiet
""".split()  # noqa: SIM905
PROBE = "tests.probes:SHOWN"
ROOT = Path(__file__).parents[2]


def of_gaps(*stages, **more):
    return CurriculumOptions("gap_ant", stages, **more)


def test_a_stage_sets_what_it_names():
    base = command_line.parse(["--env", "gap_ant", "--arena.platform-width", "2"], None)
    stage = with_stage(base, "arena.gap_length=0.05,0.2 walker.reach=1.3 learning-rate=1e-4")
    assert stage.arena.gap_length == (0.05, 0.2) and stage.arena.platform_width == 2
    assert stage.walker.reach == 1.3 and stage.ppo.learning_rate == 1e-4
    assert with_stage(base, "task.only_feet=true task.end-effector-height=None").task.only_feet
    with_its_part = with_stage(base, "walker.reach=1.4 arena.gap_length=0.3,0.7")
    assert with_its_part.ppo == base.ppo


@pytest.mark.parametrize(
    "stage, why",
    [
        ("arena.gap_lenght=0.1,0.2", "no setting arena.gap_lenght; the nearest is arena.gap_leng"),
        ("arena.gap_length=wide", "gap_length"),
        ("arena.gap_length=0.4,0.1", "gap_length"),
        ("arena.gap_length", "'arena.gap_length' is no setting; write NAME=VALUE"),
        ("", "write NAME=VALUE"),
        ("env=walls_ant", "env is the same in all stages"),
        ("num_timesteps=5", "num_timesteps is the same in all stages"),
        ("features.size=3", "features has no settings in it"),
    ],
)
def test_a_bad_stage_is_told_before_anything_is_trained(stage, why, tmp_path):
    options = of_gaps("arena.gap_length=0.1,0.2", stage, output=tmp_path / "out")
    with pytest.raises(ValueError, match="--stage") as raised:
        stages_of(options, ["--encoder", "none"])
    assert why in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "more, flags, why",
    [
        ({"measure": "sucess"}, [], "'sucess', which evaluations do not measure; did you mean suc"),
        ({"num_evals": 3}, [], "--num-evals is 3"),
        ({"num_timesteps": (1, 2, 3)}, [], "3 numbers for 1 stages"),
        ({}, ["--run-dir", "x"], "--run-dir is given for train.py, but the stages have folders"),
        ({}, ["--num-timesteps=5"], "--num-timesteps is given for train.py, but --num-timesteps"),
        ({}, ["--until", "success>=1"], "--until is given for train.py, but --measure"),
        ({}, ["--num_seeds", "4"], "--num-seeds is given for train.py, but a stage begins with"),
        ({}, ["--distributed.process-id", "1"], "--distributed.process-id is given for train.py"),
    ],
)
def test_impossible_options_are_refused(more, flags, why):
    options = of_gaps("arena.gap_length=0.1,0.2", **more)
    with pytest.raises(ValueError, match=why):
        options.check()
        stages_of(options, ["--encoder", "none", *flags])


def test_a_stage_is_mastered_after_three_evaluations_in_a_row(tmp_path):
    goal = Goal("success", 0.8)
    assert goal.reached([0, 0.8, 0.9, 1]) and not goal.reached([0.8, 0.9])
    assert not goal.reached([1, 1, 1, 0.7]) and not goal.reached([0.9, 0.7, 0.9])
    until = Until(goal, tmp_path)
    for value in (0.9, 0.5, 0.9, 0.9):
        assert until(0, {"eval/success": value}, None) is None
        assert until(0, {"train/loss": 1.0}, None) is None
    with pytest.raises(StopTraining, match="success>=0.8 in 3 evaluations in a row"):
        until(0, {"eval/success": 0.8}, None)


def test_the_series_counts_the_steps_of_all_stages():
    stages = [
        {"steps": 100, "evaluations": {"0": 0.0, "100": 1.0}},
        {"steps": 50, "evaluations": {"0": 0.5, "50": 0.75}},
        {"steps": 0, "evaluations": {}},
    ]
    expected = [(0, 1, 0.0), (100, 1, 1.0), (101, 2, 0.5), (150, 2, 0.75)]
    assert list(over_all_steps(stages)) == expected


def of_two_stages(folder):
    return [
        PROBE, "--stage", "learning_rate=1e-3", "--stage", "learning_rate=1e-4",
        "--measure", "episode_length", "--threshold", "10", "--num-timesteps", "3200", "6400",
        "--num-evals", "11", "--output", str(folder), "--", *SMALL,
    ]  # fmt: skip


def assert_done(folder):
    """Both stages were mastered in their first three evaluations: episodes have 10 steps."""
    first, last = json.loads((folder / curriculum.NUMBERS).read_text())["stages"]
    assert first["ended"] == last["ended"] == "mastered"
    assert first["evaluations"] == {"0": 10, "320": 10, "640": 10} and first["steps"] == 640
    assert last["evaluations"] == {"0": 10, "640": 10, "1280": 10} and last["steps"] == 1280
    settings = run_folder.read_settings(folder / "stage_2")
    assert settings["init_from"] == f"{folder / 'stage_1'}@640"
    assert settings["ppo"]["learning_rate"] == 1e-4
    before = checkpoint.read(folder / "stage_1" / run_folder.CHECKPOINTS, 640)
    begun = checkpoint.read(folder / "stage_2" / run_folder.CHECKPOINTS, 0)
    weights = [name for name in before if name.startswith("weights.")]
    assert weights
    for name in weights:
        np.testing.assert_array_equal(before[name], begun[name], err_msg=name)
    events = EventAccumulator(str(folder)).Reload()
    stage = [(e.step, e.value) for e in events.Scalars("curriculum/stage")]
    assert stage == [(0, 1), (320, 1), (640, 1), (641, 2), (1280, 2), (1920, 2)]
    assert [e.value for e in events.Scalars("curriculum/episode_length")] == [10] * 6
    assert evaluations_of(folder / "stage_2", "episode_length") == {0: 10, 640: 10, 1280: 10}


@pytest.mark.slow
@pytest.mark.usefixtures("shared_compilations")
def test_a_broken_curriculum_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    folder, whole = tmp_path / "mine", command_line.work

    def work(settings, prepared):
        if prepared.folder.name == "stage_2":
            raise KeyboardInterrupt
        whole(settings, prepared)

    monkeypatch.setattr(command_line, "work", work)
    with pytest.raises(SystemExit, match="130"):
        curriculum._main(of_two_stages(folder))
    assert f"--resume {folder}" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(command_line, "work", whole)
    curriculum._main(["--resume", str(folder)])
    printed = capsys.readouterr().out
    assert "stage_1: learning_rate=1e-3: done before, mastered" in printed
    assert "640 of 3,200" in printed and "1,280 of 6,400" in printed
    assert_done(folder)
    # Nothing is trained twice, and a curriculum of other settings is refused.
    monkeypatch.setattr(command_line, "work", pytest.fail)
    curriculum._main(of_two_stages(folder))
    other = of_two_stages(folder)
    other[4] = "learning_rate=1e-5"
    before = (folder / curriculum.NUMBERS).read_text()
    with pytest.raises(SystemExit, match="1"):
        curriculum._main(other)
    assert (folder / curriculum.NUMBERS).read_text() == before
    assert "other settings (ppo.learning_rate); give another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_curriculum_goes_on_where_it_was(tmp_path):
    folder = tmp_path / "mine"
    command = [sys.executable, "-m", "experiments.curriculum"]
    how = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True}
    process = subprocess.Popen([*command, *of_two_stages(folder)], **how)
    deadline = time.monotonic() + 300
    while not checkpoint.steps(folder / "stage_2" / run_folder.CHECKPOINTS):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    again = subprocess.run([*command, "--resume", str(folder)], capture_output=True, **how)
    assert again.returncode == 0, again.stderr
    assert "stage_1: learning_rate=1e-3: done before, mastered" in again.stdout
    assert_done(folder)


def test_a_folder_that_is_no_curriculum_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    stages = stages_of(of_gaps("walker.reach=1.3", output=tmp_path), ["--encoder", "none"])
    with pytest.raises(FileExistsError, match="is not empty; give another --output"):
        curriculum.write(of_gaps("walker.reach=1.3"), stages, [])
    assert [x.name for x in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="is no curriculum to resume"):
        curriculum.command_of([str(tmp_path)])


def test_a_measure_that_the_task_does_not_report_is_told(tmp_path, monkeypatch):
    options = of_gaps("walker.reach=1.3", output=tmp_path)
    row = {"steps": 5, "most_steps": 9, "settings": "", "ended": None}
    for value, told in ((0.0, True), (0.5, False)):
        about = lambda *_, value=value: {**row, "evaluations": {"0": value}}
        monkeypatch.setattr(curriculum, "about", about)
        caption = curriculum.table(options, [None]).caption
        assert bool(caption and "--measure" in caption) == told


def test_standing_still_is_called_a_success(capsys):
    settings = command_line.parse(["--env", "gap_ant", "--encoder", "none"], None)
    curriculum.tell(of_gaps("walker.reach=1.3"), settings)
    assert "even if the animal stands still" in capsys.readouterr().err
    curriculum.tell(of_gaps("walker.reach=1.3", measure="obstacles_passed"), settings)
    assert capsys.readouterr().err == ""
