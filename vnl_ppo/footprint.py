"""Estimate the memory that a training run needs on a device, and compare it with what there is."""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vnl_ppo.config import PPOConfig
from vnl_ppo.env import Env
from vnl_ppo.observations import flatten
from vnl_ppo.policy import make_policy, predicted_later
from vnl_ppo.ppo import DEVICES, PPO, on_one_device
from vnl_ppo.rollout import collect
from vnl_ppo.teaching import Teacher

_LIMIT_1 = "memory.limit_in_bytes"


@dataclasses.dataclass(frozen=True)
class Row:
    """The name of one part of a run's memory, and its size on one device in bytes."""

    name: str
    num_bytes: int


def memory_table(
    env: Env,
    network: nn.Module,
    config: PPOConfig,
    num_devices: int = 1,
    teacher: Teacher | None = None,
) -> list[Row]:
    """List the arrays that one device holds during a training iteration; nothing is compiled.

    Args:
        env, network, config, teacher: as for `vnl_ppo.ppo.make_ppo`.
        num_devices: number of devices that share the environments.

    Returns:
        parameters, optimiser, statistics and environments; the rollout buffer by leaf; the
        teacher, if there is one. XLA's temporary memory is left out; `peak_bytes` includes it.
    """
    init, _ = on_one_device(env, network, config, num_devices)

    def state_and_rollout(seed):
        state = init(seed)
        act, value_fn = make_policy(network, state.weights)
        keys = jax.random.split(state.key, len(state.episodes.length))
        later = predicted_later(network)
        return state, collect(env, act, value_fn, state.episodes, keys, config, later)[1]

    # One of the devices: the sizes are the same on all.
    one = jax.vmap(state_and_rollout, axis_name=DEVICES)
    state, experience = jax.eval_shape(one, jnp.zeros(1, jnp.uint32))
    buffer = {
        **{f"observation {k}": x for k, x in flatten(experience.obs).items()},
        **{f"{k}, later": x for k, x in experience.later.items()},
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
    rows = [Row(name, config.num_seeds * size_of(tree)) for name, tree in parts.items()]
    # All seeds share one teacher.
    return [*rows, Row("teacher", size_of(teacher.weights))] if teacher else rows


def size_of(tree: Any) -> int:
    """Return the bytes of all arrays in a tree, or of their shapes (`jax.eval_shape`)."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def compile_step(ppo: PPO) -> Any:
    """Compile one training iteration to a `jax.stages.Compiled`."""
    step: Any = ppo.step
    return step.lower(jax.eval_shape(ppo.init, 0)).compile()


def peak_bytes(program: Any) -> int:
    """Return the peak memory, in bytes per device, that XLA plans for a compiled program."""
    memory = program.memory_analysis()
    # The state passed in is donated: what comes out in its place takes no memory of its own.
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return held - memory.alias_size_in_bytes + memory.temp_size_in_bytes


def available_bytes(device: jax.Device) -> int | None:
    """Return the bytes of memory that a device has for a run; None if unknown.

    An accelerator reports its limit. All CPU devices of JAX share equally what the host has free
    and this process's control group allows (Linux).
    """
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    known = [n for n in (_free_on_host(), _limit_of_group()) if n is not None]
    return min(known) // jax.local_device_count() if known else None


def _free_on_host(path: Path = Path("/proc/meminfo")) -> int | None:
    """Return the bytes that the host can give without swapping; None if unknown."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _limit_of_group(groups: Path = Path("/proc/self/cgroup"), root: str = "/sys/fs/cgroup") -> Any:
    """Return the bytes that this process's control groups allow; None for no limit."""
    limits = []
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, kind, own = line.split(":", 2)
            if kind not in ("", "memory"):
                continue
            # Version 2 has one tree, version 1 one for each kind. A parent's limit binds too; in a
            # container the group's own path may not be there, but its root is.
            folder, name = (root, "memory.max") if not kind else (f"{root}/{kind}", _LIMIT_1)
            for group in [Path(own), *Path(own).parents]:
                with contextlib.suppress(OSError, ValueError):
                    limits.append(int(Path(f"{folder}{group}/{name}").read_text()))
    # Version 1 writes "none" as a number near 2^63.
    return min((n for n in limits if n < 2**60), default=None)


def check_fits(rows: list[Row], peak: int, available: int | None) -> None:
    """Raise a ValueError with the table `rows` if `peak` bytes are more than `available`."""
    if available is None or peak <= available:
        return
    table = "\n".join(f"  {row.name}: {row.num_bytes / 2**20:,.1f} MiB" for row in rows)
    buffer = sum(row.num_bytes for row in rows if row.name.startswith("rollout"))
    remedy = (
        "the rollout is the largest part: lower batch_size, num_minibatches or unroll_length"
        if buffer > peak / 2
        else "most of it is temporary: lower env_chunk_size or batch_size"
    )
    raise ValueError(
        f"a training iteration takes {peak / 2**20:,.0f} MiB and the device has "
        f"{available / 2**20:,.0f} MiB; {remedy}\n{table}"
    )
