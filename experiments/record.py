"""Record what networks compute while their animals act, with what is true of the world.

    python experiments/record.py runs/mine --episodes 50
    python experiments/record.py runs/mine --modules 'encoders_vision*' --output trained.zarr
    python experiments/record.py runs/mine@0 --replay trained.zarr --output untrained.zarr
    python experiments/record.py random --env walls_ant --output random.zarr

A recording has the outputs of the network's modules, observations, actions, values, rewards, the
true state and its velocity (the mean over the step that begins then), and the layout of each
episode, as a Zarr store with the dimensions `episode` and `time` (seconds):

    import xarray
    recording = xarray.open_zarr("runs/mine/recordings/300000.zarr", consolidated=False)
    features = recording["module.encoders_vision"].where(recording.alive)

`--replay` shows the observations of another recording to a policy instead: two networks, or one
before and after training, then see the same.
"""

import dataclasses
import fnmatch
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from envs.catalogue import find
from envs.presets import Preset
from experiments.contacts import Contacts
from experiments.lesions import Lesion
from experiments.names import known_names
from experiments.players import RANDOM, EpisodeOptions, load_policy, parse
from experiments.recording_store import BLOCK, Store, copied, open_arrays
from experiments.settings import Settings, build_env, to_dict
from vnl_ppo import run_folder
from vnl_ppo.env import Env, State
from vnl_ppo.evaluation import Actor, acting_at_random
from vnl_ppo.loading import Policy
from vnl_ppo.observations import flatten
from vnl_ppo.policy import Weights, apply_and_capture, decide
from vnl_ppo.recurrence import initial_memory
from vnl_ppo.rollout import Decision, advance, is_broken, select, start_episodes
from vnl_ppo.run_folder import split_name
from vnl_ppo.runtime import keep_compilations

TOGETHER = 16
"""Episodes that run at the same time."""


