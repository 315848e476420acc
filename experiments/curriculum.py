"""Train in stages: each has other settings, and begins with what the one before has learned.

    python experiments/curriculum.py gap_ant --stage arena.gap_length=0.05,0.2 \\
        --stage arena.gap_length=0.2,0.5 --measure obstacles_passed --threshold 3 --output runs/gaps
    python experiments/curriculum.py walls_ball --stage "arena.gap=1,2" --stage "arena.gap=0.6,1" \\
        --output runs/walls -- --encoder none --num-envs 64
    python experiments/curriculum.py --resume runs/gaps

A stage is one setting or several with spaces between them, NAME=VALUE, or NAME=VALUE,VALUE for a
setting of several values; what it does not name is as in --env and in the flags of train.py after
`--`. A stage is left when the measure was at least the threshold in three evaluations in a row, or
when its steps are spent.

Each stage is a run of its own in the output folder, `stage_1`, `stage_2`, ..., that can be
evaluated, filmed and loaded as any other; the last is the result. TensorBoard of the folder shows
all of them, and `curriculum/` the measure and the stage over the steps of all. A curriculum that
was broken off goes on where it was with --resume, or with the same command.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro
from rich.table import Table

from envs.tasks.run_through_corridor import RunThroughCorridor
from experiments import command_line
from experiments.output import lasting_output
from experiments.results import show, write_numbers
from experiments.settings import Settings, build, from_dict, settings_of, to_dict
from experiments.training_runs import LENT, check_same, refuse_flags, split_command
from experiments.until import EVALUATIONS, Goal, evaluations_of, read_goal
from vnl_ppo import checkpoint, run_folder
from vnl_ppo.events import EventFile
from vnl_ppo.health import NotFiniteError
from vnl_ppo.interruption import Interrupted
from vnl_ppo.runtime import Compilations, keep_compilations

NUMBERS = "curriculum.json"
NOT_OF_A_STAGE = ("env", "init_from", "encoder_from", "until", "num_timesteps", "num_seeds")
"""Settings that a stage may not name: they are the curriculum's."""
OWN_FLAGS = {
    "env": "the environment is the first argument of curriculum.py",
    "num-timesteps": "--num-timesteps of curriculum.py sets it, one number for each stage",
    "until": "--measure and --threshold set it",
    "num-seeds": "a stage begins with what one agent has learned; run a curriculum for each seed",
    "run-dir": "the stages have folders of their own in --output",
    "resume": "the same command goes on with what was broken off",
    "config": "a curriculum takes its settings from flags",
    "distributed": "a curriculum trains in one process",
}
"""Flags of `train.py` that may not follow --, and the reason."""


@dataclasses.dataclass(frozen=True)
class CurriculumOptions:
    """Options of `curriculum.py`; behind `--` come flags of `train.py` for all stages."""

    env: tyro.conf.Positional[str]
    """Environment of all stages, as --env of train.py."""
    stage: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Settings of a stage, such as arena.gap_length=0.05,0.2; once for each stage, in order."""
    measure: str = "success"
    """Metric of evaluations that tells whether a stage is mastered, such as success,
    obstacles_passed or episode_reward."""
    threshold: float = 0.8
    """Least value of the measure at which a stage is left, in three evaluations in a row."""
    num_timesteps: tuple[int, ...] = (1_000_000,)
    """Largest number of environment steps of each stage; one number for all, or one for each."""
    num_evals: int = 21
    """Number of evaluations in all steps of a stage, the first before it trains."""
    output: Path | None = None
    """Folder of the stages, of curriculum.json and of TensorBoard; by default
    runs/curriculum_ENV. A curriculum that is there goes on."""

    def check(self) -> None:
        """Raise a ValueError that names the first option that is impossible."""
        if not self.stage:
            raise ValueError("no stage is named; name one or more, --stage NAME=VALUE")
        if len(self.num_timesteps) not in (1, len(self.stage)):
            raise ValueError(
                f"--num-timesteps has {len(self.num_timesteps)} numbers for {len(self.stage)} "
                f"stages; give one for all, or one for each"
            )
        if self.num_evals <= EVALUATIONS:
            raise ValueError(
                f"--num-evals is {self.num_evals}; a stage is left after {EVALUATIONS} in a row, "
                f"so it takes more than {EVALUATIONS}"
            )


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage: its name, what it sets, its settings, and the folder of its run."""

    name: str
    text: str
    settings: Settings
    run: Path

    @property
    def total(self) -> int:
        """Environment steps after which it ends."""
        return self.settings.ppo.num_iterations * self.settings.ppo.steps_per_iteration

    @property
    def begun(self) -> bool:
        """Whether its run is there."""
        return (self.run / run_folder.CONFIG).is_file()

    @property
    def last(self) -> int | None:
        """The step of its newest checkpoint; None for none."""
        return max(checkpoint.steps(self.run / run_folder.CHECKPOINTS), default=None)


