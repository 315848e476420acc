"""Test what `sight.py` says of runs whose numbers are known, and a comparison from end to end."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import sight
from experiments.analysis.shares import over_runs, share, steps_to, written_steps
from experiments.command_line import parse
from experiments.settings import BUILDER, differing, to_dict
from experiments.sight import CONDITIONS, SightOptions
from experiments.training_runs import is_finished, train_to_end
from vnl_ppo import run_folder


def test_the_share_by_hand():
    found = share(seeing=[2, 2], blind=[1, 1], told=[3, 3])
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    alone = share(seeing=[2], blind=[1, 1], told=[3, 3])
    assert alone.mean == 0.5 and np.isnan([alone.low, alone.high]).all()


def test_the_bootstrap_covers_what_it_should():
    # With blind at 0 and told at 1 without spread, the share is the mean of `seeing`, whose
    # percentile interval over 30 values is close to mean +- 1.96 s / sqrt(30).
    values = np.random.default_rng(1).normal(0.7, 0.2, 30)
    found = share(values, [0, 0], [1, 1])
    half = 1.96 * values.std() / np.sqrt(30)
    np.testing.assert_allclose([found.low, found.high], found.mean + half * np.array([-1, 1]),
                               atol=0.01)  # fmt: skip
    wide = share(values, [0, 0.5], [1, 1.5])
    assert wide.high - wide.low > found.high - found.low


def test_one_run_has_no_interval():
    assert np.isnan([over_runs([1.0]).low, over_runs([1.0]).high]).all()
    assert over_runs([1.0, 3.0]).mean == 2


def test_the_steps_to_a_level_by_hand():
    curve = {0: 0.0, 100: 2.0, 200: 1.0, 300: 4.0}
    steps = lambda *levels: [steps_to([curve], x)["per_seed"][0] for x in levels]
    assert steps(0.0, 1.0, 3.0, 4.1) == [0, 50, 200 + 100 * 2 / 3, None]
    found = steps_to([curve, {0: 0.0, 100: 1.0}], 2.0)
    assert (found["mean"], found["per_seed"], found["never"]) == (100, [100, None], 1)
    assert written_steps(found) == "100 [100, 100], never: 1 of 2"


@pytest.mark.parametrize("name", CONDITIONS)
def test_each_condition_observes_what_it_should(name):
    options = SightOptions("walls_ant", conditions=(name,))
    settings = parse(sight.flags_of(options, name, 0, Path("runs") / name / "seed_0"), None)
    assert settings.teacher == ("runs/told/seed_0@0" if name == "taught" else "")
    env, network = sight.build(settings)
    assert ("vision" in env.observation_spec) == (name not in ("blind", "told"))
    assert "ahead" in env.observation_spec
    # The policy is told in one condition only.
    policy, value = set(network.policy_leaves), set(network.value_leaves)
    assert ("ahead" in policy) == (name == "told")
    assert ("ahead" in value) == (name not in ("blind", "plain"))
    assert network.predict_leaves == (("ahead",) if name == "prediction" else ())
    assert network.frozen_leaves == (("vision",) if name == "untrained" else ())
    blind = parse(sight.flags_of(options, "blind", 0, Path("runs/blind/seed_0")), None)
    assert settings.ppo == blind.ppo


def entry(condition, seed, final, blindfolded=None):
    return {
        "condition": condition,
        "seed": seed,
        "minutes": 1.0,
        "curve": {0: 0.0, 100: final},
        "final": {"obstacles_passed": final, "success": 1.0},
        "blindfolded": blindfolded or {},
    }


def test_a_summary_has_every_number(tmp_path):
    options = SightOptions("walls_ant", seeds=(0, 1))
    dark = {"blank": 1.0, "other": 0.5, "frozen": 0.8}
    found = [
        entry("blind", 0, 1.0), entry("blind", 1, 2.0),
        entry("told", 0, 5.0), entry("told", 1, 6.0),
        entry("prediction", 0, 4.0, dark), entry("prediction", 1, 5.0, dark),
    ]  # fmt: skip
    summary = json.loads(json.dumps(sight.summarise(options, found)))
    assert summary["conditions"]["told"]["per_seed"] == [5.0, 6.0]
    assert summary["conditions"]["blind"]["mean"] == 1.5
    assert summary["share"]["mean"] == pytest.approx((4.5 - 1.5) / (5.5 - 1.5))
    assert summary["share"]["low"] < 0.75 < summary["share"]["high"]
    assert summary["blindfolded"]["other"]["mean"] == 0.5
    # Half is 3.5; curves are straight from 0 steps to 100.
    steps = {k: x["steps_to_half"]["per_seed"] for k, x in summary["conditions"].items()}
    assert steps == {"blind": [None, None], "told": [70, 350 / 6], "prediction": [87.5, 70]}
    assert summary["conditions"]["blind"]["steps_to_half"]["mean"] == 100
    rows = sight.table(summary).columns[0]._cells
    assert rows == ["blind", "told", "prediction", *(f"prediction, {x}" for x in dark),
                    "share of told - blind"]  # fmt: skip
    # A run that was slow, or broken off, has a checkpoint more.
    summary["conditions"]["told"]["runs"][1]["curve"]["50"] = 3.0
    sight.figure(summary, tmp_path / "sight.png")
    assert (tmp_path / "sight.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"conditions": ("blnd",)}, "no condition 'blnd'; there are blind, told"),
        ({"seeing": "eyes"}, "no condition 'eyes'"),
        ({"seeds": (1, 1)}, r"--seeds are \(1, 1\)"),
        ({"episodes": 1}, "--episodes is 1"),
        ({"seeing": "told"}, "--seeing is told, which has no eyes to blindfold; name one of plain"),
        ({"flags": "--seed 3"}, "--seed is given for train.py, but --seeds of sight.py"),
        ({"flags": "--num-timesteps=3"}, "--num-timesteps is given for train.py"),
    ],
)
def test_impossible_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SightOptions("walls_ant", **changes).check()


def test_a_run_of_other_settings_is_not_taken_for_the_one_asked_for(tmp_path):
    options = SightOptions("walls_ant", num_timesteps=4000)
    settings = parse(sight.flags_of(options, "blind", 0, Path("runs/blind/seed_0")), None)
    run_folder.create(tmp_path / "run", to_dict(settings), BUILDER)
    again = sight.settings_of(str(tmp_path / "run"))
    assert differing(to_dict(again), to_dict(settings)) == []
    for changed, name in (
        (dataclasses.replace(options, num_timesteps=8000), "ppo.num_timesteps"),
        (dataclasses.replace(options, flags="--task.control 0.3"), "task.control"),
    ):
        with pytest.raises(ValueError, match=rf"other settings \({name}\); give another --output"):
            flags = sight.flags_of(changed, "blind", 0, tmp_path / "run")
            train_to_end(flags, tmp_path / "run")


def test_a_run_that_was_lent_from_another_goes_on_with_the_same_flags(tmp_path):
    flags = ["--env", "walls_ant", "--encoder", "none", "--init-from", "runs/mine"]
    stored = to_dict(parse(flags, None)) | {"init_from": "runs/mine@300"}
    run_folder.create(tmp_path / "run", stored, BUILDER)
    assert not is_finished(flags, tmp_path / "run")
    for other in ("runs/min", "runs/mine@200"):
        with pytest.raises(ValueError, match=r"other settings \(init_from\)"):
            is_finished([*flags[:-1], other], tmp_path / "run")
    # A file has no step.
    run_folder.create(tmp_path / "file", stored | {"init_from": "eye.safetensors"}, BUILDER)
    with pytest.raises(ValueError, match=r"other settings \(init_from\)"):
        is_finished(flags[:-2], tmp_path / "file")


@pytest.mark.slow
def test_a_comparison_from_beginning_to_end(tmp_path):
    flags = (
        "--num-evals 2 --num-eval-envs 4 --num-envs 16 --batch-size 16 --episode-length 50 "
        "--num-minibatches 2"
    )
    command = [
        sys.executable, "-m", "experiments.sight", "walls_ant", "--num-timesteps", "4000",
        "--seeds", "0", "1", "--episodes", "4", "--output", str(tmp_path / "sight"),
        f"--flags={flags}",
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert first.returncode == 0, first.stderr
    assert "share of told - blind" in first.stdout
    summary = json.loads((tmp_path / "sight" / "sight.json").read_text())
    assert set(summary["conditions"]) == {"blind", "told", "prediction"}
    assert set(summary["blindfolded"]) == {"blank", "other", "frozen"}
    assert (tmp_path / "sight" / "sight.png").is_file()
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert "experiments/train.py" not in again.stdout  # Nothing is trained twice.
    assert json.loads((tmp_path / "sight" / "sight.json").read_text()) == summary
    other = [*command[:5], "8000", *command[6:]]
    refused = subprocess.run(other, capture_output=True, text=True, timeout=600)
    assert refused.returncode == 1 and "give another --output" in refused.stderr
