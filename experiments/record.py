"""Record what networks compute while their animals act, with what is true of the world.

python experiments/record.py runs/mine --episodes 50
python experiments/record.py runs/mine --modules 'encoders_vision*' --output trained.zarr
python experiments/record.py runs/mine@0 --replay trained.zarr --output untrained.zarr

A recording has the outputs of the network's modules, observations, actions, values, rewards and the
true state, as a Zarr store with the dimensions `episode` and `time`:

    import xarray
    recording = xarray.open_zarr("runs/mine/recordings/300000.zarr", consolidated=False)
    features = recording["module.encoders_vision"].where(recording.alive)

`--replay` shows the observations of another recording to a policy instead: two networks, or one
before and after training, then see the same.
"""

import dataclasses
import fnmatch
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.players import RANDOM, Options, load_policy, parse
from experiments.settings import Settings, to_dict
from vnl_ppo import run_folder
from vnl_ppo.evaluation import Actor
from vnl_ppo.loading import Policy
from vnl_ppo.observations import flatten
from vnl_ppo.policy import apply_and_capture, decide
from vnl_ppo.recurrence import initial_memory
from vnl_ppo.rollout import Decision, advance, is_broken, select, start_episodes
from vnl_ppo.run_folder import split_name
from vnl_ppo.runtime import keep_compilations

try:
    import zarr
except ModuleNotFoundError as missing:
    raise SystemExit("error: recordings need Zarr: pip install -e '.[analysis]'") from missing

TOGETHER = 16
"""Episodes that run at the same time."""
BLOCK = 25
"""Steps that are held in memory before they are written."""


