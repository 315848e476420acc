"""A policy learns from each thing that the camera can tell, and shows what it saw."""

import os
import subprocess
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("modality", ["rgb", "gray", "depth", "segmentation"])
def test_an_ant_learns_from_what_it_sees_and_logs_it(tmp_path, modality):
    """An ant that stands still has a return of 126 and no speed."""
    folder = tmp_path / "run"
    options = f"--vision.modality {modality} --num-timesteps 60000 --num-evals 2 --video-seconds 0"
    command = [sys.executable, "experiments/gap_ant_vision.py", *options.split(), "--quiet"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command += ["--run-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    first, last = (event.value for event in events.Scalars("eval/episode_reward"))
    assert last > 3 * first > 0
    still, running = (event.value for event in events.Scalars("eval/x_velocity"))
    assert abs(still) < 0.2 and running > 0.5
    # Four moments of the first episode, side by side.
    before, after = (imageio.imread(x.encoded_image_string) for x in events.Images("eval/vision"))
    assert before.shape[:2] == after.shape[:2] == (64, 256)
    assert (before != after).any()
    if modality == "segmentation":
        # The sky and the platforms; the ant's own legs are not always in view.
        assert {0, 255} <= set(np.unique(after).tolist())
    else:
        assert np.unique(after).size > 3
