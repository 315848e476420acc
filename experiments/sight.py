"""Find out whether an animal sees: train it blind, told, and seeing, and compare.

    python experiments/sight.py walls_ball
    python experiments/sight.py stones_ant --num-timesteps 3000000 --seeds 10 11 12 13 14
    python experiments/sight.py walls_ball --seeds 0 1 2 --conditions plain told_critic

Every condition has the same world, the same number of steps and the same settings of PPO; they
differ in what the animal observes, and some in how its encoder is trained:

- blind: proprioception only;
- told: also `ahead`, the truth about what lies ahead, as numbers;
- plain: pixels instead;
- told_critic: pixels, and the value function is told `ahead`;
- prediction: so, and the features of the policy have to predict `ahead`;
- taught: as told_critic, and the told animal of the same seed teaches the policy (--teacher);
- untrained: as told_critic, with the encoder as it was drawn at the beginning.

The share is how much of what knowing is worth seeing gets, (seeing - blind) / (told - blind) of the
obstacles passed in an episode. The seeing animals then run blindfolded, in the same episodes: with
a black image, with that of another animal, with the first of the episode. How fast an animal learns
is the number of steps until it passes as many as the mean of blind and told in the end.

Each condition and seed is a run of its own in the output folder, which is trained by `train.py`,
goes on where it was broken off, and can be evaluated, filmed and loaded as any other.
"""

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.table import Table

from experiments.analysis.shares import over_runs, share, steps_to, written_steps
from experiments.lesions import SenseLesion
from experiments.results import pyplot, save_figure, show, write_numbers
from experiments.settings import BLIND, build, settings_of
from experiments.training_runs import refuse_flags, train_to_end
from vnl_ppo import checkpoint, run_folder
from vnl_ppo.evaluation import acting, run_episodes
from vnl_ppo.loading import load_into
from vnl_ppo.observations import flatten
from vnl_ppo.runtime import keep_compilations

COMMON = (
    "--num-envs 128 --batch-size 16 --num-minibatches 8 --num-updates-per-batch 2 "
    "--learning-rate 5e-4 --learning-rate-schedule constant --entropy-cost-final None "
    "--discounting 0.99 --episode-length 400 --vision.height 40 --vision.width 40 --features 32 "
    "--num-evals 6 --num-eval-envs 64 --checkpoints.keep-last 0 --video-seconds 0 --ahead"
)
"""Flags of `train.py` that all conditions have."""
TOLD_CRITIC = "--network.value-leaves ahead proprio"
NO_EYES = f"--encoder {BLIND}"
CONDITIONS = {
    "blind": NO_EYES,
    "told": f"{NO_EYES} --network.policy-leaves ahead proprio {TOLD_CRITIC}",
    "plain": "",
    "told_critic": TOLD_CRITIC,
    "prediction": f"{TOLD_CRITIC} --network.predict-leaves ahead",
    "taught": f"{TOLD_CRITIC} --teacher {{told}}",
    "untrained": f"{TOLD_CRITIC} --network.freeze vision",
}
"""Flags of each condition; {told} is the run of the told animal of the same seed."""
OWN_FLAGS = {
    "env": "the environment is the first argument of sight.py",
    "num-timesteps": "--num-timesteps of sight.py sets it",
    "seed": "--seeds of sight.py set it",
    "num-seeds": "--seeds of sight.py trains one run for each",
    "run-dir": "each run has a folder of its own in --output",
    "resume": "the same command goes on with what was broken off",
    "config": "all settings are flags here",
}
"""Flags that --flags may not have, and the reason."""
BLINDFOLDS = ("blank", "other", "frozen")
MEASURE = "obstacles_passed"


