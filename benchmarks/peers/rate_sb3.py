"""Measure how fast Stable-Baselines3 trains on dm_control's gap corridor from pixels.

    python rate_sb3.py gap_ant SECONDS '{"num_workers": 2, ...}'

The usual way: dm_control's task with its ant and its egocentric camera of 64x64 pixels, drawn by
MuJoCo's renderer, one environment in each worker process, and PPO with NatureCNN on the pixels. The
last line is one JSON object.
"""

import json
import os
import statistics
import sys
import time
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

# isort: split
import dm_control.locomotion.tasks.corridors as tasks
import gymnasium
import numpy as np
import stable_baselines3
import torch
from dm_control import composer
from dm_control.composer.variation import distributions
from dm_control.locomotion import arenas, walkers
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv

CAMERA = "walker/egocentric_camera"
FELT = ("walker/joints_pos", "walker/joints_vel", "walker/sensors_gyro",
        "walker/sensors_velocimeter", "walker/world_zaxis")  # fmt: skip


class GapAnt(gymnasium.Env):
    """dm_control's corridor with gaps and its ant, as an environment of Gymnasium.

    Sizes and times are those of our preset `gap_ant`.

    Args:
        episode_length: control steps of an episode.
    """

    def __init__(self, episode_length: int) -> None:
        arena = arenas.GapsCorridor(
            platform_length=distributions.Uniform(1.5, 2.0),
            gap_length=distributions.Uniform(0.05, 0.2),
            corridor_width=5,
            corridor_length=40,
            aesthetic="outdoor_natural",
        )
        task = tasks.RunThroughCorridor(
            walkers.Ant(observable_options={"egocentric_camera": {"enabled": True}}),
            arena,
            contact_termination=False,
            physics_timestep=0.005,
            control_timestep=0.025,
        )
        self.env = composer.Environment(
            task, time_limit=0.025 * episode_length, strip_singleton_obs_buffer_dim=True
        )
        actions, seen = self.env.action_spec(), self.env.observation_spec()
        self.action_space = gymnasium.spaces.Box(-1, 1, actions.shape, np.float32)
        felt = sum(int(np.prod(seen[name].shape)) for name in FELT)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "vision": gymnasium.spaces.Box(0, 255, seen[CAMERA].shape, np.uint8),
                "proprio": gymnasium.spaces.Box(-np.inf, np.inf, (felt,), np.float32),
            }
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode in a new corridor."""
        return self._observe(self.env.reset()), {}

    def step(self, action: np.ndarray) -> Any:
        """Advance a control step."""
        at = self.env.step(action)
        failed = at.last() and at.discount == 0
        return self._observe(at), float(at.reward), failed, at.last() and not failed, {}

    def _observe(self, at: Any) -> dict[str, np.ndarray]:
        felt = [np.ravel(at.observation[name]) for name in FELT]
        return {
            "vision": at.observation[CAMERA],
            "proprio": np.concatenate(felt).astype(np.float32),
        }


class Clock(BaseCallback):
    """Times iterations, collecting and learning together; ends the training after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.times: list[float] = []
        self.begin = 0.0

    def _on_rollout_start(self) -> None:
        now = time.perf_counter()
        if self.begin:
            self.times.append(now - self.begin)
        self.begin = now

    def _on_step(self) -> bool:
        # The first iteration starts workers and warms up.
        return sum(self.times[1:]) < self.seconds


def main(seconds: float, settings: dict[str, Any]) -> None:
    """Train for so many seconds and report."""
    make = lambda: GapAnt(settings["episode_length"])
    workers = SubprocVecEnv([make] * settings["num_workers"], start_method="forkserver")
    num_steps = settings["steps_per_iteration"] // settings["num_workers"]
    model = PPO(
        "MultiInputPolicy",
        workers,
        learning_rate=settings["learning_rate"],
        n_steps=num_steps,
        batch_size=settings["samples_per_minibatch"],
        n_epochs=settings["num_updates_per_batch"],
        gamma=settings["discounting"],
        policy_kwargs={
            "net_arch": {"pi": settings["hidden"], "vf": settings["hidden"]},
            "features_extractor_kwargs": {"cnn_output_dim": settings["features"]},
        },
        device="cpu",
    )
    clock = Clock(seconds)
    model.learn(10**9, callback=clock)
    workers.close()
    steps = num_steps * settings["num_workers"]
    versions = {"stable_baselines3": stable_baselines3.__version__, "torch": torch.__version__}
    result = {
        "env_steps_per_second": statistics.median(steps / t for t in clock.times[1:]),
        "iterations": len(clock.times) - 1,
        "threads": torch.get_num_threads(),
        "gl": os.environ["MUJOCO_GL"],
        **versions,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[2]), json.loads(sys.argv[3]))
