"""Measure how long a user waits until the gap ant runs from pixels, and how fast it is at the end.

    python benchmarks/time_to_speed.py                                  # this checkout, five seeds
    git worktree add ../before HEAD~1
    python benchmarks/time_to_speed.py --against ../before

Each seed is trained by the main job's program with its defaults, but is evaluated more often. The
minutes to a speed are those from the start of the program to the first evaluation that reaches it;
`without_compiling` leaves out the time until the first update. A run that never gets there counts
with its whole length, and is counted in `never`. With --against, each seed is trained by both
checkouts in turn, the other order every second seed. Each run starts with an empty cache of
compiled programs, as a new user's does; `--warm` keeps the cache.

The last line is one JSON object: `minutes.<before|now>.<speed>` has median, worst and each seed,
`final_speed.<before|now>` the speed of each seed's last policy in 128 other episodes, run after the
clock has stopped, `ratio.before_vs_now.<speed>` the median over seeds of the ratio of minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HOUSE = Path(__file__).resolve().parent.parent
SPEEDS = (1.0, 1.5, 2.0)
"""Metres per second."""
EPISODES = 128
"""Episodes for the speed at the end; those of an evaluation are too few to tell 0.2 m/s."""


def main() -> None:
    """Train all and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, help="the folder of another checkout: `before`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--num-evals", type=int, default=16)
    parser.add_argument("--warm", action="store_true", help="keep the cache of compiled programs")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="for `now` alone")
    arguments = parser.parse_args()
    sides = {"now": HOUSE}
    if arguments.against:
        sides["before"] = arguments.against.resolve()
    runs: dict[str, list[dict]] = {side: [] for side in sides}
    for i, seed in enumerate(arguments.seeds):
        for side in sorted(sides, reverse=bool(i % 2)):
            own = arguments.flags if side == "now" else []
            flags = ["--seed", str(seed), "--num-evals", str(arguments.num_evals), *own]
            runs[side].append(train(sides[side], flags, arguments.warm))
            print(side, seed, runs[side][-1], file=sys.stderr, flush=True)
    result = {
        "benchmark": "time_to_speed",
        "seeds": arguments.seeds,
        "flags": arguments.flags,
        "minutes": {side: minutes(x, "minutes") for side, x in runs.items()},
        "minutes_without_compiling": {side: minutes(x, "learning") for side, x in runs.items()},
        "never": {
            side: {str(v): sum(r["never"][str(v)] for r in x) for v in SPEEDS}
            for side, x in runs.items()
        },
        "final_speed": {side: [r["final_speed"] for r in x] for side, x in runs.items()},
        "runs": runs,
    }
    if arguments.against:
        pairs = list(zip(runs["before"], runs["now"], strict=True))
        result["ratio"] = {
            "before_vs_now": {
                str(v): statistics.median(
                    a["minutes"][str(v)] / b["minutes"][str(v)] for a, b in pairs
                )
                for v in SPEEDS
            }
        }
    print(json.dumps(result | machine()))


def minutes(runs: list[dict], kind: str) -> dict[str, dict]:
    """Return median, worst and each of the minutes to each speed."""
    each = {str(v): [run[kind][str(v)] for run in runs] for v in SPEEDS}
    return {
        v: {"median": statistics.median(x), "worst": max(x), "each": x} for v, x in each.items()
    }


def train(checkout: Path, flags: list[str], warm: bool) -> dict:
    """Train once, and return minutes to each speed and the speed at the end."""
    program = checkout / "experiments" / "gap_ant_vision.py"
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        env = {**os.environ, "PYTHONPATH": str(checkout)}
        if not warm:
            env["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder) / "cache")
        command = [sys.executable, str(program), "--run-dir", str(run_dir), "--quiet"]
        begin = time.time()
        subprocess.run(
            [*command, "--video-seconds", "0", *flags],
            check=True, stdout=subprocess.DEVNULL, env=env, cwd=checkout,
        )  # fmt: skip
        whole = time.time() - begin
        events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
        speeds = events.Scalars("eval/x_velocity")
        first_update = events.Scalars("train/loss")[0].wall_time - begin
        final = speed_of(checkout, run_dir, env)
    return result_of([(e.wall_time - begin, e.value) for e in speeds], whole, first_update, final)


def speed_of(checkout: Path, run_dir: Path, env: dict[str, str]) -> float:
    """Return the mean speed of a run's last policy in `EPISODES` episodes, metres per second."""
    program = checkout / "experiments" / "evaluate.py"
    command = [sys.executable, str(program), str(run_dir), "--episodes", str(EPISODES), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    (policy,) = json.loads(done.stdout)["policies"]
    return policy["x_velocity"]["mean"]


def result_of(
    speeds: list[tuple[float, float]], whole: float, first_update: float, final: float
) -> dict:
    """Return minutes to each speed from the times and values of evaluations.

    Args:
        speeds: seconds since the start, and metres per second, of each evaluation.
        whole: seconds that the program ran.
        first_update: seconds until the first update was logged.
        final: the last policy's speed, metres per second.
    """
    reached = {v: next((t for t, speed in speeds if speed >= v), None) for v in SPEEDS}
    seconds = {v: whole if t is None else t for v, t in reached.items()}
    return {
        "minutes": {str(v): t / 60 for v, t in seconds.items()},
        "learning": {str(v): max(0.0, t - first_update) / 60 for v, t in seconds.items()},
        "never": {str(v): t is None for v, t in reached.items()},
        "final_speed": final,
        "curve": speeds,
        "first_update_seconds": first_update,
        "whole_minutes": whole / 60,
    }


if __name__ == "__main__":
    main()
