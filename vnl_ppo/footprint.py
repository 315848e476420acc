"""What a training run will hold in memory, known before anything is compiled."""

import dataclasses
import math
from typing import Any

import jax
from flax import linen as nn

from vnl_ppo.config import PPOConfig
from vnl_ppo.env import Env
from vnl_ppo.observations import flatten
from vnl_ppo.policy import make_policy
from vnl_ppo.ppo import PPO, on_one_device
from vnl_ppo.rollout import collect


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what, and its size on one device in bytes."""

    name: str
    num_bytes: int


def memory_table(
    env: Env, network: nn.Module, config: PPOConfig, num_devices: int = 1, num_seeds: int = 1
) -> list[Row]:
    """What lives through a whole training iteration on one device. Nothing is compiled.

    Args:
        env, network, config: as for `vnl_ppo.ppo.make_ppo`.
        num_devices: that share the environments.
        num_seeds: agents trained at once.

    Returns:
        parameters, optimiser, statistics and environments; then the rollout's buffer, leaf by
        leaf. What XLA needs besides is in `peak_bytes` alone.
    """
    init, _ = on_one_device(env, network, config, num_devices)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(init, key, key)

    def rollout(state):
        act, judge = make_policy(network, state.weights)
        return collect(env, act, judge, state.episodes, state.key, config)[1]

    experience = jax.eval_shape(rollout, state)
    buffer = {
        **{f"observation {k}": x for k, x in flatten(experience.obs).items()},
        "action, log-probability, value": experience.decision,
        "advantage, episode end": (experience.advantage, experience.end),
        "memory at the unrolls' start": experience.memory,
    }
    parts = {
        "parameters": state.weights.params,
        "optimiser": state.optimizer,
        "statistics": state.weights.moments,
        "environments": state.episodes,
        **{f"rollout: {k}": x for k, x in buffer.items() if jax.tree.leaves(x)},
    }
    return [Row(name, num_seeds * size_of(tree)) for name, tree in parts.items()]


def size_of(tree: Any) -> int:
    """Bytes of all arrays in a tree, or of their shapes (`jax.eval_shape`)."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def compile_step(ppo: PPO) -> Any:
    """One training iteration as XLA made it, a `jax.stages.Compiled`."""
    step: Any = ppo.step
    return step.lower(jax.eval_shape(ppo.init, 0)).compile()


def peak_bytes(program: Any) -> int:
    """What a program of `compile_step` takes at its peak on each device, as XLA plans it."""
    memory = program.memory_analysis()
    # The state passed in is donated: what comes out in its place takes no memory of its own.
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return held - memory.alias_size_in_bytes + memory.temp_size_in_bytes


def available_bytes(device: jax.Device) -> int | None:
    """What a device lends JAX, or None where it does not say, as a CPU."""
    return (device.memory_stats() or {}).get("bytes_limit")


def check_fits(rows: list[Row], peak: int, available: int | None) -> None:
    """Raise a ValueError that holds the table if a run takes more than the device has."""
    if available is None or peak <= available:
        return
    table = "\n".join(f"  {row.name}: {row.num_bytes / 2**20:,.1f} MiB" for row in rows)
    buffer = sum(row.num_bytes for row in rows if row.name.startswith("rollout"))
    remedy = (
        "the rollout is the largest part: lower batch_size, num_minibatches or unroll_length"
        if buffer > peak / 2
        else "most of it is held for a moment only: lower env_chunk_size or batch_size"
    )
    raise ValueError(
        f"a training iteration takes {peak / 2**20:,.0f} MiB and the device has "
        f"{available / 2**20:,.0f} MiB; {remedy}\n{table}"
    )
