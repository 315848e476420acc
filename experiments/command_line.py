"""Train from the command line: parse, check, train, film, and print errors as one sentence."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
import tyro
from rich.table import Column, Table

from experiments.borrowed import read_borrowed, read_teacher
from experiments.encoder_table import table_of_encoders
from experiments.hooks import check_hooks, hook_of
from experiments.output import lasting_output
from experiments.results import show
from experiments.run_film import film_episodes
from experiments.settings import (
    BLIND,
    BUILDER,
    Settings,
    build,
    defaults_for,
    differing,
    from_dict,
    settings_of,
    to_dict,
    traced_from,
    with_physics_named,
)
from vnl_ppo import checkpoint, run_folder
from vnl_ppo.checkpoint import Leaves
from vnl_ppo.config import check
from vnl_ppo.distributed import (
    DistributedConfig,
    PeerLostError,
    check_same,
    is_first,
    join,
    leave,
    wait_for_all,
    watching,
)
from vnl_ppo.env import Env
from vnl_ppo.footprint import available_bytes, check_fits, compile_step, memory_table, peak_bytes
from vnl_ppo.health import NotFiniteError
from vnl_ppo.interruption import Interrupted
from vnl_ppo.networks import ActorCritic
from vnl_ppo.program_cache import ProgramCache
from vnl_ppo.reporting import Log
from vnl_ppo.runtime import Compilations, check_devices, check_jax, keep_compilations
from vnl_ppo.teaching import Teacher
from vnl_ppo.train import check_training, train
from vnl_ppo.wandb_log import WandbLog, check_installed

RENAMED = {
    "--corridor.reach": "--walker.reach",
    "--corridor.": "--arena.",
    "--reward.": "--task.",
    "--healthy-height": "--task.healthy-height",
    "--reset-noise": "--walker.reset-noise",
    "--gap-length": "--arena.gap-length",
    "--platform-length": "--arena.platform-length",
}
"""Beginnings of flags of release 0.1, and their present names."""


def main(description: str | None, env: str = "") -> None:
    """Train as the command line says.

    Args:
        description: the program's description, for `--help`.
        env: name of the environment if the command line names none.
    """
    with lasting_output():
        _main(description, env)


def _main(description: str | None, env: str) -> None:
    folder = None
    try:
        if "--list-encoders" in sys.argv[1:]:
            show(table_of_encoders())
            return
        settings = parse(sys.argv[1:], description, env)
        if settings.dump_config:
            print(run_folder.describe(to_dict(settings), BUILDER), end="")
            return
        if settings.dry_run:
            environment, network = build(settings)
            read_borrowed(settings, environment, network)
            _, teacher = read_teacher(settings, environment, network)
            show_memory(environment, network, settings, teacher)
            return
        compilations = keep_compilations()
        with watching():
            prepared = prepare(settings, compilations)
        folder = prepared.folder
        if is_first():
            print(f"run folder: {folder}", flush=True)
        work(settings, prepared)
        if is_first():
            print(compilations)
    except (ValueError, OSError, NotFiniteError, PeerLostError) as error:
        stop(1, f"error: {error}", folder)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        stop(
            1,
            f"error: this takes more memory than there is ({str(error).splitlines()[0]}); use a "
            f"smaller --num-envs or --env-chunk-size, or smaller images",
        )
    except Interrupted as interrupted:
        stop(interrupted.status, str(interrupted), folder)
    except KeyboardInterrupt:
        stop(130, "stopped", folder)


def stop(status: int, message: str, folder: Path | None = None) -> NoReturn:
    """End the program with a message, and the command that resumes the run if there is one."""
    more = f"\n{how_to_go_on(folder)}" if folder and is_first() else ""
    print(message + more, file=sys.stderr)
    leave(status)
    sys.exit(status)


def parse(arguments: Sequence[str], description: str | None, env: str = "") -> Settings:
    """Return the settings of a command line; connect to other processes if it asks for them.

    A few flags are read first, since they determine the other settings and their defaults: the
    environment, the encoder, and a run to resume or whose settings to take.

    Args:
        arguments: of the command line.
        description: the program's description, for `--help`.
        env: name of the environment if the command line names none.

    Raises:
        ValueError: a flag was renamed, the settings to start from cannot be read, or the other
            processes cannot be connected.
    """
    check_jax()
    refuse_renamed(arguments)
    first = _first_flags(arguments)
    if first.distributed != DistributedConfig() or first.join:
        # Before anything uses a device, as default settings do.
        join(first.distributed)
    check_devices()
    if first.resume and first.config:
        raise ValueError("--resume and --config are both given; leave out --config to resume a run")
    if source := first.resume or first.config:
        source = source.expanduser()
        begin = from_dict(run_folder.read_settings(source), str(source))
        if first.env not in ("", begin.env):
            raise ValueError(
                f"--env is {first.env}, but {source} is of {begin.env}; leave --env out, or start "
                f"a run of {first.env} without --resume and --config"
            )
    elif name := first.env or env:
        begin = defaults_for(name, seeing=first.encoder != [BLIND])
    elif {"-h", "--help"} & set(arguments):
        begin = Settings()
    else:
        raise ValueError("name an environment: --env gap_ant, --env brax:ant, ... (see --help)")
    settings = tyro.cli(type(begin), args=arguments, default=begin, description=description)
    if first.resume:
        _check_resumed(settings, begin)
    paths = {name: getattr(settings, name) for name in ("run_dir", "resume", "config")}
    # A shell does not replace the ~ of --run-dir=~/x or of '~/x'.
    given = {name: path.expanduser() for name, path in paths.items() if path}
    return with_physics_named(dataclasses.replace(settings, **given))


def _check_resumed(settings: Settings, own: Settings) -> None:
    """Raise a ValueError if the command line changes a setting that a resumed run takes from its
    checkpoint; `own` are the run's own settings."""
    kept = {
        "init_from": (settings.init_from, own.init_from, "parameters"),
        "encoder_from": (settings.encoder_from, own.encoder_from, "parameters"),
        "seed": (settings.ppo.seed, own.ppo.seed, "random numbers"),
    }
    if settings.ppo.learning_rate_schedule == "adaptive_kl":
        rates = settings.ppo.learning_rate, own.ppo.learning_rate
        kept["learning_rate"] = (*rates, "adapted learning rate")
    for name, (given, before, what) in kept.items():
        if given != before:
            raise ValueError(
                f"--{name.replace('_', '-')} is {given!r}, but a resumed run goes on with its own "
                f"{what}; leave it out, or begin a run without --resume"
            )


