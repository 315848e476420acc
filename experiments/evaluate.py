"""How well trained ants do: many whole episodes, with 95 % intervals.

python experiments/evaluate.py runs/mine
python experiments/evaluate.py runs/mine runs/other random --episodes 200
python experiments/evaluate.py runs/mine@300000 random --gap-length 0.3 0.5

Every policy runs in the same corridors from the same starts, so the differences between them are
taken episode by episode. Corridors are those of the first run's training unless flags say
otherwise.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from envs.corridor import CorridorConfig
from experiments.gap_ant import RANDOM, Player, from_dict, load_player, split_name
from vnl_ppo import run_folder
from vnl_ppo.evaluation import run_episodes
from vnl_ppo.intervals import interval
from vnl_ppo.runtime import keep_compilations

SHOWN = {
    "episode_reward": "return",
    "episode_length": "length, steps",
    "distance": "distance along x, m",
    "x_velocity": "x-velocity, m/s",
    "gaps_crossed": "gaps crossed",
}


def main() -> None:
    """Evaluate and print a table, or JSON."""
    arguments = parse(sys.argv[1:])
    try:
        if arguments.episodes < 2:
            raise ValueError(
                f"--episodes is {arguments.episodes}; an interval needs at least 2 of them"
            )
        if not 0 <= arguments.seed < 2**32:
            raise ValueError(f"--seed is {arguments.seed}; it has to be from 0 to {2**32 - 1}")
        corridor = choose_corridor(
            arguments.policies, arguments.platform_length, arguments.gap_length
        )
        players = [
            load_player(name, corridor, deterministic=not arguments.sample)
            for name in arguments.policies
        ]
        keep_compilations()
        length = arguments.episode_length or players[0].settings.ppo.episode_length
        if length < 1:
            raise ValueError(f"--episode-length is {length}; it has to be at least 1")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    found = [evaluate(player, arguments.episodes, length, arguments.seed) for player in players]
    names = [player.name for player in players]
    if arguments.json:
        print(json.dumps(as_json(names, found, corridor, arguments.seed)))
    else:
        Console().print(table(names, found, arguments.episodes, length))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policies", nargs="+", help="run folders, RUN@STEP, RUN/seed_3, or random")
    parser.add_argument("--episodes", type=int, default=100, help="of each policy")
    parser.add_argument("--episode-length", type=int, default=0, help="steps; 0 as in training")
    parser.add_argument("--seed", type=int, default=0, help="another draws other corridors")
    parser.add_argument("--sample", action="store_true", help="sample actions; default: the mode")
    for name in ("--platform-length", "--gap-length"):
        ends = ("LOWEST", "HIGHEST")
        parser.add_argument(name, nargs=2, type=float, metavar=ends, help="metres")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser.parse_args(arguments)


def choose_corridor(
    policies: Sequence[str],
    platform_length: Sequence[float] | None,
    gap_length: Sequence[float] | None,
) -> CorridorConfig:
    """The corridors for all: those of the first run, with the lengths that are given."""
    names = [split_name(name)[0] for name in policies if name != RANDOM]
    folders = [run_folder.split_agent(name)[0] for name in names]
    corridor = CorridorConfig()
    if folders and folders[0].is_dir():
        corridor = from_dict(run_folder.read_settings(folders[0]), str(folders[0])).env.corridor
    if platform_length:
        corridor = dataclasses.replace(corridor, platform_length=_pair(platform_length))
    if gap_length:
        corridor = dataclasses.replace(corridor, gap_length=_pair(gap_length))
    return corridor


def _pair(values: Sequence[float]) -> tuple[float, float]:
    return values[0], values[1]


def evaluate(player: Player, episodes: int, length: int, seed: int) -> dict[str, np.ndarray]:
    """float32[episodes] by name: what each episode came to. A seed stands for its corridors."""

    @jax.jit
    def episodes_of(key: jax.Array) -> dict[str, jax.Array]:
        return run_episodes(player.env, player.actor, key, episodes, length)[0]

    metrics = jax.device_get(episodes_of(jax.random.key(seed)))
    start = player.env.model.qpos0[0]
    return {k: np.asarray(x) for k, x in metrics.items()} | {
        "distance": np.asarray(metrics["x_position"]) - np.float32(start)
    }


def table(
    names: Sequence[str], found: Sequence[Mapping[str, np.ndarray]], episodes: int, length: int
) -> Table:
    """One column for each policy, and for each but the first one of its differences to that."""
    result = Table(
        title=f"mean and 95 % interval of {episodes} episodes of at most {length} steps, "
        f"in the same corridors"
    )
    result.add_column("")
    for name in [*names, *(f"{name} - {names[0]}" for name in names[1:])]:
        result.add_column(name, justify="right")
    for key, title in SHOWN.items():
        means = [_written(interval(metrics[key])) for metrics in found]
        differences = [_written(interval(m[key] - found[0][key]), "+") for m in found[1:]]
        result.add_row(title, *means, *differences)
    return result


def as_json(
    names: Sequence[str],
    found: Sequence[Mapping[str, np.ndarray]],
    corridor: CorridorConfig,
    seed: int,
) -> dict[str, object]:
    """Means, half-widths and the episodes themselves."""
    policies = []
    for name, metrics in zip(names, found, strict=True):
        entry: dict[str, object] = {"policy": name}
        for k in SHOWN:
            mean, half = interval(metrics[k])
            entry[k] = {"mean": mean, "half_width_95": half, "episodes": metrics[k].tolist()}
        policies.append(entry)
    return {"policies": policies, "corridor": dataclasses.asdict(corridor), "seed": seed}


def _written(mean_and_half: tuple[float, float], sign: str = "") -> str:
    mean, half = mean_and_half
    return f"{mean:{sign}.2f} ± {half:.2f}"


if __name__ == "__main__":
    main()
