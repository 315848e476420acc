"""Compare our training speed and memory with those of Brax PPO and rejax.

    pip install -e ".[brax,playground]"
    python benchmarks/training.py [--only ours brax]

The environments are Brax's ant on MJX (all three), Playground's CartpoleBalance, and one of 64x64
pixels that costs nothing to draw, with the same hyper-parameters for every side; and our blind gap
ant on its default physics. Brax and rejax run in their own virtual environments, made from the
versions in peers/*.txt. The sides run one after the other, each in its own process. Compilation is
reported separately.

Memory is reported as XLA plans it for a training iteration, and as the peak of the process's
resident memory, in total and minus that after its imports. The last line is one JSON object.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

from machine import machine
from peers.hyper_parameters import SETTINGS
from peers.processes import VENVS, finish, python_of, start

SIDES = {
    "ours": ("ours", "brax:ant"),
    "brax": ("brax", "brax:ant"),
    "rejax": ("rejax", "brax:ant"),
    "ours_default": ("ours", "gap_ant"),
    "ours_cartpole": ("ours", "playground:CartpoleBalance"),
    "brax_cartpole": ("brax", "playground:CartpoleBalance"),
    "ours_pixels": ("ours", "pixels:uint8"),
    # Pixels as Playground's environments give them, and as small as Brax's networks take them.
    "brax_pixels": ("brax", "pixels:float32"),
    "brax_pixels_uint8": ("brax", "pixels:uint8"),
}
"""Learner and environment of each measurement, by name."""

FASTER = {
    "ours_vs_brax_same_env": ("ours", "brax"),
    "ours_vs_rejax_same_env": ("ours", "rejax"),
    "ours_default_vs_brax": ("ours_default", "brax"),
    "ours_vs_brax_cartpole": ("ours_cartpole", "brax_cartpole"),
    "ours_vs_brax_pixels": ("ours_pixels", "brax_pixels"),
}
LARGER = {
    "brax_vs_ours": ("brax_pixels", "ours_pixels"),
    "brax_uint8_vs_ours": ("brax_pixels_uint8", "ours_pixels"),
}

# Brax takes minutes for one pass over so many pixels; memory does not depend on their number.
PASSES_OVER_PIXELS = 1


def main() -> None:
    """Measure all sides in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="that a side trains in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=SIDES, default=list(SIDES), metavar="SIDE")
    parser.add_argument("--venvs", type=Path, default=VENVS, help="of peers; made if not there")
    arguments = parser.parse_args()

    pythons = {
        peer: python_of(peer, arguments.venvs) for peer in {SIDES[s][0] for s in arguments.only}
    }
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(arguments.rounds):
        rounds.append({})
        for side in arguments.only:
            peer, env = SIDES[side]
            given = env, arguments.seconds, settings_of(env)
            printed = finish(start(pythons[peer], f"rate_{peer}.py", *given))
            rounds[-1][side] = json.loads(printed.splitlines()[-1])
            print(f"{side}: {rounds[-1][side]}", flush=True)
    settings = {"settings": SETTINGS, "passes_over_pixels": PASSES_OVER_PIXELS}
    print(json.dumps(report(rounds) | {"rounds": rounds} | settings | machine()))


def settings_of(env: str) -> dict[str, float]:
    """Hyper-parameters under Brax's names."""
    if env.startswith("pixels:"):
        return SETTINGS | {"num_updates_per_batch": PASSES_OVER_PIXELS}
    return SETTINGS


def report(rounds: list[dict[str, dict[str, float]]]) -> dict[str, object]:
    """Rates and sizes over rounds, and the ratios of those sides that were measured."""

    def over_rounds(summary: Callable, number: Callable) -> dict[str, float]:
        return {side: summary([number(r[side]) for r in rounds]) for side in rounds[0]}

    def ratios(of: dict[str, float], pairs: dict[str, tuple[str, str]], suffix: str = ""):
        return {k + suffix: of[a] / of[b] for k, (a, b) in pairs.items() if {a, b} <= of.keys()}

    mib = lambda n: n / 2**20
    rates = over_rounds(statistics.fmean, lambda x: x["env_steps_per_second"])
    planned = over_rounds(min, lambda x: mib(x["planned_bytes"]))
    # The least, as a side that finds its programs on disk need not hold the compiler's data.
    whole = over_rounds(min, lambda x: mib(x["peak_resident_bytes"]))
    beyond = over_rounds(min, lambda x: mib(x["peak_resident_bytes"] - x["imported_bytes"]))
    return {
        "ratio": ratios(rates, FASTER)
        | ratios(planned, LARGER, "_planned")
        | ratios(beyond, LARGER, "_resident_beyond_imports")
        | ratios(whole, LARGER, "_resident"),
        "env_steps_per_second": rates,
        "planned_mib": planned,
        "resident_beyond_imports_mib": beyond,
        "resident_mib": whole,
    }


if __name__ == "__main__":
    main()