def refuse_renamed(arguments: Sequence[str]) -> None:
    """Raise a ValueError if an argument is a flag of release 0.1 that has another name now."""
    for argument in arguments:
        for old, new in RENAMED.items():
            if argument.replace("_", "-").startswith(old):
                flag = argument.replace("_", "-").split("=")[0]
                raise ValueError(f"{flag} is now called {new + flag.removeprefix(old)}")


def _first_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags on which the others depend."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--env", default="")
    flags.add_argument("--encoder", nargs="*", default=[Settings.encoder])
    flags.add_argument("--resume", type=Path)
    flags.add_argument("--config", type=Path)
    flags.add_argument("--distributed", action="store_true", dest="join")
    for field in dataclasses.fields(DistributedConfig):
        name, kind = field.name, str if field.name == "coordinator" else int
        spellings = {f"--distributed.{name}", f"--distributed.{name.replace('_', '-')}"}
        flags.add_argument(*spellings, dest=name, type=kind, default=field.default)
    known = flags.parse_known_args(arguments)[0]
    names = [field.name for field in dataclasses.fields(DistributedConfig)]
    known.distributed = DistributedConfig(**{name: getattr(known, name) for name in names})
    return known


class Prepared(NamedTuple):
    """Hold what a run needs besides its settings.

    Attributes:
        env: the environment.
        network: the network.
        folder: the run's folder.
        programs: the cache of compiled programs; None for none.
        initial: arrays that a new run begins with (see `vnl_ppo.borrowing`).
        teacher: a policy to learn from; None for none.
    """

    env: Any
    network: ActorCritic
    folder: Path
    programs: ProgramCache | None
    initial: Leaves
    teacher: Teacher | None


def prepare(settings: Settings, compilations: Compilations | None = None) -> Prepared:
    """Build and check everything before anything is compiled; make the run's folder.

    A program that is in the cache was checked when it was compiled, and is not traced again.

    Raises:
        ValueError, OSError: a setting is invalid; one sentence says which and why.
    """
    check_installed(settings.wandb)
    check(settings.ppo, jax.device_count())
    env, network = build(settings)
    check_hooks(settings, env)
    name = f"{title(settings, env)}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = settings.resume or settings.run_dir or Path("runs") / name
    if settings.run_dir and settings.resume is None and is_first():
        run_folder.check_free(folder)
    settings, initial = read_borrowed(settings, env, network)
    settings, teacher = read_teacher(settings, env, network)
    programs = kept_programs(settings, env, compilations, teacher)
    if settings.resume or programs is None or not programs.has("init", "step"):
        check_training(env, network, settings.ppo, settings.resume, teacher)
    check_same("the settings", json.dumps(to_dict(settings)))
    devices = jax.devices()
    if available := available_bytes(jax.local_devices()[0]):
        rows = memory_table(env, network, settings.ppo, len(devices), teacher)
        check_fits(rows, sum(row.num_bytes for row in rows), available)
    if is_first():
        of_seeds = f" for each of {n} seeds" if (n := settings.ppo.num_seeds) > 1 else ""
        of_processes = f" of {n} processes" if (n := jax.process_count()) > 1 else ""
        print(
            f"{len(devices)} {devices[0].platform} device(s){of_processes}, "
            f"{devices[0].device_kind}; physics by {getattr(env, 'back_end', settings.physics)}; "
            f"{settings.ppo.num_envs} environments, {settings.ppo.num_timesteps:,} steps{of_seeds} "
            f"(defaults for this hardware unless you set others)"
        )
        if settings.resume:
            own = to_dict(settings_of(str(settings.resume)))
            if changed := differing(own, to_dict(settings)):
                print(
                    f"note: only this start has the given {', '.join(changed)}; config.json keeps "
                    f"its own, so give them again to --resume, evaluate.py and the others",
                    file=sys.stderr,
                )
        else:
            folder = folder if settings.run_dir else run_folder.make_unused(folder)
            run_folder.create(folder, to_dict(settings), BUILDER)
    return Prepared(env, network, folder, programs, initial, teacher)


