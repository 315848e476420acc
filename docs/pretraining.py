"""Draw the figure of docs/encoders.md on pretraining: learning curves of groups of runs.

    python docs/pretraining.py runs/pretraining

The folder has a folder for each condition, and in each a run for each seed. Draws pretraining.png
beside this script, and prints what each run reached in its last evaluation.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

from experiments.analysis.shares import over_runs
from experiments.until import evaluations_of

MEASURE = "obstacles_passed"
CONDITIONS = {
    "nothing": "from nothing",
    "finetuned": "pretrained, then trained",
    "frozen": "pretrained, then frozen",
    "untrained": "drawn at random, frozen",
}


def main() -> None:
    """Draw and print."""
    drawn, axes = plt.subplots(figsize=(6, 4))
    for i, (name, title) in enumerate(CONDITIONS.items()):
        runs = [evaluations_of(run, MEASURE) for run in sorted(Path(sys.argv[1], name).iterdir())]
        steps = sorted(set.intersection(*map(set, runs)))
        values = np.array([[run[step] for step in steps] for run in runs])
        for row in values:
            axes.plot(np.array(steps) / 1e3, row, color=f"C{i}", alpha=0.3, linewidth=1)
        axes.plot(np.array(steps) / 1e3, values.mean(0), color=f"C{i}", linewidth=2, label=title)
        end = over_runs(values[:, -1].tolist())
        each = " ".join(f"{x:.2f}" for x in values[:, -1])
        print(f"{title}: {end.mean:.2f} [{end.low:.2f}, {end.high:.2f}] {each}")
    axes.set(xlabel="environment steps, thousands", ylabel="targets reached in an episode")
    axes.legend(frameon=False)
    drawn.tight_layout()
    drawn.savefig(Path(__file__).with_suffix(".png"), dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
