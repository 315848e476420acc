"""Runs killed at random moments and resumed end as if nothing had happened, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from vnl_ppo import checkpoint, run

_ROOT = Path(__file__).parents[2]
_SHORT = """
    --num-timesteps 20000 --num-envs 16 --batch-size 16 --num-minibatches 4 --num-evals 6
    --num-eval-envs 4 --episode-length 100 --video-seconds 0
""".split()  # noqa: SIM905
_SEEING = ["--vision.height", "36", "--vision.width", "36"]
KILLS = 4


def start(*options):
    command = [sys.executable, str(_ROOT / "experiments" / "gap_ant_vision.py"), *options]
    # A group of its own, so that nothing which the program started survives it.
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def final_state(folder):
    last = checkpoint.steps(folder / run.CHECKPOINTS)[-1]
    path = (folder / run.CHECKPOINTS / str(last)).resolve()
    with ocp.StandardCheckpointer() as checkpointer:
        return last, checkpointer.restore(path)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--encoder", "none"], _SEEING], ids=["blind", "seeing"])
def test_a_killed_run_ends_as_an_unbroken_one(options, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    began = time.monotonic()
    process = start(*_SHORT, *options, "--run-dir", str(unbroken))
    output, _ = process.communicate()
    assert process.returncode == 0, output
    duration = time.monotonic() - began

    # Drawn from the system: another moment each time the test runs. A failure prints them.
    moments = [random.SystemRandom().uniform(0.1, 0.9) * duration for _ in range(KILLS)]
    resumable = lambda: (broken / run.CONFIG).is_file()
    for moment in [*moments, None]:
        how = ["--resume" if resumable() else "--run-dir", str(broken)]
        process = start(*([] if resumable() else [*_SHORT, *options]), *how)
        try:
            output, _ = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        else:
            assert process.returncode == 0, (moments, output)

    (step, expected), (last, found) = final_state(unbroken), final_state(broken)
    assert last == step
    assert found.keys() == expected.keys()
    assert any("params" in name for name in expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=f"{name}, {moments}")