def title(settings: Settings, env: Env) -> str:
    """Return the name of a run's folder, without the time that follows it."""
    name = settings.env.replace(":", "_")
    if not hasattr(settings, "vision"):
        return name
    return f"{name}_{'vision' if settings.seeing else 'blind'}"


_NOT_TRACED = (
    "checkpoints", "video_seconds", "wandb", "init_from", "encoder_from", "record_every",
    "record_variables", "until",
)  # fmt: skip


def kept_programs(
    settings: Settings,
    env: Env,
    compilations: Compilations | None,
    teacher: Teacher | None = None,
) -> ProgramCache | None:
    """Return the cache of compiled programs for a run; None if the programs cannot be kept.

    They cannot be kept if not everything they depend on is known, or if there are several
    processes, each of which compiles a part.
    """
    parts = traced_from(settings, env)
    if compilations is None or compilations.folder is None or parts is None:
        return None
    if jax.process_count() > 1:
        return None
    # Seeds are arguments of the programs.
    ppo = dataclasses.replace(settings.ppo, seed=0, num_evals=1)
    plain = to_dict(dataclasses.replace(settings, ppo=ppo))
    plain = {name: value for name, value in plain.items() if name not in _NOT_TRACED}
    # A teacher's weights are constants of the programs.
    taught = [np.asarray(x).tobytes() for x in jax.tree.leaves(teacher.weights)] if teacher else []
    return ProgramCache(compilations, json.dumps(plain, sort_keys=True).encode(), *parts, *taught)


def work(settings: Settings, prepared: Prepared) -> None:
    """Train, film episodes, and print the paths of the results."""
    env, network, folder, programs, initial, teacher = prepared
    weights = train(
        env,
        network,
        settings.ppo,
        folder,
        resume=settings.resume is not None,
        checkpoint_config=settings.checkpoints,
        quiet=settings.quiet,
        logs=other_logs(settings, folder) if is_first() else (),
        programs=programs,
        initial=initial,
        teacher=teacher,
        on_iteration=hook_of(settings, env, network, folder),
    )
    if is_first():
        made = [f"checkpoints in {folder / run_folder.CHECKPOINTS}"]
        try:
            # A run that --until ended has not taken all of its steps.
            step = checkpoint.steps(folder / run_folder.CHECKPOINTS)[-1]
            if path := film_episodes(settings, env, network, weights, folder, step):
                made.append(f"video in {path}")
        except Exception as error:
            # What was learned is saved; a video can be made again.
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            print(f"warning: no video: {reason}", file=sys.stderr)
        print(f"done: {', '.join(made)}; tensorboard --logdir {folder}")
    wait_for_all()


def show_memory(
    env: Env, network: ActorCritic, settings: Settings, teacher: Teacher | None = None
) -> None:
    """Print the memory that a run with these settings needs on each device.

    Raises:
        ValueError: a setting is invalid, or the device does not have that much memory.
    """
    config = settings.ppo
    ppo = check_training(env, network, config, teacher=teacher)
    rows = memory_table(env, network, config, jax.device_count(), teacher)
    keep_compilations()
    peak, available = peak_bytes(compile_step(ppo)), available_bytes(jax.local_devices()[0])
    table = Table("on each device", Column("MiB", justify="right"))
    for row in rows:
        table.add_row(row.name, f"{row.num_bytes / 2**20:,.1f}")
    table.add_section()
    table.add_row("peak of a training iteration (XLA)", f"{peak / 2**20:,.1f}")
    table.add_row("the device has", f"{available / 2**20:,.1f}" if available else "not told")
    show(table)
    check_fits(rows, peak, available)


def how_to_go_on(folder: Path | None) -> str:
    """Return the command that resumes this run with its present settings."""
    given = sys.argv[1:]
    # Settings given to a run that was resumed are not in its config.json.
    resumed = any(x.partition("=")[0] == "--resume" for x in given)
    more = given if resumed else ["--resume", str(folder)]
    return "go on with: " + shlex.join([Path(sys.executable).name, sys.argv[0], *more])


def other_logs(settings: Settings, folder: Path) -> list[Log]:
    """Return the destinations of metrics besides TensorBoard."""
    return [WandbLog(settings.wandb, folder)] if settings.wandb else []
