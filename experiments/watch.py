"""Watch a policy in MuJoCo's own viewer, whose keys show forces, contacts and joints.

    python experiments/watch.py runs/mine
    python experiments/watch.py random --env target_ball

It needs a display; without one, `experiments/render.py` makes videos.
"""

import dataclasses
import os
import sys
import time
from functools import partial
from typing import Any

import jax
import mujoco
import numpy as np

from envs.film import arrange
from experiments.players import Options, Player, load_players, parse
from vnl_ppo.runtime import keep_compilations


@dataclasses.dataclass(frozen=True)
class WatchOptions(Options):
    """Options of `watch.py`, which shows one policy."""

    speed: float = 1.0
    """Speed of the viewer: 1 for real time, 0.5 for half as fast."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        super().check()
        if len(self.policies) > 1:
            raise ValueError(f"{len(self.policies)} policies are named; the viewer shows one")
        if len(self.lesions) > 1:
            raise ValueError(f"{len(self.lesions)} lesions are named; the viewer shows one")
        if not 0 < self.speed < float("inf"):
            raise ValueError(f"--speed is {self.speed}; it has to be above 0")


def main() -> None:
    """Show one episode again and again until the window is closed."""
    try:
        options, world = parse(WatchOptions, sys.argv[1:], __doc__)
        check_display()
        # Behind the policy comes the same one with a lesion, if one is asked for.
        *_, player = load_players(options.policies, world, lesions=options.lesions)
        _ = player.filmed
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    keep_compilations()
    try:
        show(player, options.seed, options.speed)
    except ValueError as error:
        # Some lesions need several animals at once.
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def check_display() -> None:
    """Raise a ValueError if no window can be opened."""
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise ValueError(
            "there is no display here (DISPLAY is not set), so the viewer cannot open a window; "
            "make a video instead: python experiments/render.py RUN"
        )
    if sys.platform == "darwin" and "MJPYTHON_BIN" not in os.environ:
        raise ValueError("on macOS the viewer needs mjpython: mjpython experiments/watch.py RUN")


def show(player: Player, seed: int, speed: float, opener: Any = None) -> None:
    """Show one episode again and again until the window is closed.

    Args:
        player: the policy in its environment.
        seed: random seed of the episode.
        speed: 1 for real time, 0.5 for half as fast.
        opener: (model, data) -> the viewer; None for MuJoCo's.
    """
    if opener is None:
        # It loads the window system, which has to be there.
        from mujoco.viewer import launch_passive

        opener = partial(launch_passive, show_left_ui=False, show_right_ui=False)
    env, filmed = player.env, player.filmed
    key = jax.random.key(seed)
    reset = jax.jit(env.reset)
    state = reset(key)

    @jax.jit
    def step(actor, state, key, memory):
        obs = jax.tree.map(lambda x: x[None], state.obs)
        action, decision = actor.act(obs, key, memory)
        return env.step(state, action[0]), decision.memory

    model = filmed.whole(state.data)
    data = mujoco.MjData(model)
    with opener(model, data) as viewer:
        # From behind and above, wherever the animal goes; the mouse moves it as ever.
        viewer.cam.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        viewer.cam.trackbodyid = filmed.tracked(model)
        viewer.cam.distance, viewer.cam.azimuth, viewer.cam.elevation = 6.0, 0.0, -25.0
        steps = total = 0
        memory = player.actor.memory(1)
        while viewer.is_running():
            began = time.monotonic()
            arrange(filmed, model, state.data)
            data.qpos[:], data.qvel[:] = map(np.asarray, filmed.joints(state.data))
            data.time = total * filmed.dt
            mujoco.mj_forward(model, data)
            viewer.sync()
            total += 1
            if state.done > 0 or steps == player.episode_length:
                state, memory, steps = reset(key), player.actor.memory(1), 0
            else:
                state, memory = step(player.actor, state, jax.random.fold_in(key, total), memory)
                steps += 1
            time.sleep(max(0.0, filmed.dt / speed - (time.monotonic() - began)))


if __name__ == "__main__":
    main()
