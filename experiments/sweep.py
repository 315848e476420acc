"""Train every combination of some settings, several runs at a time or on a cluster, and tabulate.

    python experiments/sweep.py --grid encoder=nature_cnn,impala seed=0..4 -- --env walls_ball
    python experiments/sweep.py --grid seed=0..2 --variants plain= feet="--task.only-feet" -- \\
        --env gap_ant --encoder none
    python experiments/sweep.py --grid seed=0..9 --cluster slurm \\
        --slurm partition=gpu gpus_per_node=1 timeout_min=120 -- --env stones_ant

What follows -- are flags of train.py for all runs. An axis of --grid is a flag of train.py without
its dashes and its values, separated by commas: numbers as a range 0..4, a flag of several words as
arena.gap_length="0.1 0.2,0.3 0.4". --variants is one more axis, of flags that go together.

Every run is a folder of its own, OUTPUT/CELL/seed_S, which can be evaluated, filmed and loaded as
any other. The same command again goes on: what is finished is not trained again, what was broken
off is resumed. The table has a row for each combination, with 95 % intervals over seeds; sweep.json
also has the learning curves.
"""

import dataclasses
import itertools
import json
import re
import shlex
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.table import Table

from experiments.analysis.shares import over_runs, steps_to, written_steps
from experiments.command_line import parse
from experiments.output import lasting_output
from experiments.results import show, write_numbers
from experiments.settings import Settings, build
from experiments.training_runs import (
    is_finished,
    last_line,
    refuse_flags,
    split_command,
    train_to_end,
)
from experiments.until import Goal, read_goal
from vnl_ppo import run_folder

NUMBERS = "sweep.json"
Cluster = Literal["", "slurm", "local"]
MEASURES = ("eval/episode_reward", "eval/obstacles_passed", "eval/success", "eval/x_velocity")
"""Series that the table shows by default, of those that the runs have."""
OWN_FLAGS = (
    "run-dir", "resume", "config", "quiet", "help", "dry-run", "dump-config", "list-encoders",
)  # fmt: skip
"""Flags of `train.py` that a sweep sets itself, or that make no run."""
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Options of `sweep.py`."""

    grid: tuple[str, ...] = ()
    """Axes, NAME=VALUE,VALUE,... each, such as seed=0..4 or encoder=nature_cnn,impala."""
    variants: tuple[str, ...] = ()
    """Values of one more axis: NAME=FLAGS each, such as feet="--task.only-feet"."""
    output: Path = Path("runs") / "sweep"
    """Folder of the runs, their logs and sweep.json."""
    jobs: int = 1
    """Number of runs at a time on this machine. One run fills the cores of a small machine."""
    attempts: int = 2
    """Number of times that a run may be started by this command, if it fails."""
    measures: tuple[str, ...] = ()
    """Series that the table shows, such as eval/success; empty for the usual ones."""
    reach: str = ""
    """METRIC>=NUMBER, such as "obstacles_passed>=2": tell after how many steps evaluations first
    reach it, between two of them on a straight line; empty for nothing."""
    cluster: Cluster = ""
    """Place of the trainings: empty for this machine, slurm for jobs of SLURM, local for submitit's
    processes here, all at once. The last two need the extra `cluster`."""
    slurm: tuple[str, ...] = ()
    """Options of jobs by submitit's names, NAME=VALUE each, such as timeout_min=120."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        for name in ("jobs", "attempts"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"--{name} is {value}; it has to be at least 1")
        if self.slurm and not self.cluster:
            raise ValueError("--slurm is given without --cluster slurm")
        if self.cluster and self.jobs > 1:
            raise ValueError(
                f"--jobs is {self.jobs}, which is for this machine; leave it out with --cluster"
            )


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        cell: its place in the grid, without the seed: value by axis.
        seed: its random seed.
        folder: its folder.
        flags: flags of `train.py` for it, all but the folder.
    """

    cell: Mapping[str, str]
    seed: int
    folder: Path
    flags: Sequence[str]

    @property
    def name(self) -> str:
        """Name of the run, unique in its sweep."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def log(self) -> Path:
        """The file of the run's output."""
        return self.folder.with_name(f"{self.folder.name}.log")


