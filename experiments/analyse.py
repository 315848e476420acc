"""Analyse recordings: what can be decoded where, in how many dimensions, and how layers compare.

python experiments/analyse.py runs/mine/recordings/300000.zarr
python experiments/analyse.py trained.zarr untrained.zarr --variables truth.ahead truth.heading

Several recordings that have the same observations (`record.py --replay`) are compared: the decoders
of all are fitted and tested on the same steps. Numbers go to STEP.analysis.json and figures to
STEP.figures/ beside the first recording.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.table import Table

from experiments.analysis.shares import over_runs
from experiments.results import pyplot, show, write_numbers

try:
    import xarray

    from experiments.analysis.decoding import decode, mismatched
    from experiments.analysis.dimensions import participation_ratio
    from experiments.analysis.similarity import cka
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"error: analyses need {missing.name}: pip install -e '.[analysis]'"
    ) from missing

MODULE = "module."


@dataclasses.dataclass(frozen=True)
class AnalyseOptions:
    """Options of `analyse.py`."""

    recordings: tyro.conf.Positional[tuple[Path, ...]]
    """Recordings of `record.py`."""
    variables: tuple[str, ...] = ("truth.ahead", "truth.heading")
    """Arrays of the recording to decode; each entry of one is a variable."""
    modules: tuple[str, ...] = ()
    """Modules to analyse, such as encoders_vision; empty for all."""
    samples: int = 4000
    """Maximum number of steps to use, evenly spread over those of the recording."""
    folds: int = 5
    """Parts, by episode, of which each is predicted by a decoder fitted to the others."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        if not self.recordings:
            raise ValueError("no recording is named; make one with record.py")
        for name, least in (("samples", 10), ("folds", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {getattr(self, name)}; it has to be {least} or more")


def main() -> None:
    """Analyse, print tables, and write numbers and figures."""
    try:
        options = tyro.cli(AnalyseOptions, description=__doc__)
        options.check()
        opened = [open_recording(path) for path in options.recordings]
        found = analyse(options, opened)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    first = options.recordings[0]
    figures = first.with_suffix(".figures")
    figures.mkdir(exist_ok=True)
    numbers = first.with_suffix(".analysis.json")
    write_numbers(found, numbers)
    for one in found["recordings"]:
        show(table(one))
    draw_decoding(found, figures / "decoding.png")
    draw_similarity(found, figures / "similarity.png")
    print(f"numbers in {numbers}, figures in {figures}")


def open_recording(path: Path) -> xarray.Dataset:
    """Open a recording.

    Raises:
        ValueError: there is none, or it is empty.
    """
    if not path.is_dir():
        raise ValueError(f"there is no recording {path}; make one with record.py")
    recording = xarray.open_zarr(path, consolidated=False)
    if "alive" not in recording or not bool(recording.alive.any()):
        raise ValueError(f"{path} has no steps")
    return recording


def analyse(options: AnalyseOptions, recordings: Sequence[xarray.Dataset]) -> dict[str, Any]:
    """Return all numbers as they go to the file."""
    alive = recordings[0].alive.values
    for path, other in zip(options.recordings, recordings, strict=True):
        if other.alive.shape != alive.shape or (other.alive.values != alive).any():
            raise ValueError(
                f"{path} has other steps than {options.recordings[0]}; record it with --replay"
            )
    episode, time = np.nonzero(alive)
    kept = np.linspace(0, len(episode) - 1, min(options.samples, len(episode))).astype(int)
    steps = episode[kept], time[kept]
    names, values = variables_of(recordings[0], options.variables, steps)
    activities = [
        activities_of(path, recording, options.modules, steps)
        for path, recording in zip(options.recordings, recordings, strict=True)
    ]
    control = values[mismatched(steps[0])]
    entries = []
    for path, recording, activity in zip(options.recordings, recordings, activities, strict=True):
        modules = {}
        for module, x in activity.items():
            scores = decode(x, values, steps[0], options.folds)
            chance = decode(x, control, steps[0], options.folds)
            modules[module] = {
                "units": x.shape[1],
                "dimensions": participation_ratio(x),
                "r2": {n: estimate(s) for n, s in zip(names, scores.T, strict=True)},
                "r2_mismatched": {n: estimate(s) for n, s in zip(names, chance.T, strict=True)},
            }
        entries.append(
            {"recording": str(path), "policy": recording.attrs["policy"],
             "step": recording.attrs["step"], "modules": modules}
        )  # fmt: skip
    layers = {
        f"{i}: {module}" if len(recordings) > 1 else module: x
        for i, activity in enumerate(activities)
        for module, x in activity.items()
    }
    similarity = cka(list(layers.values())).tolist()
    return {
        "samples": len(kept),
        "variables": names,
        "recordings": entries,
        "layers": list(layers),
        "cka": similarity,
    }


def variables_of(
    recording: xarray.Dataset, arrays: Sequence[str], steps: tuple[np.ndarray, np.ndarray]
) -> tuple[list[str], np.ndarray]:
    """Return the names of k variables, and float64[n, k].

    Raises:
        ValueError: the recording has no such array, or all of its entries are constant.
    """
    names, columns = [], []
    for array in arrays:
        if array not in recording:
            known = ", ".join(sorted(map(str, recording)))
            raise ValueError(f"--variables has {array!r}, which is not recorded; there are {known}")
        x = np.asarray(recording[array].values[steps], np.float64).reshape(len(steps[0]), -1)
        for i, column in enumerate(x.T):
            if column.std() > 1e-6:
                names.append(f"{array}[{i}]" if x.shape[1] > 1 else array)
                columns.append(column)
    if not columns:
        raise ValueError(f"{', '.join(arrays)} are constant; there is nothing to decode")
    return names, np.stack(columns, axis=-1)


def activities_of(
    path: Path,
    recording: xarray.Dataset,
    modules: Sequence[str],
    steps: tuple[np.ndarray, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return float32[n, units] by module.

    Raises:
        ValueError: a module was not recorded.
    """
    known = [str(k).removeprefix(MODULE) for k in recording if str(k).startswith(MODULE)]
    wanted = [name.replace("/", ".") for name in modules] or sorted(known)
    for name in wanted:
        if name not in known:
            raise ValueError(f"{path} has no module {name!r}; it has {', '.join(sorted(known))}")
    flat = lambda x: np.asarray(x[steps], np.float32).reshape(len(steps[0]), -1)
    return {name: flat(recording[MODULE + name].values) for name in wanted}


def estimate(scores: np.ndarray) -> dict[str, float]:
    """Return the mean over folds with its 95 % interval."""
    return dataclasses.asdict(over_runs(scores[np.isfinite(scores)]))


def table(entry: Mapping[str, Any]) -> Table:
    """Return the R^2 of each module and variable."""
    modules = entry["modules"]
    names = list(next(iter(modules.values()))["r2"])
    result = Table(title=f"R² on episodes not fitted: {entry['policy']}, step {entry['step']}")
    for name in ("module", "units", "dimensions", *names):
        result.add_column(name, justify="left" if name == "module" else "right")
    for module, x in modules.items():
        scores = [f"{x['r2'][name]['mean']:.2f}" for name in names]
        result.add_row(module, str(x["units"]), f"{x['dimensions']:.1f}", *scores)
    return result


def draw_decoding(found: Mapping[str, Any], path: Path) -> None:
    """Draw R^2 of each variable over modules, a line for each recording."""
    names = found["variables"]
    if (plt := pyplot()) is None:
        return
    drawn, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 4), squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        for i, entry in enumerate(found["recordings"]):
            modules = entry["modules"]
            rows = np.arange(len(modules))
            mean, low, high = (
                np.array([x["r2"][name][end] for x in modules.values()])
                for end in ("mean", "low", "high")
            )
            label = f"{entry['policy']}, step {entry['step']}"
            error = np.stack([mean - low, high - mean])
            ax.errorbar(mean, rows + 0.15 * i, xerr=error, fmt="o", color=f"C{i}", label=label)
        ax.axvline(0, color="grey", linewidth=0.5)
        ax.set(title=name, xlabel="R²", xlim=(-0.25, 1.05), yticks=rows, yticklabels=[])
        ax.invert_yaxis()
    axes[0][0].set_yticklabels(list(modules))
    axes[0][0].legend(frameon=False, fontsize=7)
    drawn.tight_layout()
    drawn.savefig(path, dpi=150)
    plt.close(drawn)


def draw_similarity(found: Mapping[str, Any], path: Path) -> None:
    """Draw the matrix of CKA between all layers."""
    layers = found["layers"]
    if (plt := pyplot()) is None:
        return
    drawn, ax = plt.subplots(figsize=(2 + 0.3 * len(layers),) * 2)
    image = ax.imshow(found["cka"], vmin=0, vmax=1)
    ax.set_xticks(range(len(layers)), layers, rotation=90)
    ax.set_yticks(range(len(layers)), layers)
    drawn.colorbar(image, label="debiased linear CKA", shrink=0.7)
    drawn.tight_layout()
    drawn.savefig(path, dpi=150)
    plt.close(drawn)


if __name__ == "__main__":
    main()
