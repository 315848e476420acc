"""The main job on an accelerator: MJX or MJWarp, and everything in one program on the device."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.extras import WARP

_SCRIPT = Path(__file__).parents[2] / "experiments" / "gap_ant_vision.py"


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="JAX finds no GPU here")
@pytest.mark.parametrize("physics", ["mjx", pytest.param("warp", marks=WARP[1])])
def test_a_seeing_ant_learns_on_a_gpu(tmp_path, physics):
    folder = tmp_path / "run"
    command = [sys.executable, str(_SCRIPT), "--run-dir", str(folder), "--num-evals", "2"]
    # MJX is the default there.
    command += [] if physics == "mjx" else ["--physics", physics]
    done = subprocess.run(
        [*command, "--num-timesteps", "2000000"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"physics by {physics}" in done.stdout
    speeds = [s.value for s in EventAccumulator(str(folder)).Reload().Scalars("eval/x_velocity")]
    assert abs(speeds[0]) < 0.1 < 0.5 < speeds[-1]
    assert list((folder / "videos").glob("*.mp4"))