def main() -> None:
    """Train what is missing, and write a table and numbers."""
    with lasting_output():
        try:
            own, flags = split_command(sys.argv[1:])
            options = tyro.cli(SweepOptions, args=own, description=__doc__)
            options.check()
            runs = runs_of(options, flags)
            check_axes(options.output / NUMBERS, runs[0].cell)
            worlds: dict[str, Settings] = {}
            for run in runs:
                # A wrong flag, and a folder with something else in it, is found before any work.
                settings = parse(run.flags, None)
                is_finished(run.flags, run.folder)
                worlds.setdefault(settings.env, settings)
            goal = None
            for settings in worlds.values() if options.reach else ():
                goal = read_goal(options.reach, build(settings)[0], "--reach")
            failed = (train_on_cluster if options.cluster else train_here)(options, runs)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit(130)
        report(options, flags, runs, failed, goal)
        for name, reason in failed.items():
            print(f"failed: {name}: {reason}", file=sys.stderr)
        if failed:
            sys.exit(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again")


def runs_of(options: SweepOptions, flags: Sequence[str]) -> list[Run]:
    """Return all runs, those of one combination after each other.

    Raises:
        ValueError: an axis or a variant cannot be read, is named twice, or is none of a sweep's, or
            two combinations would share a folder.
    """
    reasons = dict.fromkeys(OWN_FLAGS, "the sweep sets it, or it makes no run")
    refuse_flags(flags, reasons | {"seed": "seeds are an axis: write --grid seed=NUMBER"})
    axes: dict[str, dict[str, list[str]]] = {}
    for text in options.grid:
        name, choices = read_axis(text)
        if name in axes:
            raise ValueError(f"--grid has {name} twice; give its values in one entry")
        axes[name] = {value: [f"--{name}", *shlex.split(value)] for value in choices}
    if options.variants:
        axes["variant"] = {}
        for text in options.variants:
            name, equals, own = text.partition("=")
            if not equals or not name:
                raise ValueError(f"--variants has {text!r}; write NAME=FLAGS, such as plain=")
            if name in axes["variant"]:
                raise ValueError(f"--variants has {name!r} twice")
            axes["variant"][name] = shlex.split(own)
    if not axes:
        raise ValueError("nothing varies; give --grid, such as --grid seed=0..4, or --variants")
    seeds = axes.pop("seed", {"0": ["--seed", "0"]})
    if wrong := [seed for seed in seeds if not seed.isdigit()]:
        raise ValueError(f"--grid has seed={wrong[0]}; a seed is a whole number, 0 or more")
    runs = []
    for values in itertools.product(*axes.values()):
        cell = dict(zip(axes, values, strict=True))
        set_here = [flag for name, value in cell.items() for flag in axes[name][value]]
        place = options.output / folder_name(cell)
        runs += [
            Run(
                cell,
                int(seed),
                place / run_folder.agent_folder(int(seed)),
                [*flags, *set_here, *given],
            )
            for seed, given in seeds.items()
        ]
    folders = [run.folder for run in runs]
    if twice := {str(folder) for folder in folders if folders.count(folder) > 1}:
        raise ValueError(f"several combinations would share the folder {sorted(twice)[0]}")
    return runs


def check_axes(path: Path, cell: Mapping[str, str]) -> None:
    """Raise a ValueError if the numbers of a sweep over other axes than those of `cell` are there.

    Those of a sweep over the same axes are written anew, with what has been added.
    """
    if not path.exists():
        return
    cells = json.loads(path.read_text())["cells"]
    if cells and set(cells[0]["cell"]) != set(cell):
        there, here = (", ".join(x) or "seeds alone" for x in (cells[0]["cell"], cell))
        raise ValueError(f"{path} is of a sweep over {there}, not {here}; give another --output")


def read_axis(text: str) -> tuple[str, list[str]]:
    """Return name and values of an axis, NAME=VALUE,VALUE,...

    Commas within parentheses or brackets belong to a value, as in nature_cnn(features=8, act=elu).

    Raises:
        ValueError: it has no name or no value, or a value twice.
    """
    name, equals, rest = text.partition("=")
    name = name.strip().removeprefix("--").replace("_", "-")
    parts, depth = [""], 0
    for letter in rest:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    values = [part.strip() for part in parts]
    if not equals or not name or "" in values:
        raise ValueError(f"--grid has {text!r}; write NAME=VALUE,VALUE,... or NAME=FIRST..LAST")
    if name in OWN_FLAGS:
        raise ValueError(f"--grid has {name}, which the sweep sets itself, or which makes no run")
    spread: list[str] = []
    for value in values:
        ends = _RANGE.fullmatch(value)
        first, last = map(int, ends.groups()) if ends else (0, 0)
        spread += map(str, range(first, last + 1)) if ends else [value]
        if ends and last < first:
            raise ValueError(f"--grid has {name}={value}; the first has to be the lowest")
    if len(set(spread)) < len(spread):
        raise ValueError(f"--grid has a value of {name} twice: {', '.join(spread)}")
    return name, spread


def folder_name(cell: Mapping[str, str]) -> str:
    """Return the name of the folder of a combination, of letters that any file system takes."""
    name = ",".join(f"{name}={value}" for name, value in cell.items()) or "all"
    return re.sub(r"[^\w.,=+-]+", "_", name)


def train_here(options: SweepOptions, runs: Sequence[Run]) -> dict[str, str]:
    """Train the runs on this machine; return the reasons of those that failed, by name."""

    stopped = threading.Event()

    def attempt(run: Run) -> str:
        reason = ""
        for _ in range(options.attempts):
            if stopped.is_set():
                break
            try:
                train_to_end(run.flags, run.folder, run.name, run.log)
                return ""
            except (ValueError, OSError) as error:
                reason = str(error)
        return reason

    with ThreadPoolExecutor(options.jobs) as pool:
        reasons = pool.map(attempt, runs)
        try:
            found = {run.name: reason for run, reason in zip(runs, reasons, strict=True)}
        except KeyboardInterrupt:
            # The trainings got the interrupt too, and save what they learned.
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return {name: reason for name, reason in found.items() if reason}


def train_on_cluster(options: SweepOptions, runs: Sequence[Run]) -> dict[str, str]:
    """Submit a job for each run and wait; return the reasons of those that failed, by name.

    A job that ends early, by its time limit for instance, is submitted again and resumes its run.

    Raises:
        ValueError: submitit is not installed, or does not know an option.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ValueError("--cluster needs submitit: pip install -e '.[cluster]'") from error
    given = {}
    for text in options.slurm:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--slurm has {text!r}; write NAME=VALUE, such as timeout_min=120")
        given[name] = int(value) if value.isdigit() else value
    executor = submitit.AutoExecutor(options.output / "jobs", cluster=options.cluster)
    try:
        executor.update_parameters(**given)
    except (NameError, TypeError, ValueError) as error:
        raise ValueError(f"--slurm: submitit does not take it: {error}") from error
    waiting = [run for run in runs if not is_finished(run.flags, run.folder)]
    failed: dict[str, str] = {}
    for _ in range(options.attempts):
        jobs = {
            run.name: executor.submit(
                train_to_end, run.flags, run.folder.absolute(), run.name, run.log.absolute()
            )
            for run in waiting
        }
        print(f"{len(jobs)} jobs: {', '.join(str(job.job_id) for job in jobs.values())}")
        try:
            errors = {name: job.exception() for name, job in jobs.items()}
        except KeyboardInterrupt:
            # Each saves what it learned, as a run that is stopped does.
            for job in jobs.values():
                job.cancel(check=False)
            raise
        failed = {name: last_line(str(error)) for name, error in errors.items() if error}
        waiting = [run for run in waiting if run.name in failed]
        if not waiting:
            break
    return failed


def report(
    options: SweepOptions,
    flags: Sequence[str],
    runs: Sequence[Run],
    failed: Mapping[str, str],
    goal: Goal | None,
) -> None:
    """Write sweep.json and print the table of all runs that have results."""
    results = [{**read_results(run.folder), "run": run} for run in runs if run.name not in failed]
    known = sorted({name for result in results for name in result["last"]})
    if missing := [name for name in options.measures if name not in known]:
        print(f"no run has {', '.join(missing)}; there are {', '.join(known)}", file=sys.stderr)
    measures = [m for m in options.measures or MEASURES if m in known]
    cells: list[dict[str, Any]] = []
    for cell, group in itertools.groupby(results, lambda result: result["run"].cell):
        members = list(group)
        finals = {m: [x["last"][m] for x in members if m in x["last"]] for m in known}
        cells.append(
            {
                "cell": dict(cell),
                "seeds": [x["run"].seed for x in members],
                "minutes": [x["minutes"] for x in members],
                "final": {
                    m: {**dataclasses.asdict(over_runs(values)), "per_seed": values}
                    for m, values in finals.items()
                },
                "curves": {str(x["run"].seed): x["curves"] for x in members},
            }
        )
        if goal:
            curves = [dict(x["curves"][f"eval/{goal.metric}"]) for x in members]
            cells[-1]["reach"] = {"goal": str(goal), **steps_to(curves, goal.least)}
    numbers = {
        "command": shlex.join(["python", "experiments/sweep.py", *sys.argv[1:]]),
        "flags": list(flags),
        "failed": dict(failed),
        "cells": cells,
    }
    write_numbers(numbers, options.output / NUMBERS)
    if cells:
        show(table(cells, measures, goal))
    print(f"numbers in {options.output / NUMBERS}; tensorboard --logdir {options.output}")


def read_results(folder: Path) -> dict[str, Any]:
    """Return the last value and the curve of each series of a run's evaluations, and its minutes.

    Raises:
        ValueError: the run has no evaluations.
    """
    # Imported late: it takes a second.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    names = [name for name in events.Tags()["scalars"] if name.startswith("eval/")]
    curves = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}
    every = [e.wall_time for name in names for e in events.Scalars(name)]
    begun = (folder / run_folder.CONFIG).stat().st_mtime
    return {
        "curves": curves,
        "last": {name: curve[-1][1] for name, curve in curves.items()},
        "minutes": (max(every, default=time.time()) - begun) / 60,
    }


def table(
    cells: Sequence[Mapping[str, Any]], measures: Sequence[str], goal: Goal | None = None
) -> Table:
    """Return the final results: a row for each combination, a column for each measure."""
    axes = list(cells[0]["cell"])
    reached = [f"steps to {goal}"] if goal else []
    result = Table(title="last evaluation: mean and 95 % interval over seeds")
    for name in (*axes, "seeds", *(m.removeprefix("eval/") for m in measures), *reached, "minutes"):
        result.add_column(name, justify="left" if name in axes else "right")
    for x in cells:
        finals = [x["final"][m] for m in measures]
        written = [f"{f['mean']:.3g} [{f['low']:.3g}, {f['high']:.3g}]" for f in finals]
        written += [written_steps(x["reach"])] if goal else []
        minutes = sum(x["minutes"]) / len(x["minutes"])
        result.add_row(*x["cell"].values(), str(len(x["seeds"])), *written, f"{minutes:.1f}")
    return result


if __name__ == "__main__":
    main()
