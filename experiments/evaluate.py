"""Evaluate trained policies over many whole episodes, with 95 % confidence intervals.

    python experiments/evaluate.py runs/mine
    python experiments/evaluate.py runs/mine runs/other random --episodes 200
    python experiments/evaluate.py runs/mine@300000 random --arena.gap-length 0.3 0.5
    python experiments/evaluate.py runs/mine --lesion vision=blank vision=other

All policies start their episodes from the same states, so differences between policies are taken
episode by episode. All act in the environment of the first run, which flags can change.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.table import Table

from experiments.players import EpisodeOptions, Player, load_players, parse
from experiments.results import show
from experiments.settings import Settings, to_dict
from vnl_ppo.evaluation import Actor, run_episodes
from vnl_ppo.intervals import interval
from vnl_ppo.runtime import keep_compilations


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(EpisodeOptions):
    """Options of `evaluate.py`."""

    episodes: int = 100
    """Number of episodes of each policy, 2 or more."""
    sample: bool = False
    """Sample actions instead of taking the mode of the policy's distribution."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        super().check()
        if self.episodes < 2:
            raise ValueError(f"--episodes is {self.episodes}; an interval needs at least 2 of them")


def main() -> None:
    """Evaluate and print a table, or JSON."""
    try:
        options, world = parse(EvaluateOptions, sys.argv[1:], __doc__)
        players = load_players(options.policies, world, not options.sample, options.lesions)
        keep_compilations()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    length = options.length_in(world)
    try:
        found = [evaluate(player, options.episodes, length, options.seed) for player in players]
    except KeyboardInterrupt:
        sys.exit(130)
    if options.json:
        print(json.dumps(as_json(players, found, world, options.seed)))
    else:
        show(table(players, found, options.episodes, length))


def evaluate(player: Player, episodes: int, length: int, seed: int) -> dict[str, np.ndarray]:
    """Return the metrics of each episode, float32[episodes] by name; `seed` draws the episodes."""

    @jax.jit
    def episodes_of(actor: Actor, key: jax.Array) -> dict[str, jax.Array]:
        return run_episodes(player.env, actor, key, episodes, length)[0]

    metrics = jax.device_get(episodes_of(player.actor, jax.random.key(seed)))
    return {name: np.asarray(x) for name, x in metrics.items()}


def table(
    players: Sequence[Player],
    found: Sequence[Mapping[str, np.ndarray]],
    episodes: int,
    length: int,
) -> Table:
    """Return a table with a column for each policy, and one for its difference from the first."""
    result = Table(
        title=f"mean and 95 % interval of {episodes} episodes of at most {length} steps, "
        f"the same for all"
    )
    result.add_column("")
    names = [player.name for player in players]
    for name in [*names, *(f"{name} - {names[0]}" for name in names[1:])]:
        result.add_column(name, justify="right")
    for key, title in players[0].shown.items():
        means = [_written(interval(metrics[key])) for metrics in found]
        differences = [_written(interval(m[key] - found[0][key]), "+") for m in found[1:]]
        result.add_row(title, *means, *differences)
    return result


def as_json(
    players: Sequence[Player],
    found: Sequence[Mapping[str, np.ndarray]],
    world: Settings,
    seed: int,
) -> dict[str, object]:
    """Return means, half widths and episodes of each policy, and the settings of the world."""
    policies = []
    for player, metrics in zip(players, found, strict=True):
        entry: dict[str, object] = {"policy": player.name}
        for k in player.shown:
            mean, half = interval(metrics[k])
            entry[k] = {"mean": mean, "half_width_95": half, "episodes": metrics[k].tolist()}
        policies.append(entry)
    plain: dict[str, Any] = to_dict(world)
    shared = ("env", "arena", "walker", "task", "simulation", "physics")
    return {
        "policies": policies,
        "world": {name: plain[name] for name in shared if name in plain},
        "seed": seed,
    }


def _written(mean_and_half: tuple[float, float], sign: str = "") -> str:
    mean, half = mean_and_half
    return f"{mean:{sign}.2f} ± {half:.2f}"


if __name__ == "__main__":
    main()
