"""Measure how time and memory of training grow with environments, pixels, seeds and devices.

    python benchmarks/growth.py [--only environments pixels] [--picture docs/growth.png]

One setting at a time is changed from a base: the gap ant, 128 environments, 64x64 pixels, one seed,
one device. Each point is a process of its own, which trains for a few seconds; all points are
measured round by round, so that a slow spell of the machine meets all of them. Compilation is
reported apart. Bytes are those that XLA plans as the peak of a training iteration, and the resident
memory of the process. The last line is one JSON object: for each axis its points, and the slope of
the logarithm of an iteration's seconds over that of the setting (of pixels, over that of their
number), which is 1 where time is linear.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

from machine import machine
from peers.processes import finish, start

BASE = {"environments": 128, "pixels": 64, "seeds": 1, "devices": 1}
AXES = {
    "environments": [64, 128, 256, 512, 1024, 2048, 4096],
    # Heights; the last is 240x320, the others are squares. The first is the least that the network
    # takes.
    "pixels": [36, 64, 128, 240],
    "seeds": [1, 2, 4, 8],
    "devices": [1, 2],
}


def main() -> None:
    """Measure all points, round by round, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES), metavar="AXIS")
    parser.add_argument("--largest", type=int, default=4096, help="number of environments")
    parser.add_argument("--seconds", type=float, default=5, help="that each point trains")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--picture", type=Path, help="to draw the figure into")
    arguments = parser.parse_args()
    points = [
        (axis, value)
        for axis in arguments.only
        for value in AXES[axis]
        if axis != "environments" or value <= arguments.largest
    ]
    found: dict[tuple[str, int], list[dict[str, float]]] = {point: [] for point in points}
    for _ in range(arguments.rounds):
        for axis, value in points:
            settings = BASE | {axis: value}
            settings["width"] = width_of(settings["pixels"])
            point = start(sys.executable, "growth_point.py", settings, arguments.seconds)
            found[axis, value].append(json.loads(finish(point).splitlines()[-1]))
            print(axis, value, found[axis, value][-1], file=sys.stderr, flush=True)
    axes = {axis: summary(axis, found) for axis in arguments.only}
    if arguments.picture:
        draw(axes, arguments.picture)
    print(json.dumps({"benchmark": "growth", "base": BASE, "axes": axes} | machine()))


def width_of(height: int) -> int:
    """Return the width that goes with a height: 320 with 240, else the same."""
    return 320 if height == 240 else height


def summary(axis: str, found: dict[tuple[str, int], list[dict[str, float]]]) -> dict[str, object]:
    """Return the points of an axis, medians over rounds, and the slope in logarithms."""
    points = []
    for (name, value), rounds in found.items():
        if name == axis:
            medians = {k: statistics.median(r[k] for r in rounds) for k in rounds[0]}
            points.append({"value": value, **medians})
    amounts = [p["value"] * (width_of(p["value"]) if axis == "pixels" else 1) for p in points]
    x = [math.log(amount) for amount in amounts]
    y = [math.log(p["iteration_seconds"]) for p in points]
    slope = statistics.linear_regression(x, y).slope
    return {"points": points, "slope_of_iteration_seconds": slope}


def draw(axes: dict[str, dict], path: Path) -> None:
    """Draw seconds and bytes for each environment step over each setting."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    size = 2.6 * len(axes) + 0.6, 4.6
    drawn, panels = plt.subplots(2, len(axes), figsize=size, squeeze=False, sharey="row")
    for column, (axis, x) in zip(panels.T, axes.items(), strict=True):
        values = [p["value"] for p in x["points"]]
        if axis == "pixels":
            labels = [f"{v}x{width_of(v)}" for v in values]
        else:
            # Short, so that neighbours do not overlap.
            labels = [str(v) if v < 1024 else f"{v // 1024}k" for v in values]
        for panel, key, scale in (
            (column[0], "seconds_per_env_step", 1e6),
            (column[1], "planned_bytes_per_env", 2**-20),
        ):
            panel.loglog(values, [scale * p[key] for p in x["points"]], "o-")
            panel.set_xticks(values, labels, fontsize=8)
            panel.minorticks_off()
            panel.yaxis.set_major_formatter("{x:g}")
            panel.grid(axis="y", alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
        column[1].set_xlabel(axis)
    panels[0, 0].set_ylabel("µs per environment step")
    panels[1, 0].set_ylabel("MiB per environment")
    drawn.tight_layout()
    drawn.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
