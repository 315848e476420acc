"""Test how `sweep.py` reads its axes, what it trains, takes up and tabulates."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.command_line import parse
from experiments.settings import BUILDER, to_dict
from experiments.sweep import SweepOptions, check_axes, folder_name, read_axis, runs_of
from experiments.training_runs import split_command
from vnl_ppo import run_folder

ROOT = Path(__file__).parents[2]
SHORT = """
    --env tests.probes:SIGNS_ENV --num-timesteps 64 --num-envs 4 --batch-size 4 --unroll-length 4
    --num-minibatches 2 --num-evals 2 --num-eval-envs 2 --episode-length 8 --video-seconds 0
""".split()  # noqa: SIM905


@pytest.mark.parametrize(
    "text, name, values",
    [
        ("seed=0..3", "seed", ["0", "1", "2", "3"]),
        ("seed=7,1..2", "seed", ["7", "1", "2"]),
        ("--arena.gap_length=0.1 0.2,0.3 0.4", "arena.gap-length", ["0.1 0.2", "0.3 0.4"]),
        (
            "encoder=gray | nature_cnn(features=8, padding=SAME),impala",
            "encoder",
            ["gray | nature_cnn(features=8, padding=SAME)", "impala"],
        ),
    ],
)
def test_axes_by_hand(text, name, values):
    assert read_axis(text) == (name, values)


@pytest.mark.parametrize(
    "text, message",
    [
        ("seed", "write NAME=VALUE"),
        ("seed=", "write NAME=VALUE"),
        ("seed=1,,2", "write NAME=VALUE"),
        ("seed=1..2,2", "a value of seed twice: 1, 2, 2"),
        ("seed=3..1", "the first has to be the lowest"),
        ("resume=a", "which the sweep sets itself"),
    ],
)
def test_axes_that_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        read_axis(text)


def test_a_grid_has_every_combination_once():
    options = SweepOptions(
        grid=("encoder=nature_cnn,impala", "seed=1..2"),
        variants=("plain=", "told=--network.value-leaves ahead proprio"),
        output=Path("out"),
    )
    runs = runs_of(options, ["--env", "walls_ball"])
    assert len({run.folder for run in runs}) == len(runs) == 2 * 2 * 2
    assert runs[-1].cell == {"encoder": "impala", "variant": "told"}
    assert str(runs[-1].folder) == "out/encoder=impala,variant=told/seed_2"
    assert runs[-1].flags == [
        "--env", "walls_ball", "--encoder", "impala",
        "--network.value-leaves", "ahead", "proprio", "--seed", "2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options, flags, message",
    [
        ({}, [], "nothing varies"),
        ({"grid": ("seed=a",)}, [], "seed=a; a seed is a whole number"),
        ({"grid": ("seed=1", "seed=2")}, [], "seed twice"),
        ({"grid": ("env=a b,a/b",)}, [], "would share the folder"),
        ({"variants": ("plain",)}, [], "write NAME=FLAGS"),
        ({"variants": ("a=", "a=--quiet")}, [], "'a' twice"),
        ({"grid": ("seed=1",)}, ["--run_dir=x"], "--run-dir is given for train.py, but the sweep"),
        ({"grid": ("seed=1",)}, ["--dry-run"], "--dry-run is given for train.py, but the sweep"),
        (
            {"grid": ("encoder=mlp",)},
            ["--seed", "7"],
            "--seed is given for train.py, but seeds are",
        ),
    ],
)
def test_impossible_sweeps_are_refused(options, flags, message):
    with pytest.raises(ValueError, match=message):
        runs_of(SweepOptions(**options), flags)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"jobs": 0}, "--jobs is 0"),
        ({"attempts": 0}, "--attempts is 0"),
        ({"slurm": ("a=1",)}, "without --cluster"),
        ({"cluster": "slurm", "jobs": 2}, "--jobs is 2"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SweepOptions(**options).check()


def test_the_numbers_of_another_sweep_are_not_overwritten(tmp_path):
    path = tmp_path / "sweep.json"
    check_axes(path, {"encoder": "mlp"})
    path.write_text(json.dumps({"cells": [{"cell": {"encoder": "impala"}}]}))
    check_axes(path, {"encoder": "mlp"})
    for other in ({}, {"encoder": "mlp", "variant": "a"}, {"env": "walls_ball"}):
        with pytest.raises(ValueError, match="is of a sweep over encoder, not"):
            check_axes(path, other)


def test_folder_names_are_plain():
    cell = {"encoder": "gray | nature_cnn(features=8)", "arena.gap-length": "0.1 0.2"}
    assert folder_name(cell) == "encoder=gray_nature_cnn_features=8_,arena.gap-length=0.1_0.2"
    assert folder_name({}) == "all"
    assert split_command(["--grid", "a=1", "--", "--b", "--"]) == (
        ["--grid", "a=1"],
        ["--b", "--"],
    )


def run(*command):
    whole = [sys.executable, "-m", "experiments.sweep", *command]
    return subprocess.run(
        whole, capture_output=True, text=True, timeout=600, env=os.environ, cwd=ROOT
    )


@pytest.mark.slow
def test_a_sweep_trains_takes_up_and_tabulates(tmp_path):
    output = tmp_path / "sweep"
    own = ["--grid", "learning-rate=1e-3,1e-2", "--jobs", "2", "--output", str(output)]
    # One run was broken off before its first checkpoint.
    (first, _) = runs_of(SweepOptions(grid=("learning-rate=1e-3,1e-2",), output=output), SHORT)
    run_folder.create(first.folder, to_dict(parse(first.flags, None)), BUILDER)
    done = run(*own, "--", *SHORT)
    assert done.returncode == 0, done.stderr
    assert f"--resume {first.folder}" in done.stdout
    numbers = json.loads((output / "sweep.json").read_text())
    assert [cell["cell"] for cell in numbers["cells"]] == [
        {"learning-rate": "1e-3"},
        {"learning-rate": "1e-2"},
    ]
    for cell in numbers["cells"]:
        final = cell["final"]["eval/episode_reward"]
        assert cell["curves"]["0"]["eval/episode_reward"][-1] == [64, final["per_seed"][0]]
        assert f"{final['mean']:.3g}" in done.stdout
    again = run(*own, "--", *SHORT)
    assert again.returncode == 0 and "experiments/train.py" not in again.stdout
    # Nothing is trained over runs of other settings, and nothing is begun with a wrong flag.
    other = run(*own, "--", *SHORT, "--discounting", "0.5")
    assert other.returncode == 1 and "ppo.discounting" in other.stderr
    wrong = run("--grid", "seed=0", "--output", str(tmp_path / "none"), "--", *SHORT, "--sed", "1")
    assert wrong.returncode != 0 and not (tmp_path / "none").exists()


def test_a_run_that_fails_is_named_and_the_others_are_tabulated(tmp_path):
    done = run(
        "--grid", "seed=0", "--variants", "good=", "bad=--network.predict-leaves nothing",
        "--output", str(tmp_path / "sweep"), "--attempts", "1", "--reach", "episode_reward>=-1e9",
        "--", *SHORT,
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 of 2 runs failed" in done.stderr and "failed: variant=bad/seed_0" in done.stderr
    assert "nothing" in done.stderr
    numbers = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [cell["cell"]["variant"] for cell in numbers["cells"]] == ["good"]
    first = numbers["cells"][0]["curves"]["0"]["eval/episode_reward"][0][0]
    assert numbers["cells"][0]["reach"]["per_seed"] == [first]
    assert "steps to episode_reward>=-1e+09" in " ".join(done.stdout.split())
    wrong = run("--grid", "seed=0", "--reach", "speed>=1", "--", *SHORT)
    assert wrong.returncode == 1 and "--reach names 'speed'" in wrong.stderr


@pytest.mark.slow
def test_jobs_of_submitit_train_and_resume(tmp_path):
    pytest.importorskip("submitit")
    own = ["--grid", "seed=0..1", "--cluster", "local", "--output", str(tmp_path / "sweep")]
    done = run(*own, "--slurm", "timeout_min=10", "--", *SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert numbers["cells"][0]["seeds"] == [0, 1]
    wrong = run(*own[:-1], str(tmp_path / "other"), "--slurm", "timeout=10", "--", *SHORT)
    assert wrong.returncode == 1 and "--slurm: submitit does not take it" in wrong.stderr
