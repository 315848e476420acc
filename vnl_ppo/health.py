"""Stop a run that keeps producing numbers that are not finite, and warn of what cannot be meant."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

PATIENCE = 10
"""Number of bad iterations in a row after which a run is stopped."""
SHARE = 0.01
"""Share of an iteration's steps in which the environment may break down."""
_STEP_FAULTS = "train/nonfinite_"
_EPISODES = _STEP_FAULTS + "episodes"
_ENDED = "train/episodes"
_LOST = "train/lost_truncations"
_UPDATES, _SKIPPED = "train/updates", "train/skipped_updates"


class NotFiniteError(Exception):
    """A run keeps producing numbers that are not finite; the message says which came first."""


class Health:
    """Watches the counts of numbers that are not finite in the metrics of a run.

    A broken episode now and then is harmless: it ends, and the others go on. A run is stopped if,
    for `PATIENCE` iterations in a row, every update was skipped or the environment broke down in
    more than `SHARE` of the steps.

    Args:
        steps: environment steps of an iteration.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._first = ""
        self._bad_in_a_row = 0

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Check the metrics of an iteration.

        Args:
            step: environment steps so far.
            metrics: metrics of the iteration; missing counts are 0.

        Raises:
            NotFiniteError: the run has to stop.
        """
        faults = {k: n for k, n in metrics.items() if k.startswith(_STEP_FAULTS) and k != _EPISODES}
        worst = max(faults, key=faults.__getitem__, default="")
        skipped = metrics.get(_SKIPPED, 0)
        if not self._first and worst and faults[worst] > 0:
            self._first = f"{worst.removeprefix(_STEP_FAULTS)} ({worst}), at step {step:,}"
        elif not self._first and skipped > 0:
            self._first = f"gradient ({_SKIPPED}), at step {step:,}"
        stuck = skipped > 0 and metrics.get(_UPDATES, 0) == 0
        breaking = metrics.get(_EPISODES, 0) > SHARE * self._steps
        self._bad_in_a_row = self._bad_in_a_row + 1 if stuck or breaking else 0
        if self._bad_in_a_row >= PATIENCE:
            what = "every update was skipped" if stuck else f"over {SHARE:.0%} of the steps broke"
            raise NotFiniteError(
                f"numbers that are not finite: {what} in {PATIENCE} iterations in a row; the first "
                f"was the {self._first}; inspect the run at that step, or try a smaller "
                f"learning_rate or physics time step"
            )


class HealthOfAll:
    """Watches agents that train together, each by its own `Health`; the run stops with the last.

    Args:
        steps: environment steps of an iteration.
        agents: the agents' names; empty if there is only one.
    """

    def __init__(self, steps: int, agents: Sequence[str] = ()) -> None:
        self._agents = agents or [""]
        self._steps = steps
        self._told: set[str] = set()
        self._healthy = {i: Health(steps) for i in range(len(self._agents))}

    def check(self, step: int, metrics: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        """Check the metrics of an iteration.

        Args:
            step: environment steps so far.
            metrics: metrics of the iteration; those of agents are float[S].
            warn: called with a message about each agent that fails while others go on, and once if
                truncated episodes get a wrong value, or if every step ends an episode.

        Raises:
            NotFiniteError: the last agent failed.
        """
        lost = float(np.sum(metrics.get(_LOST, 0)))
        if lost:
            self._warn_once(
                warn,
                _LOST,
                f"an environment truncated more than one episode in an unroll, and {lost:.0f} of "
                f"them got the value of another ({_LOST}); use a smaller unroll_length",
            )
        if np.any(np.asarray(metrics.get(_ENDED, 0)) >= self._steps):
            self._warn_once(
                warn,
                _ENDED,
                "every step ended an episode, so there is hardly anything to learn; what ends an "
                "episode, such as a height or an orientation that the task asks for, does not suit "
                "how episodes begin",
            )
        of_agents = {k: x for k, x in metrics.items() if k.startswith("train/")}
        for i, health in list(self._healthy.items()):
            try:
                health.check(step, {k: float(x[i]) for k, x in of_agents.items()})
            except NotFiniteError as error:
                del self._healthy[i]
                if not self._healthy:
                    raise
                warn(f"{self._agents[i]} failed, while the others go on: {error}")

    def _warn_once(self, warn: Callable[[str], None], what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warn(message)
