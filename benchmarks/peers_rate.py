"""How fast we train against Brax PPO: on its own ant, and ours by default.

    pip install -e ".[brax]"
    python benchmarks/peers_rate.py

Brax's ant on MJX under Brax PPO and under ours, with the same hyper-parameters, and our blind gap
ant on its default physics. Brax runs in a virtual environment of its own, made from the versions
in peers/brax.txt, because 0.14.2 fails on the JAX that we need. The sides run one after the other,
each in a process of its own; what compiles is told apart. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

from machine import machine
from peers.hyper_parameters import SETTINGS

PEERS = Path(__file__).parent / "peers"
ROOT = PEERS.parents[1]
VENV = Path.home() / ".cache" / "vnl_ppo" / "peers" / "brax"
SIDES = {
    "ours": ("rate_ours.py", "brax:ant"),
    "brax": ("rate_brax.py", "brax:ant"),
    "ours_default": ("rate_ours.py", "gap_ant"),
}


def main() -> None:
    """Measure all sides in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="that a side trains in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--brax-venv", type=Path, default=VENV, help="made if not there")
    arguments = parser.parse_args()

    brax = brax_python(arguments.brax_venv)
    rounds = []
    for _ in range(arguments.rounds):
        rounds.append(
            {
                side: measure(brax if side == "brax" else sys.executable, *what, arguments.seconds)
                for side, what in SIDES.items()
            }
        )
        print({k: round(x["env_steps_per_second"]) for k, x in rounds[-1].items()}, flush=True)
    rate = lambda side: sum(r[side]["env_steps_per_second"] for r in rounds) / len(rounds)
    result = {
        "ratio": {
            "ours_vs_brax_same_env": rate("ours") / rate("brax"),
            "ours_default_vs_brax": rate("ours_default") / rate("brax"),
        },
        "env_steps_per_second": {side: rate(side) for side in SIDES},
        "rounds": rounds,
        "settings": SETTINGS,
    }
    print(json.dumps(result | machine()))


def measure(python: str, script: str, env: str, seconds: float) -> dict[str, object]:
    """One side, in a process of its own: what its script prints last."""
    command = [python, "-W", "ignore", PEERS / script, env, str(seconds), json.dumps(SETTINGS)]
    # Both with as many threads: on few cores, XLA's pool needs more of them (see vnl_ppo).
    given = os.environ | {"PYTHONPATH": str(ROOT), "PJRT_NPROC": "8"}
    done = subprocess.run(command, env=given, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def brax_python(folder: Path) -> str:
    """The interpreter of Brax's environment, which is made if it is not there."""
    python = folder / "bin" / "python"
    # Made last: what was broken off on the way is made again.
    whole = folder / "whole"
    if not whole.exists():
        venv.create(folder, with_pip=True)
        wanted = ["-r", PEERS / "brax.txt"]
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *wanted], check=True)
        whole.touch()
    return str(python)


if __name__ == "__main__":
    main()
