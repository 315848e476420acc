"""Analyse recordings: what can be read from where, how units are tuned, how layers compare.

    python experiments/analyse.py runs/mine/recordings/300000.zarr
    python experiments/analyse.py trained.zarr untrained.zarr --variables truth.ahead truth.heading

Numbers go to STEP.analysis.json and figures to STEP.figures/ beside the first recording:

- decoding: R^2 of variables decoded from each module by ridge regression, or the area under the
  curve (AUC) of logistic regression where a variable has two values, on episodes that were not
  fitted; beside them the same for variables of other episodes, as a control (`mismatched`);
- dimensions: the participation ratio, and trajectories in the plane of two principal components;
- tuning: the share of units that are selective for each variable, and curves of the best;
- triggered: activity around the steps at which `--event` rises, such as the crossing of an edge;
- similarity between modules: debiased linear CKA, RSA and the Procrustes distance.

Several recordings that have the same observations (`record.py --replay`) are compared: the decoders
of all are fitted and tested on the same steps. Tuning, trajectories and activity around events are
those of the first.
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
from experiments.results import refuse_existing, show, write_figure, write_numbers

try:
    import xarray
    from matplotlib.figure import Figure

    from experiments.analysis import figures
    from experiments.analysis.decoding import classify, decode, is_binary, mismatched
    from experiments.analysis.dimensions import participation_ratio, principal_components
    from experiments.analysis.similarity import cka, procrustes, rsa
    from experiments.analysis.triggered import Triggered, rises, triggered_average, whole
    from experiments.analysis.tuning import (
        Selective,
        Tuning,
        find_selective,
        permutations_of,
        tuning_curves,
    )
    from experiments.recording_reader import (
        activities_of,
        activity_at,
        check_same,
        default_variables,
        numeric,
        open_recording,
        spread,
        variables_of,
        where,
    )
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"error: analyses need {missing.name}: pip install -e '.[analysis]'"
    ) from missing

COMPARED_STEPS = 500
"""Maximum number of steps on which representations are compared with each other."""
TUNED_STEPS = 1000
"""Maximum number of steps on which units are tested."""
EVENTS = 100
"""Maximum number of events that are averaged over."""


@dataclasses.dataclass(frozen=True)
class AnalyseOptions:
    """Options of `analyse.py`."""

    recordings: tyro.conf.Positional[tuple[Path, ...]]
    """Recordings of `record.py`."""
    variables: tuple[str, ...] = ()
    """Arrays of the recording to decode, such as truth.qpos; each entry of one is a variable. Empty
    for truth.ahead, truth.heading and truth.velocity, or, in a world that does not tell these, its
    metrics and the reward."""
    modules: tuple[str, ...] = ()
    """Modules to analyse, such as encoders_vision; empty for all."""
    where: tuple[str, ...] = ()
    """Use only steps at which all of these hold, such as "truth.ahead[target x]>0.5" for a target
    in front: ARRAY>NUMBER or ARRAY[ENTRY]>NUMBER, with >, >=, < or <=. Activity around events is of
    all steps."""
    samples: int = 2000
    """Maximum number of steps to use, evenly spread over those of the recording."""
    folds: int = 5
    """Parts, by episode, of which each is predicted by a decoder fitted to the others."""
    permutations: int = 500
    """Permutations of episodes in the test for selective units."""
    event: str = "metric.obstacles_passed"
    """Array whose rises are the events."""
    around: tuple[int, int] = (20, 20)
    """Steps before and after an event."""
    output: Path | None = None
    """Folder for analysis.json and the figures; None for NAME.analysis.json and NAME.figures beside
    the first recording NAME."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        if not self.recordings:
            raise ValueError("no recording is named; make one with record.py")
        for name, least in (("samples", 10), ("folds", 2), ("permutations", 20)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {getattr(self, name)}; it has to be {least} or more")
        if min(self.around) < 0:
            raise ValueError(f"--around is {self.around}; both have to be 0 or more")


def main() -> None:
    """Analyse, print tables, and write numbers and figures."""
    try:
        options = tyro.cli(AnalyseOptions, description=__doc__)
        options.check()
        folder, numbers = output(options)
        opened = [open_recording(path.expanduser()) for path in options.recordings]
        found, drawn = analyse(options, opened)
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            write_figure(figure, folder / f"{name}.png")
        # Last, so that there are no numbers without their figures.
        write_numbers(found, numbers)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    for one in found["recordings"]:
        show(table(one))
    print(f"numbers in {numbers}, figures in {folder}")


def output(options: AnalyseOptions) -> tuple[Path, Path]:
    """Return the folder of the figures and the path of the numbers.

    Raises:
        ValueError: there are numbers of an earlier analysis.
    """
    if options.output:
        folder = options.output.expanduser()
        numbers = folder / "analysis.json"
    else:
        first = options.recordings[0].expanduser()
        folder, numbers = first.with_suffix(".figures"), first.with_suffix(".analysis.json")
    refuse_existing(numbers)
    return folder, numbers


def analyse(
    options: AnalyseOptions, recordings: Sequence[xarray.Dataset]
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Return all numbers as they go to the file, and the figures by name.

    Raises:
        ValueError: a recording does not have what is asked for, has too few episodes, or numbers
            that are not finite; or recordings do not belong together.
    """
    first, paths = recordings[0], options.recordings
    used = where(paths[0], first, options.where)
    episodes = int(used.any(axis=1).sum())
    if episodes < options.folds:
        raise ValueError(
            f"{paths[0]} has {episodes} {'episode' if episodes == 1 else 'episodes'}"
            f"{' with such steps (--where)' if options.where else ''}; decoders are tested on "
            f"episodes that they were not fitted to, in --folds {options.folds} parts: record more "
            f"episodes"
        )
    episode, time = np.nonzero(used)
    steps = spread((episode, time), options.samples)
    arrays: Sequence[str] = options.variables
    if not arrays:
        arrays, told = default_variables(first)
        if told:
            print(f"{paths[0]}: {told}")
    names, values = variables_of(paths[0], first, arrays, steps)
    for path, other in zip(paths[1:], recordings[1:], strict=True):
        check_same(paths[0], first, path, other, steps)
    activities = [
        activities_of(path, recording, options.modules, steps)
        for path, recording in zip(paths, recordings, strict=True)
    ]
    entries = [
        {
            "recording": str(path),
            "policy": str(recording.attrs.get("policy", "")),
            "step": int(recording.attrs.get("step", 0)),
            "modules": {
                module: read(x, names, values, steps, options.folds)
                for module, x in activity.items()
            },
        }
        for path, recording, activity in zip(paths, recordings, activities, strict=True)
    ]
    tests = selective_units(activities[0], values, steps, options.permutations)
    for module, of_variables in tests.items():
        entries[0]["modules"][module]["selective"] = {  # type: ignore[index]
            name: float(test.selective.mean())
            for name, test in zip(names, of_variables, strict=True)
        }
    averages = around_events(options, first, list(activities[0]))
    layers = {
        f"{i}: {module}" if len(recordings) > 1 else module: x
        for i, activity in enumerate(activities)
        for module, x in activity.items()
    }
    some = slice(None, None, -(-len(steps[0]) // COMPARED_STEPS))
    alike = {
        measure.__name__: measure([x[some] for x in layers.values()])
        for measure in (cka, rsa, procrustes)
    }
    planes = {module: principal_components(x)[0] for module, x in activities[0].items()}
    drawn = {
        "decoding": _decoding(entries),
        "trajectories": figures.draw_trajectories(
            {k: np.pad(x, [(0, 0), (0, 2 - x.shape[1])]) for k, x in planes.items()},
            steps[0],
            values[:, 0],
            names[0],
        ),
        "similarity": figures.draw_matrices(
            list(layers),
            {
                "debiased linear CKA": (alike["cka"], 1 - alike["cka"]),
                "RSA, Spearman's correlation": (alike["rsa"], 1 - alike["rsa"]),
                "Procrustes distance": (alike["procrustes"], alike["procrustes"]),
            },
        ),
    }
    if curves := best_curves(tests, activities[0], names, values, steps[0]):
        drawn["tuning"] = figures.draw_tuning(curves)
    if averages:
        drawn["triggered"] = figures.draw_triggered(averages, options.event)
    numbers = {
        "where": list(options.where),
        "samples": len(steps[0]),
        "episodes": episodes,
        "variables": names,
        "recordings": entries,
        "triggered": {
            "event": options.event,
            "lags": list(range(-options.around[0], options.around[1] + 1)),
            "events": next(iter(averages.values())).events if averages else 0,
            "modulation": {k: modulation(x).tolist() for k, x in averages.items()},
        },
        "layers": list(layers),
        **{name: x.tolist() for name, x in alike.items()},
    }
    return numbers, drawn


def selective_units(
    activities: Mapping[str, np.ndarray],
    values: np.ndarray,
    steps: tuple[np.ndarray, np.ndarray],
    permutations: int,
) -> dict[str, list[Selective]]:
    """Return the test of the units of each module for each of k variables, on some of n steps.

    Args:
        activities: float32[n, units] by module.
        values: float64[n, k].
        steps: episode and time of each, int[n].
        permutations: number of them.
    """
    some = slice(None, None, -(-len(steps[0]) // TUNED_STEPS))
    episodes, times = (x[some] for x in steps)
    permuted = permutations_of(episodes, permutations, times=times)
    return {
        module: [find_selective(x[some], v[some], permuted) for v in values.T]
        for module, x in activities.items()
    }


def read(
    activity: np.ndarray,
    names: Sequence[str],
    values: np.ndarray,
    steps: tuple[np.ndarray, np.ndarray],
    folds: int,
) -> dict[str, Any]:
    """Return dimensions and decoding scores of a module, as they go to the file."""
    episodes, times = steps
    control = values[mismatched(episodes, times=times)]
    binary = np.array([is_binary(x) for x in values.T])
    scores: dict[str, dict[str, Any]] = {}
    if not binary.all():
        both = np.concatenate([values[:, ~binary], control[:, ~binary]], axis=1)
        right, wrong = np.split(decode(activity, both, episodes, folds), 2, axis=1)
        kept = [name for name, is_so in zip(names, binary, strict=True) if not is_so]
        for measure, found in (("r2", right), ("r2_mismatched", wrong)):
            scores[measure] = {n: estimate(s) for n, s in zip(kept, found.T, strict=True)}
    for i in np.flatnonzero(binary).tolist():
        for suffix, x in (("", values), ("_mismatched", control)):
            for measure, s in classify(activity, x[:, i], episodes, folds).items():
                scores.setdefault(measure + suffix, {})[names[i]] = estimate(s)
    return {
        "units": activity.shape[1],
        "dimensions": participation_ratio(activity),
        **scores,
    }


def score_of(module: Mapping[str, Any], variable: str) -> tuple[str, Mapping[str, float]]:
    """Return the measure of a variable, r2 or auc, and its estimate in an entry of a module."""
    measure = "r2" if variable in module.get("r2", {}) else "auc"
    return measure, module[measure][variable]


def best_curves(
    selective: Mapping[str, Sequence[Selective]],
    activity: Mapping[str, np.ndarray],
    names: Sequence[str],
    values: np.ndarray,
    episodes: np.ndarray,
    number: int = 4,
) -> dict[str, dict[str, Tuning]]:
    """Return tuning curves by variable and unit: the most selective unit of a module, for the
    modules with the most selective ones. Variables without selective units are left out."""
    curves: dict[str, dict[str, Tuning]] = {}
    for i, name in enumerate(names):
        best = []
        for module, tests in selective.items():
            strength = np.where(tests[i].selective, tests[i].selectivity, 0)
            best.append((strength.max(), module, int(strength.argmax())))
        chosen = sorted(best, reverse=True)[:number]
        found = {
            f"{module}, unit {unit}": tuning_curves(
                activity[module][:, [unit]], values[:, i], episodes
            )
            for strength, module, unit in chosen
            if strength > 0
        }
        curves |= {name: found} if found else {}
    return curves


def around_events(
    options: AnalyseOptions, recording: xarray.Dataset, modules: Sequence[str]
) -> dict[str, Triggered]:
    """Return activity around events by module; empty, with a message, if there are no events."""
    if options.event not in numeric(recording):
        print(f"no averages around events: {options.event} is not recorded (see --event)")
        return {}
    alive, counter = recording.alive.values, recording[options.event].values
    if counter.ndim != 2:
        raise ValueError(f"--event is {options.event}, which has several entries; name a number")
    before, after = options.around
    episode, time = spread(whole(rises(counter, alive), alive, before, after), EVENTS)
    if not len(episode):
        print(f"no averages around events: {options.event} never rises far enough from the ends")
        return {}
    window = np.arange(-before, after + 1)
    times = (time[:, None] + window).ravel()
    found = {}
    for module in modules:
        x = activity_at(recording, module, (np.repeat(episode, len(window)), times))
        x = x.reshape(len(episode), len(window), -1)
        found[module] = triggered_average(x, episode, before)
    return found


def modulation(found: Triggered) -> np.ndarray:
    """Return float[L], how far activity around events is from its mean over lags: the mean over
    units of its absolute value in standard deviations over lags."""
    away = found.mean - found.mean.mean(axis=0)
    spread = away.std(axis=0)
    varies = spread > 1e-9
    return np.abs(away[:, varies] / spread[varies]).mean(axis=1) if varies.any() else spread[:0]


def estimate(scores: np.ndarray) -> dict[str, float]:
    """Return the mean over folds with its 95 % interval."""
    return dataclasses.asdict(over_runs(scores[np.isfinite(scores)]))


def table(entry: Mapping[str, Any]) -> Table:
    """Return how well each variable is decoded from each module."""
    modules = entry["modules"]
    first = next(iter(modules.values()))
    names = [*first.get("r2", {}), *first.get("auc", {})]
    result = Table(
        title=f"R² (AUC of binary variables) on episodes not fitted: {entry['policy']}, "
        f"step {entry['step']}"
    )
    for name in ("module", "units", "dimensions", *names):
        result.add_column(name, justify="left" if name == "module" else "right")
    for module, x in modules.items():
        scores = [f"{score_of(x, name)[1]['mean']:.2f}" for name in names]
        result.add_row(module, str(x["units"]), f"{x['dimensions']:.1f}", *scores)
    return result


def _decoding(entries: Sequence[Mapping[str, Any]]) -> Figure:
    first = next(iter(entries[0]["modules"].values()))
    names = [*first.get("r2", {}), *first.get("auc", {})]
    labels = [f"{i}: {x['policy']}, step {x['step']}" for i, x in enumerate(entries)]
    nothing = {"mean": np.nan, "low": np.nan, "high": np.nan}
    modules = list(dict.fromkeys(m for entry in entries for m in entry["modules"]))
    scores = {
        name: {
            module: {
                label: score_of(x["modules"][module], name)[1]
                if module in x["modules"]
                else nothing
                for label, x in zip(labels, entries, strict=True)
            }
            for module in modules
        }
        for name in names
    }
    return figures.draw_scores(scores, {name: score_of(first, name)[0] for name in names})


if __name__ == "__main__":
    main()
