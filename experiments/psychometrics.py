"""Measure how often animals succeed against one variable of their world.

    python experiments/psychometrics.py runs/mine --vary arena.gap-length 0.1:1.2:0.1
    python experiments/psychometrics.py runs/mine random --vary walker.reset-noise 0.01,0.1
    python experiments/psychometrics.py runs/mine --lesion vision=blank \\
        --vary arena.gap-length 0.1,0.5
    python experiments/psychometrics.py runs/mine --vary arena.platform-shift +-0,0.5,1

All policies run the same episodes at each value. The curves are logistic fits by maximum
likelihood; the threshold is where half of the episodes succeed.
"""

import dataclasses
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments.analysis.psychometric import Logistic, fit_logistic, wilson
from experiments.evaluate import evaluate
from experiments.players import RANDOM, EpisodeOptions, load_players, parse
from experiments.results import pyplot, refuse_existing, save_figure, show, write_numbers
from experiments.settings import PARTS, Settings
from vnl_ppo import run_folder
from vnl_ppo.run_folder import split_name
from vnl_ppo.runtime import keep_compilations

AROUND_ZERO = "+-"
"""Before values: a range is from minus each value to the value."""


@dataclasses.dataclass(frozen=True)
class PsychometricOptions(EpisodeOptions):
    """Options of `psychometrics.py`."""

    vary: tuple[str, str] = ("", "")
    """A setting of the world and its values: arena.gap-length 0.1:1.2:0.1 (first, last, step) or
    arena.gap-length 0.1,0.5,1. Of a range, both ends get the value; with +- before the values, such
    as arena.platform-shift +-0,0.5,1, the range is from minus the value to the value."""
    at_least: tuple[str, float] = ("success", 1.0)
    """An episode succeeds if this metric is at least this number."""
    episodes: int = 100
    """Number of episodes of each policy at each value."""
    output: Path | None = None
    """Folder for psychometrics.json and psychometrics.png; None for the (first) run's folder, where
    their names have the setting too."""

    @property
    def around_zero(self) -> bool:
        """Whether ranges are from minus each value to the value."""
        return self.vary[1].startswith(AROUND_ZERO)

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        super().check()
        if not all(self.vary):
            raise ValueError("--vary is missing; write --vary arena.gap-length 0.1:1.2:0.1")
        values_of(self.vary[1])
        if self.episodes < 2:
            raise ValueError(f"--episodes is {self.episodes}; it has to be at least 2")


def main() -> None:
    """Measure, print a table, and write numbers and a figure."""
    try:
        options, world = parse(PsychometricOptions, sys.argv[1:], __doc__)
        setting, text = options.vary
        values = values_of(text)
        worlds = [varied(world, setting, value, options.around_zero) for value in values]
        base = output(options, setting)
        numbers, drawing = base.with_suffix(".json"), base.with_suffix(".png")
        refuse_existing(numbers)
        keep_compilations()
        found = measure(options, worlds, values)
        write_numbers(found, numbers)
        draw(found, drawing)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    show(table(found))
    print(f"numbers in {numbers}, figure in {drawing}")


def values_of(text: str) -> list[float]:
    """Return the values that are written FIRST:LAST:STEP or with commas, after +- or not.

    Raises:
        ValueError: they are written otherwise, or are fewer than two.
    """
    numbers = text.removeprefix(AROUND_ZERO)
    try:
        if ":" in numbers:
            first, last, step = map(float, numbers.split(":"))
            number = int(np.floor((last - first) / step + 1e-9)) + 1 if step else 0
            values = [round(first + i * step, 9) for i in range(number)]
        else:
            values = [float(x) for x in numbers.split(",")]
    except ValueError:
        values = []
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"--vary has the values {text!r}; write FIRST:LAST:STEP, such as 0.1:1.2:0.1, or at "
            f"least two numbers with commas"
        )
    return values


def varied(world: Settings, setting: str, value: float, around_zero: bool = False) -> Settings:
    """Return the settings of a world in which one setting has a value.

    Args:
        world: the settings.
        setting: the name, such as arena.gap-length. Both ends of a range get the value.
        value: the value.
        around_zero: whether a range is from minus the value to the value instead.

    Raises:
        ValueError: there is no such setting, or it is neither a number nor a range.
    """
    part, _, name = setting.replace("-", "_").partition(".")
    parts = [p for p in PARTS if hasattr(world, p)]
    known = {
        f"{p}.{f.name}": getattr(getattr(world, p), f.name)
        for p in parts
        for f in dataclasses.fields(getattr(world, p))
    }
    old = known.get(f"{part}.{name}")
    close = difflib.get_close_matches(f"{part}.{name}", known, n=1)
    if f"{part}.{name}" not in known:
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"--vary names {setting!r}, which is no setting of this world{hint}")
    if isinstance(old, tuple) and len(old) == 2:
        new: Any = (-value if around_zero else value, value)
    elif isinstance(old, float | int) and not isinstance(old, bool):
        if around_zero:
            raise ValueError(f"--vary has {AROUND_ZERO} for {setting!r}, which is no range")
        if type(old)(value) != value:
            raise ValueError(f"--vary has {value:g} for {setting!r}, which takes whole numbers")
        new = type(old)(value)
    else:
        raise ValueError(f"--vary names {setting!r}, which is {old!r}, neither number nor range")
    changed = dataclasses.replace(getattr(world, part), **{name: new})
    return dataclasses.replace(world, **{part: changed})