@dataclasses.dataclass(frozen=True)
class RecordOptions(Options):
    """Options of `record.py`, which records one policy."""

    episodes: int = 50
    """Number of episodes."""
    episode_length: int = 0
    """Maximum number of steps of an episode; 0 for that of training."""
    modules: tuple[str, ...] = ("*",)
    """Modules whose outputs are recorded, by path, with * for any part of it; empty for none."""
    output: Path | None = None
    """Path of the Zarr store to write, which must not exist; None for recordings/STEP.zarr in the
    run folder."""
    replay: Path | None = None
    """A recording whose observations to show to the policy, instead of letting it act; episodes,
    their length and the seed are then those of that recording."""
    half: bool = False
    """Store modules' outputs as float16, in half the space."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        super().check()
        if len(self.policies) != 1 or self.policies[0] == RANDOM:
            raise ValueError(f"policies are {', '.join(self.policies)}; name one run to record")
        if self.episodes < 1:
            raise ValueError(f"--episodes is {self.episodes}; it has to be at least 1")
        if self.episode_length < 0:
            raise ValueError(f"--episode-length is {self.episode_length}; it has to be 0 or more")
        if len(self.lesions) > 1:
            raise ValueError(f"{len(self.lesions)} lesions are named; record them one by one")


def main() -> None:
    """Record, and say where."""
    try:
        options, world = parse(RecordOptions, sys.argv[1:], __doc__)
        policy = load_policy(options.policies[0], world)
        path = options.output or default_output(options.policies[0], policy.step)
        if path.exists():
            raise ValueError(f"{path} exists already; name another with --output, or remove it")
        modules = chosen(policy, options.modules)
        keep_compilations()
        about = {
            "policy": options.policies[0],
            "step": policy.step,
            "lesion": ", ".join(map(str, options.lesions)),
            "seed": options.seed,
            "settings": json.dumps(to_dict(world)),
            "commit": run_folder.git_commit() or "unknown",
        }
        if options.replay:
            write_replay(policy, options, path, modules, about)
        else:
            write(policy, options, world, path, modules, about)
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
                f"--modules has {pattern!r}, which is no module; there are {', '.join(known)}"
            )
    return [name for name in known if any(fnmatch.fnmatch(name, p) for p in patterns)]


def write(
    policy: Policy,
    options: RecordOptions,
    world: Settings,
    path: Path,
    modules: list[str],
    about: Mapping[str, Any],
) -> None:
    """Let the policy act, and write what happens, block by block."""
    length = options.episode_length or world.ppo.episode_length
    together = min(TOGETHER, options.episodes)
    actor = actor_of(policy, options, modules)

    def take_step(carry: Any, key: jax.Array) -> Any:
        episodes, over = carry
        state = episodes.state
        action, decision = actor.act(state.obs, key, episodes.memory)
        moved, faults = advance(
            policy.env, dataclasses.replace(episodes, memory=decision.memory), action
        )
        now = {
            "alive": ~over,
            "action": action,
            "value": decision.value,
            "reward": moved.state.reward,
            **{f"observation.{k}": x for k, x in flatten(state.obs).items()},
            **{f"metric.{k}": x for k, x in moved.state.metrics.items()},
            **decision.captured,
        }
        truth = getattr(policy.env, "truth", None)
        if truth is not None:
            now |= {f"truth.{k}": x for k, x in jax.vmap(truth)(state.data).items()}
        ends = (moved.state.done > 0) | is_broken(faults)
        return (select(over, episodes, moved), over | ends), now

    begin = jax.jit(lambda keys: start_episodes(policy.env, keys, actor.memory(together)))
    walk = jax.jit(lambda carry, keys: jax.lax.scan(take_step, carry, keys))
    reset_key, act_key = jax.random.split(jax.random.key(options.seed))
    # As many as fill whole groups, so that nothing compiles twice; the rest is dropped.
    groups = -(-options.episodes // together)
    keys = jax.random.split(reset_key, groups * together)
    step_keys = jax.random.split(act_key, -(-length // BLOCK) * BLOCK)
    store = Store(path, options.episodes, length, options.half, about)
    for group in range(groups):
        episodes = slice(group * together, (group + 1) * together)
        carry = (begin(keys[episodes]), jnp.zeros(together, bool))
        for start in range(0, length, BLOCK):
            carry, block = walk(carry, step_keys[start : start + BLOCK])
            store.write(episodes.start, start, jax.device_get(block))
            if bool(carry[1].all()):
                break
    store.close()


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
    source: Any = zarr.open_group(options.replay, mode="r")
    leaves = flatten(policy.env.observation_spec)
    for name, spec in leaves.items():
        found = source.get(f"observation.{name}")
        if found is None or found.shape[2:] != spec.shape:
            have = "none" if found is None else list(found.shape[2:])
            raise ValueError(
                f"{options.replay} has {have} as observation {name}; {options.policies[0]} takes "
                f"{list(spec.shape)}"
            )
    actor = actor_of(policy, options, modules)

    @jax.jit
    def walk(memory: Any, observations: Any) -> Any:
        def take_step(memory: Any, obs: Any) -> Any:
            action, decision = actor.act(obs, jax.random.key(0), memory)
            now = {"action": action, "value": decision.value, **decision.captured}
            return decision.memory, now

        return jax.lax.scan(take_step, memory, observations)

    num_episodes, length = source["alive"].shape
    together = min(TOGETHER, num_episodes)
    store = Store(
        path, num_episodes, length, options.half, {**about, "replay": str(options.replay)}
    )
    for first in range(0, num_episodes, together):
        memory = actor.memory(together)
        for start in range(0, length, BLOCK):
            part = (slice(first, first + together), slice(start, start + BLOCK))
            obs = {k: padded(source[f"observation.{k}"][part], together) for k in leaves}
            memory, block = walk(memory, obs)
            store.write(first, start, jax.device_get(block))
    for name in source:
        if name not in ("action", "value") and not name.startswith("module."):
            copied(source[name], store.group, name)
    store.close()


def padded(x: np.ndarray, together: int) -> np.ndarray:
    """Return [BLOCK, together, ...] of [N, T, ...], with zeros where there is less: nothing has to
    be compiled for a smaller last group or block."""
    missing = [(0, together - x.shape[0]), (0, BLOCK - x.shape[1])]
    return np.swapaxes(np.pad(x, missing + [(0, 0)] * (x.ndim - 2)), 0, 1)


def copied(item: Any, target: Any, name: str) -> None:
    """Copy an array into another store."""
    array = target.create_array(
        name,
        shape=item.shape,
        chunks=item.chunks,
        dtype=item.dtype,
        dimension_names=item.metadata.dimension_names,
    )
    for first in range(0, item.shape[0], item.chunks[0]):
        array[first : first + item.chunks[0]] = item[first : first + item.chunks[0]]


def actor_of(policy: Policy, options: RecordOptions, modules: list[str]) -> Actor:
    """Return the actor of a policy, lesioned if asked for, which captures outputs of modules."""

    def act(obs: Any, key: jax.Array, memory: Any) -> tuple[jax.Array, Decision]:
        output, found = apply_and_capture(policy.network, policy.weights, obs, memory)
        action, decision = decide(policy.network, *output, key, deterministic=True)
        captured = {f"module.{name}": found[name] for name in modules}
        return action, dataclasses.replace(decision, captured=captured)

    actor = Actor(act, lambda n: initial_memory(policy.network, n))
    for lesion in options.lesions:
        actor = lesion.of(actor, policy)
    return actor


class Store:
    """A recording that is being written.

    It lies beside its place until it is whole: what was interrupted is called `<name>.part`, and
    opens as a recording whose later steps are not alive.

    Args:
        path: where it goes.
        num_episodes: E.
        length: T, steps of an episode.
        half: whether modules' outputs are float16.
        about: attributes.

    Raises:
        ValueError: there is a part of an earlier recording.
    """

    def __init__(
        self, path: Path, num_episodes: int, length: int, half: bool, about: Mapping[str, Any]
    ) -> None:
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.num_episodes, self.length, self.half = num_episodes, length, half
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.part.exists():
            raise ValueError(
                f"{self.part} exists, what an interrupted recording has left; rename or remove it"
            )
        self.group: Any = zarr.open_group(self.part, mode="w", attributes=dict(about))

    def write(self, episode: int, time: int, block: Mapping[str, np.ndarray]) -> None:
        """Write arrays [T, N, ...] of N episodes from `episode` on and T steps from `time` on."""
        for name, x in block.items():
            name = name.replace("/", ".")
            x = np.swapaxes(x, 0, 1)[: self.num_episodes - episode, : self.length - time]
            if name.startswith("module.") and self.half:
                x = x.astype(np.float16)
            if name not in self.group:
                axes = [f"{name}_{i}" for i in range(x.ndim - 2)]
                self.group.create_array(
                    name,
                    shape=(self.num_episodes, self.length, *x.shape[2:]),
                    chunks=(len(x), BLOCK, *x.shape[2:]),
                    dtype=x.dtype,
                    fill_value=np.zeros((), x.dtype)[()],
                    dimension_names=["episode", "time", *axes],
                )
            self.group[name][episode : episode + len(x), time : time + x.shape[1]] = x

    def close(self) -> None:
        """Give it its name."""
        self.part.rename(self.path)


if __name__ == "__main__":
    main()
