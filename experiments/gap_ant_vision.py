"""An ant learns, from its own eyes, to run a corridor with gaps.

python experiments/gap_ant_vision.py
python experiments/gap_ant_vision.py --encoder none            # a blind ant
python experiments/gap_ant_vision.py --encoder my_lab.eyes:Retina
python experiments/gap_ant_vision.py --resume runs/gap_ant_vision-20260101-120000
python experiments/gap_ant_vision.py --config runs/gap_ant_vision-20260101-120000/config.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax

from envs.gap_ant import GapAnt
from envs.video import FRAMES_PER_SECOND, film, write
from experiments import command_line
from experiments.command_line import Experiment
from experiments.gap_ant import (
    BLIND,
    BUILDER,
    Settings,
    build,
    default_settings,
    traced_from,
)
from vnl_ppo import run_folder
from vnl_ppo.evaluation import make_record
from vnl_ppo.events import EventFile
from vnl_ppo.networks import ActorCritic
from vnl_ppo.policy import Weights


def parse(arguments: Sequence[str]) -> Settings:
    """Settings from the command line; a blind ant needs less than one that sees."""

    def defaults(arguments: Sequence[str]) -> Settings:
        return default_settings(
            command_line.option(arguments, "--encoder", Settings.encoder) != BLIND
        )

    return command_line.parse(arguments, defaults, __doc__)


def title(settings: Settings) -> str:
    """What its run folders are called."""
    return "gap_ant_blind" if settings.encoder == BLIND else "gap_ant_vision"


def film_episode(
    settings: Settings, env: GapAnt, network: ActorCritic, weights: Weights, folder: Path
) -> Sequence[str]:
    """Film what was learned, unless a run that is resumed after its end has its film already."""
    step = settings.ppo.num_iterations * settings.ppo.steps_per_iteration
    path = folder / run_folder.VIDEOS / f"{step}.mp4"
    if settings.video_seconds > 0 and not path.exists():
        length = min(round(settings.video_seconds / env.dt), settings.ppo.episode_length)
        record = make_record(env, network, settings.ppo, length)
        data, alive = record(weights, jax.random.key(settings.ppo.seed))
        frames = list(film(env, data, alive, "floating", (480, 640), inset=160))
        write(frames, path)
        # Every second pixel and frame: TensorBoard shows it as a gif, which is large.
        log = EventFile(folder)
        log.film(step, "eval/video", [x[::2, ::2] for x in frames[::2]], FRAMES_PER_SECOND / 2)
        log.close()
    return [f"video in {path}"] if path.exists() else []


GAP_ANT = Experiment(
    builder=BUILDER,
    parse=parse,
    build=build,
    title=title,
    simulator=lambda settings, env: env.back_end,
    finish=film_episode,
    traced_from=traced_from,
)

if __name__ == "__main__":
    command_line.main(GAP_ANT)
