"""Transfer: both animals get the same steps, numbers by hand, and a comparison from end to end."""

import json

import numpy as np
import pytest

from experiments import curriculum, transfer
from experiments.transfer import TransferOptions, arguments_of, summarise
from tests.experiments.test_curriculum import PROBE, SMALL

STAGES = ("arena.gap_length=0.05,0.2", "arena.gap_length=0.2,0.5")


def test_both_animals_train_for_as_many_steps(tmp_path):
    options = TransferOptions("gap_ant", STAGES, num_timesteps=200_000, output=tmp_path)
    stages = {}
    for kind in transfer.KINDS:
        arguments = arguments_of(options, kind, 3, ["--encoder", "none"])
        stages[kind] = curriculum.stages_of(*curriculum.parse(arguments))
    steps = {kind: sum(stage.total for stage in found) for kind, found in stages.items()}
    per_iteration = stages["nothing"][0].settings.ppo.steps_per_iteration
    # Each stage is a whole number of iterations.
    assert abs(steps["stages"] - steps["nothing"]) <= 2 * per_iteration
    assert [x.settings.arena.gap_length for x in stages["stages"]] == [(0.05, 0.2), (0.2, 0.5)]
    (alone,) = stages["nothing"]
    assert alone.settings.arena == stages["stages"][1].settings.arena
    assert alone.settings.ppo.seed == 3 and alone.settings.encoder == "none"


def test_numbers_by_hand_and_a_figure(tmp_path):
    options = TransferOptions("gap_ant", STAGES, seeds=(0, 1), num_timesteps=10)
    run = lambda kind, seed, x: {
        "kind": kind,
        "seed": seed,
        "curve": [[0, 1, 0.0], [10, 1, 1.0], [11, 2, 0.5], [20, 2, x]],
        "final": {"obstacles_passed": x},
    }
    found = [run("stages", 0, 3.0), run("stages", 1, 5.0), run("nothing", 0, 1.0),
             run("nothing", 1, 2.0)]  # fmt: skip
    summary = json.loads(json.dumps(summarise(options, found)))
    assert summary["stages"]["mean"] == 4 and summary["nothing"]["mean"] == 1.5
    assert summary["difference"]["per_seed"] == [2, 3] and summary["difference"]["mean"] == 2.5
    # Student's t with one degree of freedom: 12.706 standard errors of 0.5.
    assert summary["difference"]["high"] == pytest.approx(2.5 + 12.706 * 0.5, rel=1e-3)
    transfer.figure(summary, tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").stat().st_size > 10_000
    assert transfer.table(summary).columns[0]._cells == ["stages", "nothing", "difference"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stage": STAGES[:1]}, "1 stages are named; transfer takes 2"),
        ({"seeds": (1, 1)}, "name each once"),
        ({"episodes": 0}, "--episodes is 0"),
    ],
)
def test_impossible_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TransferOptions("gap_ant", **{"stage": STAGES, **changes}).check()


@pytest.mark.slow
@pytest.mark.usefixtures("shared_compilations")
def test_a_comparison_from_beginning_to_end(tmp_path, capsys):
    arguments = [
        PROBE, "--stage", "learning_rate=1e-3", "--stage", "learning_rate=1e-4",
        "--measure", "episode_length", "--num-timesteps", "640", "--num-evals", "4",
        "--seeds", "0", "1", "--episodes", "3", "--output", str(tmp_path / "out"), "--", *SMALL,
    ]  # fmt: skip
    transfer._main(arguments)
    summary = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert summary["stages"]["per_seed"] == summary["nothing"]["per_seed"] == [10, 10]
    assert [len(run["curve"]) for run in summary["runs"]] == [8, 8, 7, 7]
    assert np.isfinite(summary["difference"]["mean"])
    capsys.readouterr()
    transfer._main(arguments)
    assert capsys.readouterr().out.count("done before, steps spent") == 6
