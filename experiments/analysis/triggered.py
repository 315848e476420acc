"""Average activity around events, such as the crossing of an edge."""

import dataclasses

import numpy as np

from experiments.analysis.episodes import over_episodes


@dataclasses.dataclass(frozen=True)
class Triggered:
    """Activity around events.

    Attributes:
        lags: int[L], steps from the event.
        mean: float[L, units], mean over episodes of each episode's mean over its events.
        sem: float[L, units], its standard error over episodes.
        events: number of events.
    """

    lags: np.ndarray
    mean: np.ndarray
    sem: np.ndarray
    events: int


def rises(counter: np.ndarray, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where a number rises: episodes int[k] and times int[k] of the steps with more than the
    step before.

    Args:
        counter: float[E, T], such as the number of obstacles passed.
        alive: bool[E, T], which steps belong to the episode.
    """
    risen = (np.diff(counter, axis=1) > 0) & alive[:, 1:] & alive[:, :-1]
    episode, time = np.nonzero(risen)
    return episode, time + 1


def whole(
    events: tuple[np.ndarray, np.ndarray], alive: np.ndarray, before: int, after: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the events from `before` steps before which to `after` steps after which the episode
    goes on."""
    episode, time = events
    lengths = alive.sum(axis=1)[episode]
    inside = (time >= before) & (time + after < lengths)
    return episode[inside], time[inside]


def triggered_average(windows: np.ndarray, episodes: np.ndarray, before: int) -> Triggered:
    """Return the average of windows around events.

    Args:
        windows: float[k, L, units], activity around k events.
        episodes: int[k], the episode of each.
        before: steps of a window before its event.
    """
    mean, sem = over_episodes(windows, episodes)
    return Triggered(np.arange(windows.shape[1]) - before, mean, sem, len(windows))
