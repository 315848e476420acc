"""Compare what we learn with Brax PPO: Brax's ant on MJX, the same steps and hyper-parameters.

    pip install -e ".[brax]"
    python benchmarks/peers_learning.py [--picture curves.png] | tee learning.json

Both train from each seed, one run of each at a time, and save policies on the way. Then one program
evaluates all of them, by their modes and from the same first states. The last line is one JSON
object: returns by side, seed and step, and the mean of the last returns over seeds with its 95 %
interval (Student's t). On two cores this takes some forty minutes.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from machine import machine
from peers.hyper_parameters import SETTINGS
from peers.processes import VENVS, finish, python_of, start

from vnl_ppo.intervals import interval

ENV = "brax:ant"
SIDES = ("ours", "brax")


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5_000_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="two at least")
    parser.add_argument("--points", type=int, default=10, help="policies kept of each run")
    parser.add_argument("--episodes", type=int, default=64, help="that each policy plays")
    parser.add_argument("--folder", type=Path, help="for the policies; by default one of its own")
    parser.add_argument("--picture", type=Path, help="to draw the curves into")
    parser.add_argument("--venvs", type=Path, default=VENVS, help="of peers; made if not there")
    arguments = parser.parse_args()
    if len(arguments.seeds) < 2:
        raise SystemExit(f"error: --seeds is {arguments.seeds}; an interval needs two at least")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="peers_learning_"))
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"error: --folder {folder} is not empty; give one that is")

    python = {side: python_of(side, arguments.venvs) for side in SIDES}
    for seed in arguments.seeds:
        given = [ENV, seed, arguments.steps, arguments.points]
        runs = [
            start(python[side], f"learn_{side}.py", *given, folder / side / str(seed), SETTINGS)
            for side in SIDES
        ]
        for run in runs:
            finish(run)
    kept = {side: {seed: folder / side / str(seed) for seed in arguments.seeds} for side in SIDES}
    every = [path for seeds in kept.values() for path in seeds.values()]
    judged = json.loads(
        finish(start(python["ours"], "judge.py", ENV, arguments.episodes, *every)).splitlines()[-1]
    )
    returns = {side: {k: judged[str(v)] for k, v in seeds.items()} for side, seeds in kept.items()}
    result = report(returns) | {"settings": SETTINGS, "episodes": arguments.episodes} | machine()
    print(json.dumps(result))
    if arguments.picture:
        (folder / "learning.json").write_text(json.dumps(result))
        finish(start(python["brax"], "curves.py", folder / "learning.json", arguments.picture))


def report(returns: dict[str, dict[int, dict[str, float]]]) -> dict[str, object]:
    """Returns by side, seed and step, and what the last ones come to."""
    last = {side: [list(s.values())[-1] for s in seeds.values()] for side, seeds in returns.items()}
    final = {
        side: dict(zip(("mean", "half_width"), interval(np.array(x)), strict=True))
        for side, x in last.items()
    }
    ratio = {"ours_vs_brax_return": final["ours"]["mean"] / final["brax"]["mean"]}
    return {"ratio": ratio, "final": final, "returns": returns}


if __name__ == "__main__":
    main()
