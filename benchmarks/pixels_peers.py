"""Compare how fast an ant is trained from pixels, with Stable-Baselines3 over dm_control.

    python benchmarks/pixels_peers.py [--seconds 60] [--rounds 2]

Both train PPO on dm_control's corridor with gaps, its ant and 64x64 pixels of the ant's own camera,
with NatureCNN of 128 features, two hidden layers of 128, as many steps in an iteration, samples in
a minibatch and passes over them. Stable-Baselines3 takes the usual way: dm_control steps and draws
one environment in each of two worker processes; it runs in a virtual environment of its own, made
from peers/sb3.txt. Brax PPO is not among the sides: it has no camera, and no renderer of its own.

The sides run in turns, each in its own process; compilation and start are not counted. The last
line is one JSON object with `ratio.ours_vs_stable_baselines3`.
"""

import argparse
import json
import statistics
from pathlib import Path

from machine import machine
from peers.processes import VENVS, finish, python_of, start

HIDDEN = 128
SHARED = {
    "episode_length": 200,
    "num_updates_per_batch": 2,
    "learning_rate": 1e-3,
    "discounting": 0.97,
}
STEPS, MINIBATCHES = 2560, 8
"""Environment steps of an iteration, and minibatches among which they are shared."""
OURS = SHARED | {"num_envs": 128, "unroll_length": 20, "batch_size": 16, "num_minibatches": 8}
THEIRS = SHARED | {
    "num_workers": 2,
    "steps_per_iteration": STEPS,
    "samples_per_minibatch": STEPS // MINIBATCHES,
    "hidden": [HIDDEN, HIDDEN],
    "features": HIDDEN,
}
SIDES = {"ours": ("ours", OURS), "stable_baselines3": ("sb3", THEIRS)}


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="that a side trains in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--venvs", type=Path, default=VENVS, help="of peers; made if not there")
    arguments = parser.parse_args()
    pythons = {side: python_of(peer, arguments.venvs) for side, (peer, _) in SIDES.items()}
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(arguments.rounds):
        rounds.append({})
        for side, (peer, settings) in SIDES.items():
            given = "gap_ant:vision", arguments.seconds, settings
            printed = finish(start(pythons[side], f"rate_{peer}.py", *given))
            rounds[-1][side] = json.loads(printed.splitlines()[-1])
            print(f"{side}: {rounds[-1][side]}", flush=True)
    each = {side: [r[side]["env_steps_per_second"] for r in rounds] for side in SIDES}
    ratios = [a / b for a, b in zip(each["ours"], each["stable_baselines3"], strict=True)]
    result = {
        "benchmark": "pixels_peers",
        "ratio": {"ours_vs_stable_baselines3": statistics.fmean(ratios)},
        "each_round": ratios,
        "env_steps_per_second": {side: statistics.fmean(x) for side, x in each.items()},
        "rounds": rounds,
        "settings": {"ours": OURS, "stable_baselines3": THEIRS},
    }
    print(json.dumps(result | machine()))


if __name__ == "__main__":
    main()