@dataclasses.dataclass(frozen=True)
class SightOptions:
    """Options of `sight.py`."""

    env: tyro.conf.Positional[str]
    """A preset whose arena or task tells what lies ahead, such as walls_ant or stones_ant."""
    num_timesteps: int = 1_000_000
    """Number of environment steps of every run."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A run of each condition for each. Choose settings on other seeds than those you report."""
    conditions: tuple[str, ...] = ("blind", "told", "prediction")
    """Conditions to train, of those listed above."""
    seeing: str = "prediction"
    """The condition whose share is computed and that is blindfolded."""
    episodes: int = 256
    """Number of episodes of the final evaluation, the same for all policies; a quarter of it for
    each earlier point of the learning curves."""
    evaluation_seed: int = 1000
    """Random seed of the evaluation's episodes."""
    flags: str = ""
    """Further flags of train.py for all conditions, as --flags="--vision.height 64 ..."."""
    output: Path | None = None
    """Folder of the runs, sight.json and sight.png; by default runs/sight_ENV. Runs that are there
    are trained to their end, and not again; numbers and figure are those of the last call."""

    def check(self) -> None:
        """Raise a ValueError that names the first option that is impossible."""
        for name in {*self.conditions, self.seeing}:
            if name not in CONDITIONS:
                raise ValueError(
                    f"there is no condition {name!r}; there are {', '.join(CONDITIONS)}"
                )
        if NO_EYES in CONDITIONS[self.seeing]:
            raise ValueError(
                f"--seeing is {self.seeing}, which has no eyes to blindfold; name one of "
                f"{', '.join(k for k, flags in CONDITIONS.items() if NO_EYES not in flags)}"
            )
        refuse_flags(shlex.split(self.flags), OWN_FLAGS)
        names = list(self.conditions)
        if "taught" in names and "told" not in names[: names.index("taught")]:
            raise ValueError(
                "--conditions has taught, whose teacher is the told animal; name told before it"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds are {self.seeds}; name each once, and at least one")
        if self.episodes < 2:
            raise ValueError(f"--episodes is {self.episodes}; an interval needs at least 2 of them")


def main() -> None:
    """Train what is missing, evaluate all, and write a table, numbers and a figure."""
    try:
        options = tyro.cli(SightOptions, description=__doc__)
        options.check()
        folder = options.output or Path("runs") / f"sight_{options.env.replace(':', '_')}"
        runs = {
            (name, seed): folder / name / run_folder.agent_folder(seed)
            for name in options.conditions
            for seed in options.seeds
        }
        for (name, seed), run in runs.items():
            flags = flags_of(options, name, seed, run)
            train_to_end(flags, run, title=f"{name}, seed {seed}")
        keep_compilations()
        found = [measure(options, name, seed, run) for (name, seed), run in runs.items()]
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    summary = summarise(options, found)
    write_numbers(summary, folder / "sight.json")
    show(table(summary))
    figure(summary, folder / "sight.png")
    print(f"numbers in {folder / 'sight.json'}, figure in {folder / 'sight.png'}")


def flags_of(options: SightOptions, condition: str, seed: int, run: Path) -> list[str]:
    """Return the flags of `train.py` for a new run."""
    flags = shlex.split(f"{COMMON} {CONDITIONS[condition]} {options.flags}")
    told = run.parents[1] / "told" / run.name
    last = max(checkpoint.steps(told / run_folder.CHECKPOINTS), default=0)
    flags = [f"{told}@{last}" if flag == "{told}" else flag for flag in flags]
    steps = ["--num-timesteps", str(options.num_timesteps), "--seed", str(seed)]
    return ["--env", options.env, *flags, *steps]


def measure(options: SightOptions, condition: str, seed: int, run: Path) -> dict[str, Any]:
    """Evaluate all checkpoints of a run; if it is a seeing one, blindfold its last policy too."""
    settings = settings_of(str(run))
    env, network = build(settings)
    length = settings.ppo.episode_length

    def means(step: int, episodes: int, blindfold: str | None = None) -> dict[str, float]:
        def of(weights: Any, key: jax.Array) -> dict[str, jax.Array]:
            actor = acting(network, weights, deterministic=True)
            for lesion in [SenseLesion(leaf, blindfold) for leaf in images if blindfold]:
                actor = lesion.of(actor, policy)
            return run_episodes(env, actor, key, episodes, length)[0]

        policy = load_into(env, network, settings.ppo, run, step)
        run_of = programs.setdefault((episodes, blindfold), jax.jit(of))
        found = run_of(policy.weights, jax.random.key(options.evaluation_seed))
        return {k: float(x.mean()) for k, x in found.items()}

    images = [name for name, leaf in flatten(env.observation_spec).items() if len(leaf.shape) == 3]
    programs: dict[Any, Any] = {}
    *before, last = checkpoint.steps(run / run_folder.CHECKPOINTS)
    # A point of a curve takes fewer episodes than what is reported.
    curve = {step: means(step, max(2, options.episodes // 4))[MEASURE] for step in before}
    final = means(last, options.episodes)
    kinds = BLINDFOLDS if condition == options.seeing else ()
    return {
        "condition": condition,
        "seed": seed,
        "minutes": training_minutes(run),
        "curve": {**curve, last: final[MEASURE]},
        "final": final,
        "blindfolded": {kind: means(last, options.episodes, kind)[MEASURE] for kind in kinds},
    }


def training_minutes(run: Path) -> float:
    """Return the minutes from the run's first file to its last checkpoint."""
    last = max((run / run_folder.CHECKPOINTS).iterdir(), key=lambda path: path.stat().st_mtime)
    return (last.stat().st_mtime - (run / run_folder.CONFIG).stat().st_mtime) / 60


def summarise(options: SightOptions, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return all numbers, over seeds, as they go to sight.json."""
    conditions: dict[str, Any] = {}
    for name in options.conditions:
        runs = [run for run in found if run["condition"] == name]
        finals = [run["final"][MEASURE] for run in runs]
        conditions[name] = {
            **dataclasses.asdict(over_runs(finals)),
            "runs": runs,
            "per_seed": finals,
            "metrics": {k: over_runs([r["final"][k] for r in runs]).mean for k in runs[0]["final"]},
        }
    summary: dict[str, Any] = {
        "env": options.env,
        "measure": MEASURE,
        "num_timesteps": options.num_timesteps,
        "seeds": list(options.seeds),
        "episodes": options.episodes,
        "evaluation_seed": options.evaluation_seed,
        "seeing": options.seeing,
        "flags": f"{COMMON} {options.flags}".strip(),
        "condition_flags": {name: CONDITIONS[name] for name in options.conditions},
        "conditions": conditions,
    }
    if options.seeing in conditions:
        seeing = conditions[options.seeing]
        summary["blindfolded"] = {}
        for kind in BLINDFOLDS:
            values = [run["blindfolded"][kind] for run in seeing["runs"]]
            summary["blindfolded"][kind] = {
                **dataclasses.asdict(over_runs(values)),
                "per_seed": values,
            }
    if {"blind", "told"} <= set(conditions):
        half = (conditions["blind"]["mean"] + conditions["told"]["mean"]) / 2
        for x in conditions.values():
            x["steps_to_half"] = steps_to([run["curve"] for run in x["runs"]], half)
        if options.seeing in conditions:
            blind, told = (conditions[x]["per_seed"] for x in ("blind", "told"))
            seen = conditions[options.seeing]["per_seed"]
            summary["share"] = dataclasses.asdict(share(seen, blind, told))
    return summary


def table(summary: Mapping[str, Any]) -> Table:
    """Return what each condition reached, a row each."""
    seeds = ", ".join(map(str, summary["seeds"]))
    result = Table(
        title=f"{summary['env']} after {summary['num_timesteps']:,} steps, seeds {seeds}: mean and "
        f"95 % interval over seeds, {summary['episodes']} episodes each"
    )
    for name in ("", summary["measure"], "each seed", "steps to half", "minutes"):
        result.add_column(name, justify="left" if not name else "right")
    written = lambda x: f"{x['mean']:.2f} [{x['low']:.2f}, {x['high']:.2f}]"
    each = lambda values: " ".join(f"{x:.2f}" for x in values)
    for name, x in summary["conditions"].items():
        minutes = np.mean([run["minutes"] for run in x["runs"]])
        half = written_steps(x["steps_to_half"]) if "steps_to_half" in x else ""
        result.add_row(name, written(x), each(x["per_seed"]), half, f"{minutes:.1f}")
    for kind, x in summary.get("blindfolded", {}).items():
        result.add_row(f"{summary['seeing']}, {kind}", written(x), each(x["per_seed"]))
    if "share" in summary:
        result.add_row("share of told - blind", written(summary["share"]))
    return result


def figure(summary: Mapping[str, Any], path: Path) -> None:
    """Draw learning curves, and what each condition reached in the end."""
    if (plt := pyplot()) is None:
        return

    drawn, (curves, ends) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 2))
    entries: list[tuple[str, Mapping[str, Any], str]] = []
    for i, (name, x) in enumerate(summary["conditions"].items()):
        # A slow run has checkpoints in between, and one that was broken off has one at its break.
        common = set.intersection(*(set(run["curve"]) for run in x["runs"]))
        steps = [step for step in x["runs"][0]["curve"] if step in common]
        values = np.array([[run["curve"][step] for step in steps] for run in x["runs"]])
        spread = [over_runs(column) for column in values.T]
        steps = [int(step) / 1e6 for step in steps]
        curves.plot(steps, values.mean(axis=0), color=f"C{i}", label=name)
        low, high = ([getattr(e, end) for e in spread] for end in ("low", "high"))
        curves.fill_between(steps, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
        entries.append((name, x, f"C{i}"))
    entries += [
        (f"{summary['seeing']}, {kind}", x, "grey")
        for kind, x in summary.get("blindfolded", {}).items()
    ]
    for i, (_, x, color) in enumerate(entries):
        ends.barh(i, x["mean"], color=color, alpha=0.4)
        ends.plot(x["per_seed"], [i] * len(x["per_seed"]), "o", color=color, markersize=4)
        ends.plot([x["low"], x["high"]], [i, i], color=color)
    ends.set_yticks(range(len(entries)), [name for name, *_ in entries])
    ends.invert_yaxis()
    what = f"{summary['measure'].replace('_', ' ')} in an episode"
    curves.set(xlabel="environment steps, millions", ylabel=what, title=summary["env"])
    ends.set(xlabel=what, title=f"{len(summary['seeds'])} seeds, 95 % intervals")
    curves.legend(frameon=False)
    save_figure(drawn, path)


if __name__ == "__main__":
    main()
