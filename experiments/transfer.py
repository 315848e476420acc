"""Compare an animal that was trained in stages with one that had only the last, for equal steps.

    python experiments/transfer.py gap_ant --stage arena.gap_length=0.05,0.2
        --stage arena.gap_length=0.2,0.5 --num-timesteps 1500000 --seeds 0 1 2 3 4 -- --encoder none

(on one line). Flags behind `--` are those of train.py. Both are curricula (see curriculum.py) in
the output folder, stages/seed_0 and nothing/seed_0, and so on for each seed: what is there is not
trained again, and what was broken off goes on. No stage is left early. The last policies of both
then run in the same episodes of the last stage.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.table import Table

from experiments import curriculum
from experiments.analysis.shares import over_runs
from experiments.curriculum import CurriculumOptions, Stage
from experiments.evaluate import evaluate
from experiments.output import lasting_output
from experiments.players import Player
from experiments.results import pyplot, save_figure, show, write_numbers
from experiments.settings import build, settings_of
from experiments.training_runs import split_command
from vnl_ppo import run_folder
from vnl_ppo.health import NotFiniteError
from vnl_ppo.interruption import Interrupted
from vnl_ppo.loading import load_into
from vnl_ppo.runtime import keep_compilations

KINDS = ("stages", "nothing")
NEVER = 1e30
"""A threshold at which no stage is left."""


@dataclasses.dataclass(frozen=True)
class TransferOptions:
    """Options of `transfer.py`."""

    env: tyro.conf.Positional[str]
    """Environment of all stages, as --env of train.py."""
    stage: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Settings of a stage, as of curriculum.py, two or more; once for each stage, in order."""
    num_timesteps: int = 1_000_000
    """Number of environment steps of each stage."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Both animals are trained for each."""
    measure: str = "obstacles_passed"
    """Metric of episodes that is compared."""
    num_evals: int = 11
    """Number of evaluations in each stage, for the curves."""
    episodes: int = 256
    """Number of episodes of the final evaluation, the same for all."""
    evaluation_seed: int = 1000
    """Random seed of these episodes."""
    output: Path | None = None
    """Folder of the runs, transfer.json and transfer.png; by default runs/transfer_ENV."""

    def check(self) -> None:
        """Raise a ValueError that names the first option that is impossible."""
        if len(self.stage) < 2:
            raise ValueError(f"{len(self.stage)} stages are named; transfer takes 2, or more")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds are {self.seeds}; name each once, and at least one")
        if self.episodes < 1:
            raise ValueError(f"--episodes is {self.episodes}; it has to be at least 1")

    @property
    def folder(self) -> Path:
        """The folder of everything."""
        return self.output or Path("runs") / f"transfer_{self.env.replace(':', '_')}"


def main() -> None:
    """Train what is missing, evaluate all, and write a table, numbers and a figure."""
    with lasting_output():
        _main(sys.argv[1:])


