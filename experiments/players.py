"""Load policies: trained runs of any environment, and one that acts at random.

Policies that are compared act in one shared environment (the world): that of the first run, with
the changes that the command line asks for. Each policy keeps its own observations.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import tyro

from envs.catalogue import find
from envs.film import Filmed, filmed
from envs.presets import Preset
from experiments.command_line import refuse_renamed
from experiments.lesions import Lesion, lesions_of
from experiments.settings import BLIND, PARTS, Settings, build, build_env, defaults_for, settings_of
from vnl_ppo import run_folder
from vnl_ppo.evaluation import Actor, acting_at_random
from vnl_ppo.loading import Policy, load_into
from vnl_ppo.observations import flatten
from vnl_ppo.run_folder import split_name
from vnl_ppo.runtime import check_devices, check_jax

RANDOM = "random"
WORLD = ("arena", "walker", "task", "simulation", "physics")
"""Names of the settings that all policies share; the others are those of each run."""
ALWAYS_SHOWN = {"episode_reward": "return", "episode_length": "length, steps"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of every program that runs policies."""

    policies: tyro.conf.Positional[tuple[str, ...]]
    """Run folders; RUN@STEP for the checkpoint of a step instead of the newest; RUN/seed_3 for one
    of several seeds; or random, which draws uniform actions as a baseline."""
    env: str = ""
    """Name of the environment if only random is named; empty for gap_ant."""
    seed: int = 0
    """Random seed of the episodes, 0 or more."""
    physics: str = "auto"
    """The physics back end, as in training; by default that of the first run."""
    lesion: tuple[str, ...] = ()
    """LEAF=KIND, such as vision=blank: add to each run the same policy with this lesion. Kinds are
    blank, frozen (the first observation of the episode), shuffled, noise, and other (what another
    animal observes at that moment)."""
    silence: tuple[str, ...] = ()
    """"MODULE: UNITS", such as "encoders_vision/Conv_1: 3,7-9": the same, with these units at 0."""
    clamp: tuple[str, ...] = ()
    """"MODULE: UNITS = NUMBER": the same, with these units at a number."""
    scale: tuple[str, ...] = ()
    """"MODULE: UNITS = NUMBER": the same, with these units multiplied by a number."""

    @property
    def lesions(self) -> list[Lesion]:
        """The lesions asked for; raises a ValueError for one that is written wrongly."""
        return lesions_of(self.lesion, self.silence, self.clamp, self.scale)

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        if not self.policies:
            raise ValueError("no policy is named; name a run folder, or random")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed is {self.seed}; it has to be from 0 to {2**32 - 1}")
        _ = self.lesions