def main() -> None:
    """Train all stages, and write a table, numbers and TensorBoard's series."""
    with lasting_output():
        _main(sys.argv[1:])


def _main(arguments: list[str]) -> None:
    folder = None
    try:
        if arguments[:1] == ["--resume"]:
            arguments = command_of(arguments[1:])
        options, flags = parse(arguments)
        stages = stages_of(options, flags)
        folder = stages[0].run.parent
        compilations = keep_compilations()
        print(f"folder of the curriculum: {folder}", flush=True)
        tell(options, stages[0].settings)
        train_all(options, stages, arguments, compilations)
    except (ValueError, OSError, NotFiniteError) as error:
        stop(1, f"error: {error}", folder)
    except Interrupted as interrupted:
        stop(interrupted.status, str(interrupted), folder)
    except KeyboardInterrupt:
        stop(130, "stopped", folder)
    show(table(options, stages))
    print(f"numbers in {folder / NUMBERS}; tensorboard --logdir {folder}")


def train_all(
    options: CurriculumOptions,
    stages: Sequence[Stage],
    arguments: Sequence[str],
    compilations: Compilations,
) -> None:
    """Train all stages from where they are; write numbers and series after each.

    Raises:
        ValueError, OSError: the folder holds something else, or a stage cannot be trained.
    """
    for stage in stages:
        check_run(stage)
    write(options, stages, arguments)
    for i in range(len(stages)):
        train(options, stages, i, compilations)
        write(options, stages, arguments)


def stop(status: int, message: str, folder: Path | None) -> NoReturn:
    """End the program with a message, and the command that resumes it if it has begun."""
    resumable = folder is not None and (folder / NUMBERS).is_file()
    command = shlex.join([Path(sys.executable).name, sys.argv[0], "--resume", str(folder)])
    print(message + (f"\ngo on with: {command}" if resumable else ""), file=sys.stderr)
    sys.exit(status)


