"""Measure rates in turns, so that the load of the machine is the same for all that is compared."""

import time
from collections.abc import Callable, Mapping


def rates(
    sides: Mapping[str, Callable[[], int]], seconds: float, turn: float = 0.0
) -> dict[str, float]:
    """Units per second of each side. A first call of each, which may compile, is not counted.

    Args:
        sides: by name, what does some work and returns how many units it did.
        seconds: that each side works in all.
        turn: seconds that a side works at least before the next has its turn.
    """
    for work in sides.values():
        work()
    done, spent = dict.fromkeys(sides, 0), dict.fromkeys(sides, 0.0)
    while min(spent.values()) < seconds:
        for name, work in sides.items():
            begin = time.perf_counter()
            done[name] += work()
            while time.perf_counter() - begin < turn:
                done[name] += work()
            spent[name] += time.perf_counter() - begin
    return {name: done[name] / spent[name] for name in sides}
