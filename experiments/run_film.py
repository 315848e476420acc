"""Film the policy that a run has learned, in its videos/ and in TensorBoard."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from envs.film import FRAMES_PER_SECOND, film, view_of, write
from experiments.settings import Settings
from vnl_ppo import run_folder
from vnl_ppo.evaluation import make_record
from vnl_ppo.events import EventFile
from vnl_ppo.networks import ActorCritic
from vnl_ppo.policy import Weights

MOST_EPISODES = 20
"""Maximum number of episodes in the video of a run, for animals that fall at once."""


def film_episodes(
    settings: Settings,
    env: Any,
    network: ActorCritic,
    weights: Weights,
    folder: Path,
    step: int,
) -> Path | None:
    """Film the policy of a step, unless the video exists; return its path or None.

    Episodes follow each other until `video_seconds` are full, at most `MOST_EPISODES`: one alone
    may show what is rare. They are those that `render.py` films with the run's seed, the next seed,
    and so on.
    """
    path = folder / run_folder.VIDEOS / f"{step}.mp4"
    view = view_of(env)
    if settings.video_seconds <= 0 or view is None:
        return None
    if not path.exists():
        wanted = max(1, round(settings.video_seconds / view.dt))
        length = min(wanted, settings.ppo.episode_length)
        record = make_record(env, network, settings.ppo, length)
        episodes: list[Any] = []
        total = 0
        while total < wanted and len(episodes) < MOST_EPISODES:
            data, alive = record(weights, jax.random.key(settings.ppo.seed + len(episodes)))
            shown = min(wanted - total, int(alive.sum()))
            episodes.append(jax.tree.map(lambda x, n=shown: x[:n], data))
            total += shown
        states = jax.tree.map(lambda *x: jnp.concatenate(x), *episodes)
        every = jnp.ones(total, bool)
        frames = list(film(view, states, every, view.film_camera, (480, 640), inset=160))
        write(frames, path)
        # Every second pixel and frame: TensorBoard shows it as a gif, which is large.
        log = EventFile(folder)
        log.film(step, "eval/video", [x[::2, ::2] for x in frames[::2]], FRAMES_PER_SECOND / 2)
        log.close()
    return path