def command_of(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that a curriculum to be resumed was started with.

    Raises:
        ValueError: no single folder is named, or there is no curriculum in it.
    """
    if len(arguments) != 1:
        raise ValueError("--resume takes the folder of a curriculum, and nothing more")
    path = Path(arguments[0]).expanduser()
    try:
        command = json.loads((path / NUMBERS).read_text())["command"]
        assert all(isinstance(x, str) for x in command)
    except (OSError, ValueError, LookupError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{path} is no curriculum to resume: {NUMBERS} in it is missing or damaged; give the "
            f"--output of one"
        ) from error
    # The folder may have been moved.
    own, flags = split_command(command)
    own = [x for x in own if not x.startswith("--output=")]
    if "--output" in own:
        del own[own.index("--output") : own.index("--output") + 2]
    return [*own, "--output", str(path), *(["--", *flags] if flags else [])]


def parse(arguments: Sequence[str]) -> tuple[CurriculumOptions, list[str]]:
    """Return the options, and the flags of `train.py` behind `--`."""
    own, flags = split_command(arguments)
    options = tyro.cli(CurriculumOptions, args=own, description=__doc__)
    options.check()
    return options, flags


def stages_of(options: CurriculumOptions, flags: Sequence[str]) -> list[Stage]:
    """Return all stages, checked: a setting that is unknown or impossible in the last is told
    before the first is trained.

    Raises:
        ValueError: one sentence says which and why.
    """
    refuse_flags(flags, OWN_FLAGS)
    steps = ["--num-timesteps", str(options.num_timesteps[0])]
    own = ["--env", options.env, *steps, "--num-evals", str(options.num_evals)]
    base = command_line.parse([*own, "--video-seconds", "0", *flags], None)
    goal = f"{options.measure}>={options.threshold!r}"
    folder = options.output or Path("runs") / f"curriculum_{options.env.replace(':', '_')}"
    given = options.num_timesteps
    numbers = given if len(given) > 1 else given * len(options.stage)
    stages = []
    for i, (text, number) in enumerate(zip(options.stage, numbers, strict=True), start=1):
        settings = with_stage(base, text)
        ppo = dataclasses.replace(settings.ppo, num_timesteps=number)
        settings = dataclasses.replace(settings, ppo=ppo, until=goal, quiet=base.quiet)
        if i > 1:
            settings = dataclasses.replace(settings, init_from="", encoder_from="")
        try:
            env, _ = build(settings)
            read_goal(goal, env)
        except ValueError as error:
            raise ValueError(f"--stage {text}: {error}") from error
        stages.append(Stage(f"stage_{i}", text, settings, folder.expanduser() / f"stage_{i}"))
    return stages


def with_stage(base: Settings, text: str) -> Settings:
    """Return settings with those of a stage in their place.

    Raises:
        ValueError: the stage is not written as NAME=VALUE, or a setting is unknown or of another
            type.
    """
    plain = json.loads(json.dumps(to_dict(base)))
    pairs = text.split()
    if not pairs:
        raise ValueError(f"--stage is {text!r}; write NAME=VALUE, such as arena.gap_length=0.1,0.2")
    for pair in pairs:
        name, sign, value = pair.partition("=")
        *groups, last = name.strip().removeprefix("--").replace("-", "_").split(".")
        if not sign or not last:
            raise ValueError(
                f"--stage {text}: {pair!r} is no setting; write NAME=VALUE, with a comma between "
                f"several values"
            )
        if not groups and last not in plain and last in plain["ppo"]:
            groups = ["ppo"]
        if last in NOT_OF_A_STAGE and groups in ([], ["ppo"]):
            raise ValueError(
                f"--stage {text}: {last} is the same in all stages, or has a flag of its own; "
                f"leave it out"
            )
        place = plain
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ValueError(f"--stage {text}: {group} has no settings in it")
        several = isinstance(place.get(last), list) or "," in value
        place[last] = [_value(x) for x in value.split(",")] if several else _value(value)
    return from_dict(plain, f"--stage {text}")


def _value(text: str) -> Any:
    """Return a number, true, false or null as JSON and Python write them, or else a text."""
    plain = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    try:
        return json.loads(plain)
    except ValueError:
        return text


def tell(options: CurriculumOptions, settings: Settings) -> None:
    """Say what the measure means where it asks for little."""
    task = getattr(settings, "task", None)
    if options.measure == "success" and isinstance(task, RunThroughCorridor):
        print(
            "note: in this task an episode is a success unless it is terminated, even if the "
            "animal stands still; --measure obstacles_passed --threshold NUMBER asks for more",
            file=sys.stderr,
        )


def check_run(stage: Stage) -> None:
    """Raise a ValueError if there is a run with other settings in a stage's place."""
    if not stage.begun:
        return
    found, wanted = to_dict(settings_of(str(stage.run))), to_dict(stage.settings)
    # What is lent got the step of a checkpoint when the stage began, and may have been moved since.
    check_same(stage.run, found, wanted | {name: found[name] for name in LENT})


def train(
    options: CurriculumOptions, stages: Sequence[Stage], i: int, compilations: Compilations
) -> None:
    """Train one stage to its end, from where it is.

    Raises:
        ValueError, OSError: it cannot be trained.
    """
    stage, settings = stages[i], stages[i].settings
    if i:
        before = stages[i - 1]
        settings = dataclasses.replace(settings, init_from=f"{before.run}@{before.last}")
    if not stage.begun and stage.run.is_dir():
        # Killed while it was made.
        (stage.run / f"{run_folder.CONFIG}.part").unlink(missing_ok=True)
    if reason := why_over(options, stage):
        print(f"{stage.name}: {stage.text}: done before, {reason}")
        return
    print(f"{stage.name} of {len(stages)}: {stage.text}", flush=True)
    if stage.begun:
        settings = dataclasses.replace(settings, resume=stage.run)
    else:
        settings = dataclasses.replace(settings, run_dir=stage.run)
    command_line.work(settings, command_line.prepare(settings, compilations))


def why_over(options: CurriculumOptions, stage: Stage) -> str | None:
    """Return why a stage is over: it was mastered, or its steps are spent; None if it is not."""
    goal = Goal(options.measure, options.threshold)
    if goal.reached(list(evaluations_of(stage.run, goal.metric).values())):
        return "mastered"
    return "steps spent" if stage.last == stage.total else None


def write(options: CurriculumOptions, stages: Sequence[Stage], arguments: Sequence[str]) -> None:
    """Write what has been measured so far to curriculum.json and to TensorBoard."""
    folder = stages[0].run.parent
    found = [about(options, stage) for stage in stages]
    path = folder / NUMBERS
    there = [x for x in folder.iterdir() if x.name != f".part-{NUMBERS}"] if folder.is_dir() else []
    if there and not path.exists():
        raise FileExistsError(f"{folder} exists and is not empty; give another --output")
    numbers = {
        "env": options.env,
        "measure": options.measure,
        "threshold": options.threshold,
        "command": list(arguments),
        "stages": found,
    }
    write_numbers(numbers, path)
    series = list(over_all_steps(found))
    if series:
        events = EventFile(folder, purge_step=0)
        for step, number, value in series:
            scalars = {f"curriculum/{options.measure}": value, "curriculum/stage": float(number)}
            events.scalars(step, scalars)
        events.close()


def about(options: CurriculumOptions, stage: Stage) -> dict[str, Any]:
    """Return what is known of a stage, as it goes to curriculum.json."""
    values = evaluations_of(stage.run, options.measure)
    return {
        "name": stage.name,
        "settings": stage.text,
        "run": stage.run.name,
        "steps": stage.last or 0,
        "most_steps": stage.total,
        "ended": why_over(options, stage),
        "evaluations": {str(step): value for step, value in values.items()},
    }


def over_all_steps(found: Sequence[Mapping[str, Any]]) -> Any:
    """Yield (step of the curriculum, number of the stage, measure) of each evaluation.

    Where a stage ends and the next begins both were evaluated; the next is a step later, so that
    both are seen.
    """
    before, last = 0, -1
    for number, stage in enumerate(found, start=1):
        for step, value in stage["evaluations"].items():
            last = max(before + int(step), last + 1)
            yield last, number, value
        before += stage["steps"]


def table(options: CurriculumOptions, stages: Sequence[Stage]) -> Table:
    """Return what each stage reached, a row each."""
    rows = [about(options, stage) for stage in stages]
    result = Table(title=f"{options.env}: {options.measure} >= {options.threshold:g}")
    for name in ("stage", "settings", "steps", "at first", "at last", "ended"):
        result.add_column(name, justify="left" if name in ("settings", "ended") else "right")
    for number, row in enumerate(rows, start=1):
        values = list(row["evaluations"].values())
        ends = [f"{values[i]:.2f}" if values else "" for i in (0, -1)]
        steps = f"{row['steps']:,} of {row['most_steps']:,}"
        result.add_row(str(number), row["settings"], steps, *ends, row["ended"])
    everything = [x for row in rows for x in row["evaluations"].values()]
    if everything and not any(everything):
        result.caption = (
            f"{options.measure} was 0 in all evaluations; if the task does not report it, name "
            f"another with --measure"
        )
    return result


if __name__ == "__main__":
    main()