@dataclasses.dataclass(frozen=True)
class RecordOptions(EpisodeOptions):
    """Options of `record.py`, which records one policy."""

    episodes: int = 50
    """Number of episodes."""
    modules: tuple[str, ...] = ("*",)
    """Modules whose outputs are recorded, by path, with * for any part of it; empty for none."""
    output: Path | None = None
    """Path of the Zarr store to write, which must not exist; None for recordings/STEP.zarr in the
    run folder. random needs it."""
    replay: Path | None = None
    """A recording whose observations to show to the policy, instead of letting it act; episodes,
    their length and the seed are then those of that recording."""
    half: bool = False
    """Store modules' outputs as float16, in half the space."""
    contacts: bool = False
    """Store which bodies of the animal touch something else, as found from the joints' positions by
    MuJoCo in C; it takes about half a second for each episode, and some time for each step."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        super().check()
        if len(self.policies) != 1:
            raise ValueError(f"policies are {', '.join(self.policies)}; name one run, or random")
        if self.policies[0] == RANDOM:
            if self.output is None:
                raise ValueError(f"{RANDOM} has no run folder; say where to write with --output")
            if self.replay or self.lesions or self.modules != ("*",):
                raise ValueError(
                    f"{RANDOM} has no network; leave out --replay, --modules and lesions"
                )
        if self.episodes < 1:
            raise ValueError(f"--episodes is {self.episodes}; it has to be at least 1")
        if len(self.lesions) > 1:
            raise ValueError(f"{len(self.lesions)} lesions are named; record them one by one")


def main() -> None:
    """Record, and say where."""
    try:
        options, world = parse(RecordOptions, sys.argv[1:], __doc__)
        name = options.policies[0]
        policy = None if name == RANDOM else load_policy(name, world)
        path = options.output or default_output(name, policy.step if policy else 0)
        if path.exists():
            raise ValueError(f"{path} exists already; name another with --output, or remove it")
        modules = chosen(policy, options.modules) if policy else []
        keep_compilations()
        about = {
            "policy": name,
            "step": policy.step if policy else 0,
            "lesion": ", ".join(map(str, options.lesions)),
            "seed": options.seed,
            "settings": json.dumps(to_dict(world)),
            "commit": run_folder.git_commit() or "unknown",
        }
        if options.replay and policy:
            write_replay(policy, options, path, modules, about)
        else:
            length = options.length_in(world)
            together = min(TOGETHER, options.episodes)
            weights: Any = ()
            if policy:
                acting = functools.partial(actor_of, policy, options.lesions, modules)
                recorder, weights = Recorder(policy.env, acting, together), policy.weights
            else:
                recorder = recorder_of_random(world, together)
            recorder.write(
                weights,
                path,
                options.episodes,
                length,
                options.seed,
                about,
                options.half,
                options.contacts,
            )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"recording: {path}")


def default_output(name: str, step: int) -> Path:
    """Return where a recording of a run goes."""
    folder, _ = run_folder.split_agent(split_name(name)[0])
    return folder / "recordings" / f"{step}.zarr"


def chosen(policy: Policy, patterns: tuple[str, ...]) -> list[str]:
    """Return the paths of the modules that match.

    Raises:
        ValueError: none matches a pattern; the message lists them.
    """
    known = list(policy.modules)
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise ValueError(
                f"--modules has {pattern!r}, which is no module; {known_names(pattern, known)}"
            )
    return [name for name in known if any(fnmatch.fnmatch(name, p) for p in patterns)]


class Recorder:
    """Lets policies of one network act and writes what happens; compiles once for all weights.

    Args:
        env: the environment.
        acting: weights -> actor, such as `actor_of`.
        together: number of episodes that run at the same time.
    """

    def __init__(self, env: Env, acting: Callable[[Any], Actor], together: int = TOGETHER) -> None:
        self.env: Any = env
        self.together = together

        def take_step(weights: Any, carry: Any, key: jax.Array) -> Any:
            episodes, over, truth = carry
            state = episodes.state
            actor = acting(weights)
            action, decision = actor.act(state.obs, key, episodes.memory)
            moved, faults = advance(
                self.env, dataclasses.replace(episodes, memory=decision.memory), action
            )
            after = self._truth(moved.state)
            now = {
                "action": action,
                "value": decision.value,
                "reward": moved.state.reward,
                **{f"observation.{k}": x for k, x in flatten(state.obs).items()},
                **{f"metric.{k}": x for k, x in moved.state.metrics.items()},
                **truth,
                **self._velocity(truth, after),
                **dict(decision.captured),
                # Last, so that a step that is alive is whole.
                "alive": ~over,
            }
            ends = (moved.state.done > 0) | is_broken(faults)
            kept = select(over, (episodes, truth), (moved, after))
            return (kept[0], over | ends, kept[1]), now

        def start(weights: Any, keys: jax.Array) -> Any:
            memory = acting(weights).memory(together)
            episodes = start_episodes(self.env, keys, memory)
            return episodes, jnp.zeros(together, bool), self._truth(episodes.state)

        self._start = jax.jit(start)
        self._walk = jax.jit(
            lambda weights, carry, keys: jax.lax.scan(
                functools.partial(take_step, weights), carry, keys
            )
        )

    def write(
        self,
        weights: Any,
        path: Path,
        episodes: int,
        length: int,
        seed: int,
        about: Mapping[str, Any],
        half: bool = False,
        contacts: bool = False,
    ) -> None:
        """Write a recording of E episodes of at most T steps, block by block; see `Store`.

        Raises:
            ValueError: contacts are asked for, and the environment does not tell its joints; or
                there is a part of an earlier recording.
        """
        if contacts and not all(hasattr(self.env, x) for x in ("truth", "whole", "tracked")):
            raise ValueError("--contacts is only for presets, which tell the joints' positions")
        reset_key, act_key = jax.random.split(jax.random.key(seed))
        # As many as fill whole groups, so that nothing compiles twice; the rest is dropped.
        groups = -(-episodes // self.together)
        keys = jax.random.split(reset_key, groups * self.together)
        act_keys = jax.random.split(act_key, groups)
        store = Store(path, episodes, length, half, about, attributes_of(self.env))
        if (dt := getattr(self.env, "dt", None)) is not None:
            store.write_times(dt)
        # JAX computes a block while the one before it is written.
        computed: tuple[int, int, Any] | None = None
        for first in range(0, groups * self.together, self.together):
            carry = self._start(weights, keys[first : first + self.together])
            step_keys = keys_of_steps(act_keys[first // self.together], length)
            layout = getattr(carry[0].state.data, "layout", ())
            store.write_layouts(first, jax.device_get(flatten(layout)))
            touching = None
            if contacts:
                bodies, touching = self._touching(carry[0].state.data)
                store.attributes |= {"truth.contacts": {"entries": bodies}}
            for start in range(0, length, BLOCK):
                carry, block = self._walk(weights, carry, step_keys[start : start + BLOCK])
                if computed is not None:
                    store.write(*computed)
                if touching is not None:
                    block = {**touching(block["truth.qpos"]), **block}
                computed = (first, start, block)
                if bool(carry[1].all()):
                    break
        assert computed is not None
        store.write(*computed)
        store.close()

    def _touching(self, data: Any) -> tuple[list[str], Callable[[Any], dict[str, np.ndarray]]]:
        """Return names of bodies, and what finds which of them touch something from positions
        [T, N, nq] of N episodes that begin with `data`."""
        each = [jax.tree.map(lambda x: x[i], data) for i in range(self.together)]  # noqa: B023
        found = [Contacts(m, self.env.tracked(m)) for m in map(self.env.whole, each)]

        def touching(qpos: Any) -> dict[str, np.ndarray]:
            of_episodes = np.swapaxes(np.asarray(qpos), 0, 1)
            both = zip(found, of_episodes, strict=True)
            return {"truth.contacts": np.stack([c(x) for c, x in both], axis=1)}

        return found[0].names, touching

    def _truth(self, state: State) -> dict[str, jax.Array]:
        """Return what the environment tells of states."""
        truth = getattr(self.env, "truth", None)
        found = {} if truth is None else jax.vmap(truth)(state.data)
        return {f"truth.{k}": x for k, x in found.items()}

    def _velocity(
        self, now: Mapping[str, jax.Array], after: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """Return the mean velocity between two states, if their positions are known."""
        if "truth.position" not in now or not hasattr(self.env, "dt"):
            return {}
        moved = after["truth.position"] - now["truth.position"]
        return {"truth.velocity": moved / self.env.dt}


def keys_of_steps(key: jax.Array, length: int) -> jax.Array:
    """Return a key for each step of a group of episodes, in whole blocks."""
    return jax.random.split(key, -(-length // BLOCK) * BLOCK)


def recorder_of_random(world: Settings, together: int) -> Recorder:
    """Return the recorder of uniform actions, in an environment that a preset's animal sees."""
    seeing = isinstance(find(world.env), Preset)
    env = build_env(dataclasses.replace(world, encoder=Settings.encoder) if seeing else world)
    actor = acting_at_random(env.action_size)
    return Recorder(env, lambda _: actor, together)


