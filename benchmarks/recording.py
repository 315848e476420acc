"""Compare recording all modules with evaluating as many episodes, as whole processes.

    python benchmarks/recording.py [--episodes 100] [--length 400] [--repeats 3] [--half]

A default seeing gap ant, whose network is as it was drawn, runs the same number of episodes in
`experiments/evaluate.py` and in `experiments/record.py`, each in a process of its own, `--repeats`
times in turn after a first time that fills the cache of compiled programs. Falls do not end
episodes: any height is healthy. `ratio` has the seconds of recording
over those of evaluating, medians; `extra_gib` is the peak of the resident memory of recording less
that of evaluating. The last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
from machine import machine

HOUSE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOUSE))

from experiments.command_line import parse  # noqa: E402
from experiments.settings import BUILDER, build, to_dict  # noqa: E402
from vnl_ppo import checkpoint, run_folder  # noqa: E402
from vnl_ppo.normalization import init_moments  # noqa: E402
from vnl_ppo.policy import Weights, init_params  # noqa: E402

WORLD = ("--task.healthy-height", "-100", "100")


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--length", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--half", action="store_true", help="float16 on disk")
    arguments = parser.parse_args()
    size = ["--episodes", str(arguments.episodes), "--episode-length", str(arguments.length)]
    found: dict[str, list[dict[str, float]]] = {"evaluate": [], "record": []}
    with tempfile.TemporaryDirectory() as folder:
        run, recording = Path(folder) / "run", Path(folder) / "recording.zarr"
        make_run(run)
        more = ["--output", str(recording), *(["--half"] if arguments.half else [])]
        for repeat in range(arguments.repeats + 1):
            for name, options in (("evaluate", []), ("record", more)):
                one = measure([f"experiments/{name}.py", str(run), *size, *options])
                print(f"{name}: {one}", flush=True)
                if repeat:
                    found[name].append(one)
            stored = sum(x.stat().st_size for x in recording.rglob("*") if x.is_file()) / 2**30
            shutil.rmtree(recording)
    medians = {
        name: {k: statistics.median(x[k] for x in all_of_it) for k in ("seconds", "peak_gib")}
        for name, all_of_it in found.items()
    }
    ratio = medians["record"]["seconds"] / medians["evaluate"]["seconds"]
    extra = medians["record"]["peak_gib"] - medians["evaluate"]["peak_gib"]
    report = {"benchmark": "recording", "ratio": ratio, "extra_gib": extra, "stored_gib": stored}
    print(json.dumps(report | medians | {"settings": vars(arguments)} | machine()))


def make_run(folder: Path) -> None:
    """Make the folder of a run that has learned nothing."""
    settings = parse(list(WORLD), None, "gap_ant")
    env, network = build(settings)
    run_folder.create(folder, to_dict(settings), BUILDER)
    params = init_params(network, env.observation_spec, jax.random.key(0))
    weights = Weights(params, init_moments(env.observation_spec))
    # Of one agent.
    state = {"weights": jax.tree.map(lambda x: x[None], weights)}
    checkpoint.save(folder / run_folder.CHECKPOINTS, 0, state)


def measure(command: list[str]) -> dict[str, float]:
    """Return the seconds and the peak of the resident memory, GiB, of a whole process."""
    path = os.pathsep.join([str(HOUSE), os.environ.get("PYTHONPATH", "")])
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=HOUSE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": time.monotonic() - start, "peak_gib": usage.ru_maxrss * unit / 2**30}


if __name__ == "__main__":
    main()