@dataclasses.dataclass(frozen=True)
class EpisodeOptions(Options):
    """Options of every program that runs policies for whole episodes."""

    episode_length: int = 0
    """Maximum number of steps of an episode; 0 for that of the first run's training."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        super().check()
        if self.episode_length < 0:
            raise ValueError(
                f"--episode-length is {self.episode_length}; it has to be at least 1, or 0 for "
                f"that of training"
            )

    def length_in(self, world: Settings) -> int:
        """Return the maximum number of steps of an episode in a world."""
        return self.episode_length or world.ppo.episode_length


AnyOptions = TypeVar("AnyOptions", bound=Options)


class Player(NamedTuple):
    """A policy in its environment.

    Attributes:
        name: the name to print.
        env: the environment.
        actor: the policy.
        episode_length: steps after which its episodes are truncated.
    """

    name: str
    env: Any
    actor: Actor
    episode_length: int

    @property
    def shown(self) -> Mapping[str, str]:
        """Metrics to print, with their titles: those that the environment names, or else all."""
        own = getattr(self.env, "shown", None)
        if own is None:
            state = jax.eval_shape(self.env.reset, jax.eval_shape(lambda: jax.random.key(0)))
            own = {name: name for name in state.metrics}
        return {**ALWAYS_SHOWN, **own}

    @property
    def filmed(self) -> Filmed:
        """The environment as a `Filmed`.

        Raises:
            ValueError: it cannot be filmed.
        """
        return filmed(self.env)


def parse(
    kind: type[AnyOptions], arguments: Sequence[str], description: str | None
) -> tuple[AnyOptions, Settings]:
    """Return the options of a program, and the settings of the world in which policies act.

    The settings of the world (see `WORLD`) are options too.

    Args:
        kind: the class of the options.
        arguments: the arguments of the command line.
        description: the program's description, for `--help`.

    Raises:
        ValueError: an option is invalid, or the first run cannot be read.
    """
    check_jax()
    check_devices()
    refuse_renamed(arguments)
    world = _first_world(arguments)
    fields: list[Any] = [
        (name, type(getattr(world, name)), dataclasses.field(default=getattr(world, name)))
        for name in WORLD
        if hasattr(world, name)
    ]
    whole = dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True)
    options: Any = tyro.cli(whole, args=arguments, description=description)
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    # A shell does not replace the ~ of --output=~/x or of '~/x'.
    paths = {name: x.expanduser() for name, x in given.items() if isinstance(x, Path)}
    options = dataclasses.replace(options, **paths)
    options.check()
    if options.env not in ("", world.env):
        raise ValueError(
            f"--env is {options.env}, but the first run was trained in {world.env}, where all "
            f"policies have to act; leave --env out, or name only {RANDOM}"
        )
    changed = {name: getattr(options, name) for name, *_ in fields}
    return options, dataclasses.replace(world, **changed)


def load_players(
    names: Sequence[str],
    world: Settings,
    deterministic: bool = True,
    lesions: Sequence[Lesion] = (),
) -> list[Player]:
    """Return the named policies, all in one world.

    Args:
        names: as `Options.policies`.
        world: settings of the world.
        deterministic: whether a run's policy takes its mode instead of a sample.
        lesions: as `Options.lesions`; behind each run come its lesioned policies.

    Raises:
        ValueError: there is no such run, it cannot be read, it has another kind of walker, it does
            not have what a lesion names, or a policy is named twice.
    """
    length = world.ppo.episode_length
    policies = [None if name == RANDOM else load_policy(name, world) for name in names]
    steps = [None if policy is None else policy.step for policy in policies]
    players = []
    for policy, shown in zip(policies, _shown(names, steps), strict=True):
        if policy is None:
            players.append(_random(world))
            continue
        actor = policy.actor(deterministic)
        players.append(Player(shown, policy.env, actor, length))
        players += [
            Player(f"{shown} {lesion}", policy.env, lesion.of(actor, policy), length)
            for lesion in lesions
        ]
    return players


def load_policy(name: str, world: Settings) -> Policy:
    """Return the policy of a run, in a world; see `load_players` for names and errors."""
    own = settings_of(name)
    folder, step = split_name(name)
    env, network = build(_in_world(own, world, name))
    _check_told(own, env, name)
    return load_into(env, network, own.ppo, folder, int(step) if step else None)


def _first_world(arguments: Sequence[str]) -> Settings:
    """Return the settings of the first run among the arguments, else defaults of `--env`."""
    for argument in arguments:
        folder = run_folder.split_agent(split_name(argument)[0])[0]
        if (folder / run_folder.CONFIG).is_file():
            return settings_of(argument)
    named = [arguments[i + 1] for i, x in enumerate(arguments[:-1]) if x == "--env"]
    named += [x.removeprefix("--env=") for x in arguments if x.startswith("--env=")]
    return defaults_for(named[0] if named else "gap_ant", seeing=False)


def _random(world: Settings) -> Player:
    encoder = BLIND if isinstance(find(world.env), Preset) else world.encoder
    env = build_env(dataclasses.replace(world, encoder=encoder))
    return Player(RANDOM, env, acting_at_random(env.action_size), world.ppo.episode_length)


def _shown(names: Sequence[str], steps: Sequence[int | None]) -> list[str]:
    """Return what policies are called in tables: RUN@STEP, with as many of the folders above as it
    takes to tell runs of the same name apart. The steps are those of the runs, None for random."""
    runs = [Path(os.path.abspath(split_name(name)[0])) for name in names]
    pairs = list(zip(runs, steps, strict=True))
    found = []
    for number, (run, step) in enumerate(pairs):
        if (run, step) in pairs[:number]:
            raise ValueError(f"{names[number]} is named twice; name each policy once")
        others = [other.parts for other, of in pairs if of == step and other != run]
        depth = 1 if run_folder.split_agent(run)[1] is None else 2
        while any(other[-depth:] == run.parts[-depth:] for other in others):
            depth += 1
        found.append(RANDOM if step is None else f"{'/'.join(run.parts[-depth:])}@{step}")
    return found


def _check_told(own: Settings, env: Any, name: str) -> None:
    """Raise a ValueError if a run was trained with another `ahead` than that of `env`."""
    if not getattr(own, "ahead", False):
        return
    blind = dataclasses.replace(own, encoder=BLIND)
    told = [flatten(x.observation_spec)["ahead"] for x in (build_env(blind), env)]
    theirs, ours = (x.size for x in told)
    if theirs != ours:
        raise ValueError(
            f"{name} was trained in {own.env}, whose leaf ahead has {theirs} numbers; in this "
            f"environment it has {ours}; run the policies one by one"
        )


def _in_world(own: Settings, world: Settings, name: str) -> Settings:
    """Return a run's settings with those of the world instead of its own."""
    parts = [part for part in WORLD if hasattr(world, part)]
    alike = all(hasattr(own, part) for part in parts) and all(
        hasattr(world, part) == hasattr(own, part) for part in PARTS
    )
    if not alike or ("walker" not in parts and own.env != world.env):
        raise ValueError(
            f"{name} was trained in {own.env}, which has nothing in common with {world.env}; "
            f"run the policies one by one"
        )
    if "walker" in parts:
        theirs, ours = (type(x.walker).__name__ for x in (own, world))  # type: ignore[attr-defined]
        if theirs != ours:
            raise ValueError(
                f"{name} was trained with the walker {theirs} and the first run with {ours}; "
                f"compare policies of the same walker"
            )
        kept = ("ppo", "network", "encoder", "features", "frames", "vision", "ahead")
        return dataclasses.replace(world, **{part: getattr(own, part) for part in kept})
    return dataclasses.replace(own, **{part: getattr(world, part) for part in parts})
