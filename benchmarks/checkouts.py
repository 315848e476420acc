"""Compare the training speed of two checkouts of this repository, in turns.

    git worktree add /tmp/before HEAD~1
    python benchmarks/checkouts.py /tmp/before [--rounds 5] [--only blind]

The gap ant is trained, blind and seeing, by the program of each checkout in turn; every second
round swaps the order. A rate is the median over iterations of `perf/env_steps_per_second` (without
compilation); `ratio` is the median over rounds of this checkout's rate to the other's. The last
line is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import machine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HOUSE = Path(__file__).resolve().parent.parent
OPTIONS = {
    "blind": ["--encoder", "none", "--num-timesteps", "300000"],
    "seeing": ["--num-timesteps", "40000"],
}
EACH = ["--num-evals", "1", "--num-eval-envs", "2", "--video-seconds", "0", "--quiet"]


def main() -> None:
    """Run each and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="the folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=OPTIONS, help="instead of both")
    arguments = parser.parse_args()
    ratios = {}
    for kind in [arguments.only] if arguments.only else list(OPTIONS):
        rates: dict[str, list[float]] = {"this": [], "other": []}
        sides = {"this": HOUSE, "other": arguments.other.resolve()}
        for round_number in range(arguments.rounds):
            for name in sorted(sides, reverse=bool(round_number % 2)):
                rates[name].append(rate(sides[name], OPTIONS[kind]))
                print(kind, name, round(rates[name][-1]), file=sys.stderr, flush=True)
        pairs = [a / b for a, b in zip(rates["this"], rates["other"], strict=True)]
        ratios[kind] = {"ratio": statistics.median(pairs), "rounds": pairs, "rates": rates}
    ratio = {kind: x["ratio"] for kind, x in ratios.items()}
    print(json.dumps({"benchmark": "checkouts", "ratio": ratio, "runs": ratios} | machine()))


def rate(checkout: Path, options: list[str]) -> float:
    """Return the median of the environment steps per second of the iterations of one run."""
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    program = checkout / "experiments" / "gap_ant_vision.py"
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, str(program), "--run-dir", str(run_dir), *EACH, *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env, cwd=checkout)
        events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
        return statistics.median(x.value for x in events.Scalars("perf/env_steps_per_second"))


if __name__ == "__main__":
    main()
