"""Test when a run that produces numbers that are not finite is given up."""

import numpy as np
import pytest

from vnl_ppo.health import PATIENCE, Health, HealthOfAll, NotFiniteError

GOOD = {"train/updates": 8.0, "train/skipped_updates": 0.0, "train/nonfinite_episodes": 0.0}
STUCK = {"train/updates": 0.0, "train/skipped_updates": 8.0, "train/nonfinite_episodes": 0.0}


def broken(count, what):
    return GOOD | {"train/nonfinite_episodes": count, f"train/nonfinite_{what}": count}


def test_a_few_broken_episodes_are_no_reason():
    health = Health(1000)
    for step in range(5 * PATIENCE):
        health.check(step, broken(10.0, "reward"))
    # Nor is a bad time that ends.
    for _ in range(3):
        for step in range(PATIENCE - 1):
            health.check(step, STUCK)
        health.check(0, GOOD)
    health.check(0, {})


def test_a_run_that_cannot_update_is_given_up():
    health = Health(1000)
    for step in range(PATIENCE - 1):
        health.check(step, STUCK)
    with pytest.raises(NotFiniteError, match=r"every update was skipped.*gradient.*at step 0;"):
        health.check(99, STUCK)


def test_what_came_first_is_named():
    health = Health(1000)
    health.check(1234, broken(1.0, "simulation"))
    with pytest.raises(NotFiniteError, match=r"1% of the steps.*simulation.*at step 1,234;"):
        for step in range(PATIENCE):
            health.check(5000 + step, broken(11.0, "reward"))


def test_of_many_agents_the_last_decides():
    health, warnings = HealthOfAll(1000, ["seed_4", "seed_5"]), []
    both = lambda first, second: {k: np.array([first[k], second[k]]) for k in GOOD}
    for step in range(2 * PATIENCE):
        health.check(step, both(STUCK, GOOD) | {"perf/seconds": 1.0}, warnings.append)
    (warning,) = warnings
    assert "seed_4" in warning and "every update was skipped" in warning
    with pytest.raises(NotFiniteError):
        for step in range(PATIENCE):
            health.check(step, both(GOOD, STUCK), warnings.append)
    assert len(warnings) == 1


def test_lost_truncations_are_told_once():
    health, warnings = HealthOfAll(1000), []
    for lost in (0.0, 3.0, 5.0):
        metrics = {k: np.array([x]) for k, x in GOOD.items()}
        health.check(0, metrics | {"train/lost_truncations": np.array([lost])}, warnings.append)
    (warning,) = warnings
    assert "3 of them got the value of another" in warning and "smaller unroll_length" in warning


def test_episodes_of_one_step_are_told_once():
    health, warnings = HealthOfAll(1000, ["seed_0", "seed_1"]), []
    for ended in ([20.0, 999.0], [20.0, 1000.0], [1000.0, 1000.0]):
        metrics = {k: np.array([x, x]) for k, x in GOOD.items()}
        health.check(0, metrics | {"train/episodes": np.array(ended)}, warnings.append)
        assert len(warnings) == (ended[1] == 1000)
    assert "every step ended an episode" in warnings[0]
