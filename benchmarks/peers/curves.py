"""Draw learning curves: each seed, and the mean of each side. Runs where Brax does (matplotlib).

python curves.py RESULT.json PICTURE.png
"""

import json
import sys

import matplotlib.pyplot as plt
import numpy as np

COLOURS = {"ours": "tab:blue", "brax": "tab:orange"}
NAMES = {"ours": "vnl_ppo", "brax": "Brax PPO"}


def main(result: str, picture: str) -> None:
    """The last line of RESULT.json is what peers_learning.py printed."""
    with open(result) as file:
        returns = json.loads(file.read().splitlines()[-1])["returns"]
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for side, seeds in returns.items():
        steps = np.array([int(step) for step in next(iter(seeds.values()))]) / 1e6
        curves = np.array([list(seed.values()) for seed in seeds.values()])
        for curve in curves:
            axes.plot(steps, curve, color=COLOURS[side], alpha=0.35, linewidth=1)
        axes.plot(steps, curves.mean(0), color=COLOURS[side], linewidth=2.5, label=NAMES[side])
    axes.set_xlabel("environment steps, millions")
    axes.set_ylabel("return of an episode")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
