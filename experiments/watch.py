"""Watch an ant run in MuJoCo's own viewer, with its forces, contacts and joints a key away.

python experiments/watch.py runs/mine
python experiments/watch.py random

Needs a display; without one, `experiments/render.py` makes films.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import mujoco
import numpy as np

from envs import world
from experiments.gap_ant import Player, load_player
from vnl_ppo.runtime import keep_compilations


def main() -> None:
    """Show episodes in one corridor until the window is closed."""
    arguments = parse(sys.argv[1:])
    try:
        check_display()
        if not 0 < arguments.speed < float("inf"):
            raise ValueError(f"--speed is {arguments.speed}; it has to be above 0")
        if not 0 <= arguments.seed < 2**32:
            raise ValueError(f"--seed is {arguments.seed}; it has to be from 0 to {2**32 - 1}")
        player = load_player(arguments.policy)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    keep_compilations()
    try:
        show(player, arguments.seed, arguments.speed)
    except KeyboardInterrupt:
        sys.exit(130)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policy", help="a run folder, RUN@STEP, or random")
    parser.add_argument("--seed", type=int, default=0, help="another draws another corridor")
    parser.add_argument("--speed", type=float, default=1.0, help="0.5 is half as fast as real time")
    return parser.parse_args(arguments)


def check_display() -> None:
    """Raise a ValueError where no window can be opened."""
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise ValueError(
            "there is no display here (DISPLAY is not set), so the viewer has no window to open; "
            "make a film instead: python experiments/render.py RUN"
        )
    if sys.platform == "darwin" and "MJPYTHON_BIN" not in os.environ:
        raise ValueError("on macOS the viewer needs mjpython: mjpython experiments/watch.py RUN")


def show(player: Player, seed: int, speed: float, opener: Any = None) -> None:
    """Run episodes, all in one corridor, in real time.

    Args:
        player: who acts.
        seed: of the corridor and the first start.
        speed: 1 is real time.
        opener: (model, data) -> the viewer, by default MuJoCo's.
    """
    if opener is None:
        # It loads the window system, which has to be there.
        from mujoco.viewer import launch_passive

        opener = launch_passive
    env = player.env
    at = jax.jit(env.at)
    key = jax.random.key(seed)
    state = jax.jit(env.reset)(key)
    layout = state.data.layout

    @jax.jit
    def step(state, key, memory):
        obs = jax.tree.map(lambda x: x[None], state.obs)
        action, _, memory = player.actor.act(obs, key, memory)
        return env.step(state, action[0]), memory

    model = world.arena_model(layout, env.config.corridor, env.config.simulation)
    data = mujoco.MjData(model)
    start = (state.data.physics.qpos, state.data.physics.qvel)
    with opener(model, data) as viewer:
        steps = total = 0
        memory = player.actor.memory(1)
        while viewer.is_running():
            began = time.monotonic()
            data.qpos[:] = np.asarray(state.data.physics.qpos)
            data.qvel[:] = np.asarray(state.data.physics.qvel)
            data.time = total * env.dt
            mujoco.mj_forward(model, data)
            viewer.sync()
            total += 1
            if state.done > 0 or steps == player.settings.ppo.episode_length:
                state, memory, steps = at(*start, layout), player.actor.memory(1), 0
            else:
                state, memory = step(state, jax.random.fold_in(key, total), memory)
                steps += 1
            time.sleep(max(0.0, env.dt / speed - (time.monotonic() - began)))


if __name__ == "__main__":
    main()
