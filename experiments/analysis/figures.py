"""Draw the figures of analyses, each into a Matplotlib figure that the caller saves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from experiments.analysis.triggered import Triggered
from experiments.analysis.tuning import Tuning

COLUMNS = 4
"""Panels side by side in figures that have a panel for each module."""


def draw_scores(
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]], measures: Mapping[str, str]
) -> Figure:
    """Draw how well variables are decoded: a panel for each variable, a row for each module.

    Args:
        scores: mean, low and high by variable, module, and recording.
        measures: what is scored, by variable: r2 or auc.
    """
    columns = min(5, len(scores))
    lines = -(-len(scores) // columns)
    height = 0.7 + 0.26 * len(next(iter(scores.values())))
    figure = Figure(figsize=(1.4 + 2.1 * columns, 0.6 + height * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel in panels[len(scores) :]:
        panel.axis("off")
    for panel, (variable, modules) in zip(panels, scores.items(), strict=False):
        rows = np.arange(len(modules))
        for i, label in enumerate(next(iter(modules.values()))):
            mean, low, high = (
                np.array([x[label][end] for x in modules.values()])
                for end in ("mean", "low", "high")
            )
            error = np.nan_to_num([mean - low, high - mean])
            panel.errorbar(mean, rows + 0.15 * i, xerr=error, fmt="o", markersize=4, label=label)
        measure = measures[variable]
        chance = 0.5 if measure == "auc" else 0
        panel.axvline(chance, color="grey", linewidth=0.5)
        panel.set_xlim(chance - 0.25, 1.05)
        panel.set_title(variable, fontsize=8)
        panel.set_xlabel("AUC" if measure == "auc" else "R²", fontsize=8)
        panel.tick_params(axis="x", labelsize=7)
        panel.set_yticks(rows, list(modules), fontsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=7, loc="outside upper center")
    return figure


def draw_matrices(
    layers: Sequence[str], matrices: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> Figure:
    """Draw matrices of similarity below their dendrograms, by average linkage.

    Args:
        layers: names of L representations.
        matrices: float[L, L] to show and the distances float[L, L] to cluster by, by title.
    """
    side = 2 + 0.17 * len(layers)
    figure = Figure(figsize=((side + 0.8) * len(matrices), side + 1.2), layout="constrained")
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for (title, (matrix, distance)), panel in zip(matrices.items(), panels, strict=True):
        above = panel.inset_axes((0, 1.02, 1, 0.25))
        above.axis("off")
        above.set_title(title, fontsize=9)
        order = [0]
        if len(layers) > 1:
            apart = np.clip(np.nan_to_num((distance + distance.T) / 2, nan=1), 0, None)
            np.fill_diagonal(apart, 0)
            tree = hierarchy.linkage(squareform(apart), "average")
            order = hierarchy.dendrogram(
                tree, ax=above, color_threshold=0, above_threshold_color="black"
            )["leaves"]
        image = panel.imshow(matrix[np.ix_(order, order)])
        names = [layers[i] for i in order]
        panel.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
        panel.set_yticks(range(len(names)), names, fontsize=6)
        figure.colorbar(image, ax=panel, location="right", shrink=0.6)
    return figure


def draw_tuning(curves: Mapping[str, Mapping[str, Tuning]]) -> Figure:
    """Draw tuning curves of single units, with standard errors over episodes.

    Args:
        curves: of one unit each, by variable and by the unit's name; a row for each variable.
    """
    columns = max(len(units) for units in curves.values())
    figure = Figure(figsize=(2.6 * columns, 2.1 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), columns, squeeze=False)
    for row, (variable, units) in zip(panels, curves.items(), strict=True):
        for panel in row[len(units) :]:
            panel.axis("off")
        for panel, (name, curve) in zip(row, units.items(), strict=False):
            mean, sem = curve.mean[:, 0], np.nan_to_num(curve.sem[:, 0])
            panel.plot(curve.centres, mean, marker=".")
            panel.fill_between(curve.centres, mean - sem, mean + sem, alpha=0.3)
            panel.set_title(name, fontsize=7)
            panel.set_xlabel(variable, fontsize=7)
            panel.tick_params(labelsize=6)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("activity", fontsize=7)
    return figure


def draw_triggered(averages: Mapping[str, Triggered], event: str) -> Figure:
    """Draw activity around events: a panel for each module, a row for each unit, in units of the
    standard deviation over lags, ordered by the lag of the peak.

    Args:
        averages: by module.
        event: what happens at lag 0.
    """
    figure, panels = _grid(len(averages), 1.8)
    for panel, (module, found) in zip(panels, averages.items(), strict=True):
        away, spread = found.mean - found.mean.mean(axis=0), found.mean.std(axis=0)
        varies = spread > 1e-9
        z = (away[:, varies] / spread[varies]).T
        z = z[np.argsort(z.argmax(axis=1))]
        ends = (found.lags[0] - 0.5, found.lags[-1] + 0.5)
        if len(z):
            panel.imshow(
                z, aspect="auto", extent=(*ends, len(z), 0), cmap="RdBu_r", vmin=-3, vmax=3
            )
        panel.axvline(0, color="black", linewidth=0.7)
        panel.set_title(module, fontsize=7)
        panel.set_xlabel(f"steps from {event}", fontsize=6)
        panel.tick_params(labelsize=6)
    return figure


def draw_trajectories(
    scores: Mapping[str, np.ndarray], episodes: np.ndarray, colour: np.ndarray, variable: str
) -> Figure:
    """Draw trajectories in the plane of the first two principal components.

    Args:
        scores: float[n, 2] by module.
        episodes: int[n], the episode of each sample; a line joins the samples of each.
        colour: float[n], the variable that colours the samples.
        variable: its name.
    """
    figure, panels = _grid(len(scores), 2.0)
    for panel, (module, x) in zip(panels, scores.items(), strict=True):
        for name in np.unique(episodes):
            panel.plot(*x[episodes == name].T, color="grey", linewidth=0.2, zorder=0)
        points = panel.scatter(*x.T, c=colour, s=2)
        panel.set_title(module, fontsize=7)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.colorbar(points, ax=list(panels), label=variable, shrink=0.6)
    return figure


def _grid(number: int, height: float) -> tuple[Figure, np.ndarray]:
    """Return a figure with at least that many panels, those beyond the number hidden, and them."""
    columns = min(COLUMNS, number)
    rows = -(-number // columns)
    figure = Figure(figsize=(2.4 * columns + 0.8, height * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[number:]:
        panel.axis("off")
    return figure, panels[:number]
