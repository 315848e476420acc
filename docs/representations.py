"""Join analyses of several seeds: the table and the figure of docs/representations.md.

    python docs/representations.py walls_ball=10.analysis.json,11.analysis.json gap_ant=FILE,FILE

Each file is one of `analyse.py TRAINED UNTRAINED`: the first recording is that of a trained policy,
the second of the same network before training, which was shown the same images (`--replay`). The
control is the trained network with the variables of other episodes: what the time tells alone.
Intervals are Student's over seeds, 95 %. It writes representations.json and
representations_decoding.png here, and prints the table.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.analysis.shares import over_runs

HERE = Path(__file__).parent
COLOURS = ("C0", "C1", "grey")
KINDS = {"trained": (0, "r2"), "untrained": (1, "r2"), "control": (0, "r2_mismatched")}
"""Recording, and measure in it."""
MODULES = {
    "encoders_vision.Conv_2": "last convolution",
    "encoders_vision": "encoder",
    "policy.Dense_0": "policy, layer 1",
    "policy.Dense_1": "policy, layer 2",
}


def joined(files: list[Path]) -> dict[str, Any]:
    """Return estimates of R^2 over seeds by variable, module and kind."""
    found = [json.loads(file.read_text()) for file in files]

    def estimate(kind: str, module: str, name: str) -> dict[str, Any]:
        number, measure = KINDS[kind]
        scores = [x["recordings"][number]["modules"][module][measure][name]["mean"] for x in found]
        return {**dataclasses.asdict(over_runs(scores)), "per_seed": scores}

    return {
        name: {module: {kind: estimate(kind, module, name) for kind in KINDS} for module in MODULES}
        for name in found[0]["variables"]
    }


def shown(variable: str) -> str:
    """Return a variable's name for people: `truth.ahead[wall 1 distance]` is wall 1 distance."""
    name = variable.removeprefix("truth.")
    return name.removeprefix("ahead[").removesuffix("]") if "ahead" in name else name


def table(worlds: dict[str, Any]) -> str:
    """Return the table, in Markdown: R^2 of trained, untrained and control, means over seeds."""
    lines = []
    for world, variables in worlds.items():
        lines += [
            f"| `{world}` | {' | '.join(MODULES.values())} |",
            "| --- |" + " ---: |" * len(MODULES),
        ]
        for name, modules in variables.items():
            cells = [
                " / ".join(f"{x[kind]['mean']:.2f}" for kind in KINDS) for x in modules.values()
            ]
            lines.append(f"| {shown(name)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def figure(worlds: dict[str, Any]) -> plt.Figure:
    """Draw R^2 of the encoder's output, trained and untrained, with an axes for each world."""
    sizes = [len(variables) for variables in worlds.values()]
    drawn, axes = plt.subplots(
        1, len(worlds), figsize=(5 * len(worlds), 0.6 + 0.32 * max(sizes)), squeeze=False
    )
    for ax, (world, variables) in zip(axes[0], worlds.items(), strict=True):
        for i, modules in enumerate(variables.values()):
            for j, kind in enumerate(KINDS):
                x = modules["encoders_vision"][kind]
                y = i + 0.22 * (j - 1)
                ax.plot([x["low"], x["high"]], [y, y], color=COLOURS[j], alpha=0.4, linewidth=4)
                seeds, label = x["per_seed"], kind if i == 0 else None
                ax.plot(seeds, [y] * len(seeds), "o", color=COLOURS[j], markersize=3.5, label=label)
        ax.set_yticks(np.arange(len(variables)), [shown(name) for name in variables])
        ax.invert_yaxis()
        ax.set(xlim=(-0.2, 1.02), xlabel="R², episodes not fitted", title=f"{world}: encoder")
        ax.axvline(0, color="grey", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][-1].legend(frameon=False, loc="lower right")
    drawn.tight_layout()
    return drawn


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    worlds = {name: joined([Path(x) for x in files.split(",")]) for name, files in given.items()}
    (HERE / "representations.json").write_text(json.dumps(worlds, indent=1) + "\n")
    figure(worlds).savefig(HERE / "representations_decoding.png", dpi=150)
    print(table(worlds))
