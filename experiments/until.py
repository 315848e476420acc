"""End a training when an evaluation says that its goal is reached: `--until`.

`--until "obstacles_passed>=4"` ends it once the mean over the episodes of an evaluation was at
least 4 in `EVALUATIONS` evaluations in a row.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.names import known_names
from vnl_ppo import checkpoint, run_folder
from vnl_ppo.env import Env
from vnl_ppo.ppo import TrainingState
from vnl_ppo.train import StopTraining

EVALUATIONS = 3
"""Number of evaluations in a row that have to reach the goal."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """A metric of evaluations and the least that it has to be, as METRIC>=NUMBER says it."""

    metric: str
    least: float

    def __str__(self) -> str:
        return f"{self.metric}>={self.least:g}"

    def reached(self, values: Sequence[float]) -> bool:
        """Whether the last `EVALUATIONS` of the evaluations so far reach the goal."""
        last = values[-EVALUATIONS:]
        return len(last) == EVALUATIONS and all(x >= self.least for x in last)


def parse_goal(text: str, flag: str = "--until") -> Goal:
    """Return the goal that METRIC>=NUMBER says; `flag` is where it was given, for messages.

    Raises:
        ValueError: it is written in another way.
    """
    metric, sign, number = (part.strip() for part in text.partition(">="))
    try:
        least = float(number)
    except ValueError:
        least = math.nan
    if not sign or not math.isfinite(least):
        raise ValueError(f"{flag} is {text!r}; write METRIC>=NUMBER, such as success>=0.8")
    return Goal(metric, least)


def read_goal(text: str, env: Env, flag: str = "--until") -> Goal:
    """Return the goal that a setting names; `flag` is where it was given, for messages.

    Raises:
        ValueError: it is written in another way, or evaluations have no such metric.
    """
    goal, known = parse_goal(text, flag), metrics_of(env)
    if goal.metric not in known:
        raise ValueError(
            f"{flag} names {goal.metric!r}, which evaluations do not measure; "
            f"{known_names(goal.metric, known)}"
        )
    return goal


def metrics_of(env: Env) -> list[str]:
    """Return the names of the metrics of an evaluation."""
    state = jax.eval_shape(env.reset, jax.eval_shape(lambda: jax.random.key(0)))
    return [*state.metrics, "episode_reward", "episode_length"]


def evaluations_of(run: Path, metric: str) -> dict[int, float]:
    """Return a metric of a run's evaluations up to its newest checkpoint, by environment step.

    A resumed run goes on from there and makes later evaluations again.
    """
    saved = checkpoint.steps(run / run_folder.CHECKPOINTS)
    if not saved:
        return {}
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tag = f"eval/{metric}"
    found = events.Scalars(tag) if tag in events.Tags()["scalars"] else []
    return {event.step: event.value for event in found if event.step <= saved[-1]}


class Until:
    """Ends the training when a goal is reached; a `vnl_ppo.train.Hook`.

    Args:
        goal: what has to be reached.
        run: the run's folder; what it evaluated before it was resumed counts too.
    """

    def __init__(self, goal: Goal, run: Path) -> None:
        self.goal = goal
        self.values = list(evaluations_of(run, goal.metric).values())

    def __call__(self, step: int, metrics: Mapping[str, float], state: TrainingState) -> Any:
        """Raise `StopTraining` if the goal is reached."""
        tag = f"eval/{self.goal.metric}"
        if tag not in metrics:
            return None
        # As TensorBoard keeps it, from where a resumed run reads it.
        self.values.append(metrics[tag])
        if self.goal.reached(self.values):
            raise StopTraining(f"{self.goal} in {EVALUATIONS} evaluations in a row")
        return None