def attributes_of(env: Any) -> dict[str, Mapping[str, Any]]:
    """Return attributes of arrays, by name, as far as the environment tells them."""
    told = getattr(env, "truth_attributes", {})
    velocity = {"velocity": {"units": "m/s", "entries": ["x", "y", "z"]}}
    return {f"truth.{k}": x for k, x in {**velocity, **told}.items()}


def write_replay(
    policy: Policy,
    options: RecordOptions,
    path: Path,
    modules: list[str],
    about: Mapping[str, Any],
) -> None:
    """Show a policy the observations of a recording, and write what its modules compute."""
    assert options.replay is not None
    if not options.replay.is_dir():
        raise ValueError(f"there is no recording {options.replay}")
    source: Any = open_arrays(options.replay)
    leaves = flatten(policy.env.observation_spec)
    for name, spec in leaves.items():
        found = source.get(f"observation.{name}")
        if found is None or found.shape[2:] != spec.shape:
            have = "none" if found is None else list(found.shape[2:])
            raise ValueError(
                f"{options.replay} has {have} as observation {name}; {options.policies[0]} takes "
                f"{list(spec.shape)}"
            )
    actor = actor_of(policy, options.lesions, modules, policy.weights)

    @jax.jit
    def walk(actor: Actor, memory: Any, observations: Any, keys: jax.Array) -> Any:
        def take_step(memory: Any, shown: Any) -> Any:
            obs, key = shown
            action, decision = actor.act(obs, key, memory)
            now = {"action": action, "value": decision.value, **decision.captured}
            return decision.memory, now

        return jax.lax.scan(take_step, memory, (observations, keys))

    num_episodes, length = source["alive"].shape
    together = min(TOGETHER, num_episodes)
    store = Store(
        path, num_episodes, length, options.half, {**about, "replay": str(options.replay)}
    )
    for first in range(0, num_episodes, together):
        memory = actor.memory(together)
        keys = keys_of_steps(jax.random.fold_in(jax.random.key(options.seed), first), length)
        for start in range(0, length, BLOCK):
            obs = {k: block_of(source[f"observation.{k}"], first, together, start) for k in leaves}
            memory, block = walk(actor, memory, obs, keys[start : start + BLOCK])
            store.write(first, start, block)
    for name in source:
        if name not in ("action", "value") and not name.startswith("module."):
            copied(source[name], store.group, name)
    store.close()


def block_of(array: Any, first: int, together: int, start: int) -> np.ndarray:
    """Return a block of steps of some episodes, [BLOCK, together, ...], of an array [E, T, ...].

    Nothing has to be compiled for a smaller last group or block: after the last episode come the
    first, which lesions may show to the others, and after the last step zeros.
    """
    steps = slice(start, start + BLOCK)
    x = array[first : first + together, steps]
    if missing := together - len(x):
        x = np.concatenate([x, array[:missing, steps]])
    return np.swapaxes(np.pad(x, [(0, 0), (0, BLOCK - x.shape[1])] + [(0, 0)] * (x.ndim - 2)), 0, 1)


def actor_of(
    policy: Policy, lesions: Sequence[Lesion], modules: Sequence[str], weights: Weights
) -> Actor:
    """Return the actor of a network with given weights, which captures outputs of modules.

    Args:
        policy: a policy of the network.
        lesions: of the actor.
        modules: paths.
        weights: of the actor.
    """

    def act(weights: Weights, obs: Any, key: jax.Array, memory: Any) -> tuple[jax.Array, Decision]:
        output, found = apply_and_capture(policy.network, weights, obs, memory)
        action, decision = decide(policy.network, *output, key, deterministic=True)
        captured = {f"module.{name}": found[name] for name in modules}
        return action, dataclasses.replace(decision, captured=captured)

    actor = Actor(Partial(act, weights), Partial(lambda n: initial_memory(policy.network, n)))
    for lesion in lesions:
        actor = lesion.of(actor, policy)
    return actor


if __name__ == "__main__":
    main()
