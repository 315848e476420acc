"""Draw psychometric curves over seeds: means over runs of each condition, and every run.

    python docs/psychometrics_over_seeds.py FIGURE.png "label of the x axis" FILE.json FILE.json ...

Each file is one seed's, of `psychometrics.py`, with the policies blind/seed_N, told/seed_N and
prediction/seed_N. Prints the mean and the 95 % interval (Student's, over seeds) of the share of
successes at each value.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

from experiments.analysis.shares import over_runs

COLORS = {"blind": "C7", "told": "C0", "prediction": "C1"}
TITLES = {"blind": "blind", "told": "told", "prediction": "seeing"}


def main() -> None:
    """Draw and print."""
    output, label, *files = sys.argv[1:]
    found = [json.loads(Path(file).read_text()) for file in files]
    x = found[0]["values"]
    drawn, axes = plt.subplots(figsize=(5, 4))
    for name, color in COLORS.items():
        shares = np.array(
            [
                np.array(curve["successes"]) / one["episodes"]
                for one in found
                for policy, curve in one["policies"].items()
                if policy.startswith(f"{name}/")
            ]
        )
        for row in shares:
            axes.plot(x, row, color=color, alpha=0.3, linewidth=1)
        axes.plot(x, shares.mean(0), "o-", color=color, linewidth=2, label=TITLES[name])
        for value, column in zip(x, shares.T, strict=True):
            mean = over_runs(column.tolist())
            each = " ".join(f"{share:.2f}" for share in column)
            print(f"{name} {value:g}: {mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}] {each}")
    axes.set(xlabel=label, ylabel=f"share of episodes with {found[0]['success']}", ylim=(0, 1.03))
    axes.legend(frameon=False)
    drawn.tight_layout()
    drawn.savefig(output, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
