"""Draw the map of gaps of docs/sight.md: what knowing is worth, for gap lengths and rules.

    python docs/gap_map.py runs/gap_map/sweep.json

The file is that of the sweep in docs/sight.md, whose variants are called `blind RULES` and `told
RULES`. Draws gap_map.png beside this script, and prints the table.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).parent
MEASURE = "eval/obstacles_passed"
KINDS = ("blind", "told")


def read(path: Path) -> tuple[list[str], list[str], dict[str, Any]]:
    """Return gap lengths, names of the rules, and estimates by `KIND RULES, LENGTH`."""
    cells = json.loads(path.read_text())["cells"]
    lengths = list(dict.fromkeys(x["cell"]["arena.gap-length"] for x in cells))
    rules = list(dict.fromkeys(x["cell"]["variant"].split(" ", 1)[1] for x in cells))
    found = {
        f"{x['cell']['variant']}, {x['cell']['arena.gap-length']}": x["final"][MEASURE]
        for x in cells
    }
    return lengths, rules, found


def main() -> None:
    """Draw, write and print."""
    lengths, rules, found = read(Path(sys.argv[1]))
    of = lambda kind: np.array(
        [[found[f"{kind} {rule}, {length}"]["mean"] for length in lengths] for rule in rules]
    )
    blind, told = map(of, KINDS)
    panels = {"blind": blind, "told": told, "told / blind": told / np.maximum(blind, 0.1)}
    drawn, axes = plt.subplots(1, 3, figsize=(12, 0.5 * len(rules) + 2), sharey=True)
    for panel, (name, values) in zip(axes, panels.items(), strict=True):
        # Gaps passed share a scale; a ratio has its own, of which 3 was asked for.
        top = 3.0 if "/" in name else max(blind.max(), told.max())
        panel.imshow(values, cmap="viridis", vmin=0, vmax=top, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            colour = "black" if value > 0.6 * top else "white"
            panel.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
        panel.set_xticks(range(len(lengths)), [x.replace(" ", " to ") for x in lengths])
        panel.set(title=name, xlabel="gap length, m")
    axes[0].set_yticks(range(len(rules)), rules)
    drawn.tight_layout()
    drawn.savefig(HERE / "gap_map.png", dpi=150)
    for rule in rules:
        for length in lengths:
            both = [found[f"{kind} {rule}, {length}"] for kind in KINDS]
            print(rule, length, *(f"{x['mean']:.2f} {np.round(x['per_seed'], 2)}" for x in both))


if __name__ == "__main__":
    main()