def _main(arguments: list[str]) -> None:
    try:
        own, flags = split_command(arguments)
        options = tyro.cli(TransferOptions, args=own, description=__doc__)
        options.check()
        planned = {}
        for kind in KINDS:
            for seed in options.seeds:
                given = arguments_of(options, kind, seed, flags)
                parsed, of_stages = curriculum.parse(given)
                planned[kind, seed] = (parsed, curriculum.stages_of(parsed, of_stages), given)
        compilations = keep_compilations()
        for (kind, seed), (parsed, stages, given) in planned.items():
            print(f"{kind}, seed {seed}: {stages[0].run.parent}", flush=True)
            curriculum.train_all(parsed, stages, given, compilations)
        found = [
            measure(options, kind, seed, parsed, stages)
            for (kind, seed), (parsed, stages, _) in planned.items()
        ]
    except (ValueError, OSError, NotFiniteError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as interrupted:
        print(f"{interrupted}; the same command goes on", file=sys.stderr)
        sys.exit(interrupted.status)
    except KeyboardInterrupt:
        sys.exit(130)
    summary = summarise(options, found)
    write_numbers(summary, options.folder / "transfer.json")
    show(table(summary))
    figure(summary, options.folder / "transfer.png")
    print(f"numbers in {options.folder / 'transfer.json'}")


def arguments_of(options: TransferOptions, kind: str, seed: int, flags: Sequence[str]) -> list[str]:
    """Return the arguments of `curriculum.py` for one animal."""
    stages, steps = options.stage, options.num_timesteps
    if kind == "nothing":
        stages, steps = stages[-1:], steps * len(stages)
    # Evaluations are as far apart in both.
    evaluations = options.num_evals
    if kind == "nothing":
        evaluations = (options.num_evals - 1) * len(options.stage) + 1
    return [
        options.env,
        *(x for stage in stages for x in ("--stage", stage)),
        *("--measure", options.measure, "--threshold", repr(NEVER)),
        *("--num-timesteps", str(steps), "--num-evals", str(evaluations)),
        *("--output", str(options.folder / kind / run_folder.agent_folder(seed))),
        *("--", *flags, "--seed", str(seed)),
    ]


def measure(
    options: TransferOptions,
    kind: str,
    seed: int,
    parsed: CurriculumOptions,
    stages: Sequence[Stage],
) -> dict[str, Any]:
    """Return one animal's curve over all its steps, and what its last policy reaches."""
    last = stages[-1]
    settings = settings_of(str(last.run))
    env, network = build(settings)
    policy = load_into(env, network, settings.ppo, last.run, last.last)
    player = Player(kind, env, policy.actor(), settings.ppo.episode_length)
    final = evaluate(player, options.episodes, player.episode_length, options.evaluation_seed)
    about = [curriculum.about(parsed, stage) for stage in stages]
    return {
        "kind": kind,
        "seed": seed,
        "curve": [list(x) for x in curriculum.over_all_steps(about)],
        "final": {k: float(x.mean()) for k, x in final.items()},
    }


def summarise(options: TransferOptions, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return all numbers, over seeds, as they go to transfer.json."""
    finals = {
        kind: [run["final"][options.measure] for run in found if run["kind"] == kind]
        for kind in KINDS
    }
    differences = np.subtract(finals["stages"], finals["nothing"])
    return {
        "env": options.env,
        "settings": list(options.stage),
        "measure": options.measure,
        "num_timesteps": options.num_timesteps * len(options.stage),
        "seeds": list(options.seeds),
        "episodes": options.episodes,
        "evaluation_seed": options.evaluation_seed,
        **{
            kind: {**dataclasses.asdict(over_runs(values)), "per_seed": values}
            for kind, values in finals.items()
        },
        "difference": {
            **dataclasses.asdict(over_runs(differences.tolist())),
            "per_seed": differences.tolist(),
        },
        "runs": list(found),
    }


def table(summary: Mapping[str, Any]) -> Table:
    """Return what both animals reached, and their difference, a row each."""
    result = Table(
        title=f"{summary['env']}, {summary['settings'][-1]}, after {summary['num_timesteps']:,} "
        f"steps: mean and 95 % interval over {len(summary['seeds'])} seeds"
    )
    for name in ("", summary["measure"], "each seed"):
        result.add_column(name, justify="right" if name else "left")
    for name in (*KINDS, "difference"):
        x = summary[name]
        each = " ".join(f"{value:.2f}" for value in x["per_seed"])
        result.add_row(name, f"{x['mean']:.2f} [{x['low']:.2f}, {x['high']:.2f}]", each)
    return result


def figure(summary: Mapping[str, Any], path: Path) -> None:
    """Draw the curves of both animals, each seed thin and their mean thick."""
    if (plt := pyplot()) is None:
        return

    drawn, axes = plt.subplots(figsize=(6, 4))
    for i, kind in enumerate(KINDS):
        curves = [np.array(run["curve"]) for run in summary["runs"] if run["kind"] == kind]
        for curve in curves:
            axes.plot(curve[:, 0] / 1e6, curve[:, 2], color=f"C{i}", alpha=0.3, linewidth=1)
        mean = np.mean(curves, axis=0)
        label = "in stages" if kind == "stages" else "the last stage from nothing"
        axes.plot(mean[:, 0] / 1e6, mean[:, 2], color=f"C{i}", label=label)
        for begin in np.flatnonzero(np.diff(mean[:, 1])):
            axes.axvline(mean[begin, 0] / 1e6, color="grey", linestyle=":", linewidth=1)
    what = f"{summary['measure'].replace('_', ' ')} in an episode of the stage"
    axes.set(xlabel="environment steps of all stages, millions", ylabel=what)
    axes.set(title=f"{summary['env']}: {', then '.join(summary['settings'])}")
    axes.title.set_fontsize(9)
    axes.legend(frameon=False)
    save_figure(drawn, path)


if __name__ == "__main__":
    main()