def measure(
    options: PsychometricOptions, worlds: Sequence[Settings], values: Sequence[float]
) -> dict[str, Any]:
    """Run all policies at all values, and fit the curves."""
    metric, least = options.at_least
    everyone = []
    # An impossible value, such as the last one, is found before anything runs.
    for value, world in zip(values, worlds, strict=True):
        try:
            everyone.append(load_players(options.policies, world, lesions=options.lesions))
        except ValueError as error:
            raise ValueError(f"at {options.vary[0]} {value:g}: {error}") from error
    successes: dict[str, list[int]] = {}
    for players, world in zip(everyone, worlds, strict=True):
        length = options.length_in(world)
        for player in players:
            found = evaluate(player, options.episodes, length, options.seed)
            if metric not in found:
                raise ValueError(
                    f"--at-least names {metric!r}; this world has {', '.join(sorted(found))}"
                )
            successes.setdefault(player.name, []).append(int((found[metric] >= least).sum()))
    curves = {}
    for name, counts in successes.items():
        trials = np.full(len(counts), options.episodes)
        fit = fit_logistic(np.asarray(values), np.asarray(counts), trials)
        curves[name] = {
            "successes": counts,
            "intervals_95": [wilson(k, options.episodes) for k in counts],
            "threshold": fit and fit.threshold,
            "slope": fit and fit.slope,
        }
    return {
        "setting": ("±" if options.around_zero else "") + options.vary[0],
        "values": list(values),
        "success": f"{metric} >= {least:g}",
        "episodes": options.episodes,
        "seed": options.seed,
        "policies": curves,
    }


def output(options: PsychometricOptions, setting: str) -> Path:
    """Return the path of the files, without their suffix."""
    name = "psychometrics"
    if options.output:
        return options.output / name
    # The setting has a dot, which is no suffix.
    name += f"_{setting.replace('.', '_')}"
    if options.policies[0] == RANDOM:
        return Path(name)
    folder, _ = run_folder.split_agent(split_name(options.policies[0])[0])
    return folder / name


def table(found: Mapping[str, Any]) -> Table:
    """Return the share of successes of each policy at each value."""
    result = Table(
        title=f"share of {found['episodes']} episodes with {found['success']}, and 95 % interval"
    )
    result.add_column(found["setting"], justify="right")
    for name in found["policies"]:
        result.add_column(name, justify="right")
    for i, value in enumerate(found["values"]):
        cells = []
        for curve in found["policies"].values():
            low, high = curve["intervals_95"][i]
            cells.append(f"{curve['successes'][i] / found['episodes']:.2f} [{low:.2f}, {high:.2f}]")
        result.add_row(f"{value:g}", *cells)
    written = lambda x: "none" if x is None else f"{x:.3f}"
    result.add_row("threshold", *(written(x["threshold"]) for x in found["policies"].values()))
    return result


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw the curves."""
    if (plt := pyplot()) is None:
        return

    drawn, axes = plt.subplots(figsize=(5, 4))
    x = np.asarray(found["values"])
    for i, (name, curve) in enumerate(found["policies"].items()):
        share = np.asarray(curve["successes"]) / found["episodes"]
        error = np.abs(np.asarray(curve["intervals_95"]).T - share)
        axes.errorbar(x, share, yerr=error, fmt="o", color=f"C{i}", markersize=4, label=name)
        if curve["threshold"] is not None:
            fine = np.linspace(x.min(), x.max(), 200)
            fitted = Logistic(curve["threshold"], curve["slope"])
            axes.plot(fine, fitted(fine), color=f"C{i}")
        else:
            axes.plot(x, share, ":", color=f"C{i}")
    axes.set(xlabel=found["setting"], ylabel=f"share with {found['success']}", ylim=(-0.03, 1.03))
    axes.legend(frameon=False)
    save_figure(drawn, path)


if __name__ == "__main__":
    main()
