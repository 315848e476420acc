"""Measure the cost of evaluations, checkpoints and logging: their share of a default run's time.

    python benchmarks/overhead.py [--seed 0] [--only seeing]

The gap ant is trained as a user trains it, seeing and blind, at its default settings, in a
temporary folder; the numbers are read from the run's own events. `share` is the share of the time
from the first update to the last checkpoint that evaluations, checkpoints and logging took
(`perf/overhead`). Only `whole_seconds` includes compilation and the video. The last line is one
JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HOUSE = Path(__file__).resolve().parent.parent
PROGRAM = HOUSE / "experiments" / "gap_ant_vision.py"
KINDS = {"seeing": [], "blind": ["--encoder", "none"]}
LAST = {
    "share": "perf/overhead",
    "x_velocity": "eval/x_velocity",
    "first_update_seconds": "perf/first_update_seconds",
}


def main() -> None:
    """Run each and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=KINDS, help="instead of both")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    kinds = [arguments.only] if arguments.only else list(KINDS)
    runs = {kind: measure([*KINDS[kind], "--seed", str(arguments.seed)]) for kind in kinds}
    report = {"benchmark": "overhead", "ratio": {k: x["share"] for k, x in runs.items()}}
    print(json.dumps(report | {"runs": runs} | machine()))


def measure(options: list[str]) -> dict[str, float]:
    """Seconds of a whole run, and the last values of what it logged."""
    path = os.pathsep.join([str(HOUSE), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        start = time.monotonic()
        command = [sys.executable, str(PROGRAM), "--run-dir", str(run_dir), *options]
        subprocess.run(
            command, check=True, stdout=sys.stderr, env={**os.environ, "PYTHONPATH": path}
        )
        seconds = time.monotonic() - start
        events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
        rates = [x.value for x in events.Scalars("perf/env_steps_per_second")]
        last = {name: events.Scalars(tag)[-1].value for name, tag in LAST.items()}
    return last | {
        "whole_seconds": seconds,
        "env_steps_per_second": sorted(rates)[len(rates) // 2],
    }


if __name__ == "__main__":
    main()
