"""Recordings while a policy learns: what they decode, and that training does not notice."""

import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import command_line
from experiments.recording_reader import open_recording
from vnl_ppo import checkpoint, run_folder

SMALL = """
    --env tests.probes:Shown --encoder tests.probes:Pixels --num-envs 8 --batch-size 8
    --num-minibatches 1 --unroll-length 4 --episode-length 20 --num-evals 3 --num-eval-envs 2
    --num-timesteps 128 --network.policy-hidden 8 --network.value-hidden 8 --video-seconds 0
"""


def train(monkeypatch, folder, *flags):
    arguments = [*SMALL.split(), "--run-dir", str(folder), *flags]
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    command_line.main(None)
    return folder


def test_variables_are_decoded_over_training_which_does_not_change(tmp_path, monkeypatch):
    flags = ["--record-every", "2", "--record-variables", "observation.truth"]
    recorded = train(monkeypatch, tmp_path / "recorded", *flags)
    plain = train(monkeypatch, tmp_path / "plain")
    steps = [checkpoint.steps(x / run_folder.CHECKPOINTS) for x in (recorded, plain)]
    assert steps[0] == steps[1] and len(steps[0]) == 3
    for step in steps[0]:
        one, two = (checkpoint.read(x / run_folder.CHECKPOINTS, step) for x in (recorded, plain))
        assert set(one) == set(two)
        for name, x in one.items():
            np.testing.assert_array_equal(x, two[name], err_msg=name)
    # Of three evaluations, the first and the last.
    kept = {int(x.stem) for x in (recorded / "recordings" / "learning").iterdir()}
    assert kept == {steps[0][0], steps[0][2]} and not (plain / "recordings").exists()
    first = open_recording(recorded / "recordings" / "learning" / "0.zarr")
    assert first.alive.shape == (10, 20)
    events = EventAccumulator(str(recorded)).Reload()
    tags = [x for x in events.Tags()["scalars"] if x.startswith("representation/")]
    tag = "representation/encoders_vision.Dense_0/observation.truth.0"
    assert tag in tags and [x.step for x in events.Scalars(tag)] == sorted(kept)
    # What is shown as brightness is there from the beginning.
    assert events.Scalars(tag)[0].value > 0.99


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--record-every", "-1"], "--record-every is -1"),
        (
            ["--record-every", "1", "--record-variables", "observation.truht"],
            "'observation.truht', which cannot be decoded; did you mean observation.truth",
        ),
    ],
)
def test_bad_input_is_refused_before_training(tmp_path, monkeypatch, capsys, flags, message):
    with pytest.raises(SystemExit):
        train(monkeypatch, tmp_path / "mine", *flags)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()
