"""Connect several processes, on one host or more, that train together as one run.

Processes communicate over gloo (CPU) or NCCL (GPU). All run the same program, each with its share
of the environments; only process 0 writes files and prints. If a process dies, the connections of
the others break, which ends them too.
"""

import contextlib
import dataclasses
import hashlib
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

_HEARTBEAT = 30
"""Seconds without an answer after which a process counts as dead, for hosts that vanish. A process
that is killed is noticed at once, by its broken connections."""
_LONGEST = 7 * 24 * 3600
"""Longest timeout in seconds, a week: timers overflow at some number."""
_BROKEN = ("gloo", "nccl", "connection reset", "connection closed", "heartbeat", "coordination")


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Settings by which this process finds the other processes of the run."""

    coordinator: str = ""
    """HOST:PORT at which process 0 listens. Empty if SLURM or Open MPI started the processes: JAX
    then finds coordinator, num_processes and process_id by itself."""
    num_processes: int | None = None
    """Number of processes; None to read it from SLURM or Open MPI."""
    process_id: int | None = None
    """Index of this process, from 0; None to read it from SLURM or Open MPI."""
    timeout: int = 120
    """Seconds to wait for the other processes at the start."""


class PeerLostError(Exception):
    """Another process of the run ended, or cannot be reached."""


def join(config: DistributedConfig) -> None:
    """Connect to the other processes. Call it before anything that uses a device.

    If not all connect within `config.timeout` seconds, this process ends with a message and exit
    status 1 (JAX would abort it with a stack trace).

    Raises:
        ValueError: a setting is invalid, or the processes cannot be connected.
    """
    _check(config)
    # Signals are handled by `vnl_ppo.interruption`, as in one process.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    waiting = threading.Timer(config.timeout, _give_up, [config])
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(
            config.coordinator or None,
            config.num_processes,
            config.process_id,
            initialization_timeout=config.timeout + 30,
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_HEARTBEAT,
        )
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"the processes could not be joined: {str(error).splitlines()[0][:300]} Give every "
            f"process --distributed.coordinator HOST:PORT, --distributed.num-processes and "
            f"--distributed.process-id; if SLURM or Open MPI started them, --distributed is "
            f"enough"
        ) from error
    finally:
        waiting.cancel()


def _check(config: DistributedConfig) -> None:
    if not 1 <= config.timeout <= _LONGEST:
        raise ValueError(
            f"distributed.timeout is {config.timeout} s; it has to be from 1 to {_LONGEST}"
        )
    num_processes, process_id = config.num_processes, config.process_id
    if num_processes is not None and not 1 <= num_processes < 2**31:
        raise ValueError(
            f"distributed.num_processes is {num_processes}; it has to be at least 1 and below 2^31"
        )
    last = 2**31 if num_processes is None else num_processes
    if process_id is not None and not 0 <= process_id < last:
        raise ValueError(
            f"distributed.process_id is {process_id} and distributed.num_processes "
            f"{num_processes}; process_id has to be from 0 to num_processes - 1"
        )
    if not config.coordinator:
        return
    host, _, port = config.coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 2**16):
        raise ValueError(
            f"distributed.coordinator is {config.coordinator!r}; it has to be HOST:PORT, with a "
            f"port from 1 to 65535"
        )
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(
            f"distributed.coordinator is {config.coordinator!r}, which cannot be resolved ({error})"
        ) from error


def _give_up(config: DistributedConfig) -> None:
    """End the process from another thread: the main one is in a call that cannot be interrupted."""
    # What a cluster's launcher sets is not in the configuration.
    where = config.coordinator or "the address that was found"
    me = "this process" if config.process_id is None else f"process {config.process_id}"
    others = "other" if config.num_processes is None else f"{config.num_processes}"
    print(
        f"error: {me} waited {config.timeout} s at {where} for all {others} processes to "
        f"connect; check that process 0 runs there, that the "
        f"port is free and open, and that all were started; --distributed.timeout sets the wait",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def is_first() -> bool:
    """Return whether this is process 0, which writes and prints; a single process is process 0."""
    return jax.process_index() == 0


def everyone(numbers: Sequence[int]) -> np.ndarray:
    """Gather K integers of each process as int32[processes, K]. Every process has to call this."""
    own = np.asarray(numbers, np.int32)
    if jax.process_count() == 1:
        return own[None]
    return np.asarray(multihost_utils.process_allgather(own))


def wait_for_all() -> None:
    """Wait until every process has called this."""
    everyone([0])


def check_same(what: str, text: str) -> None:
    """Raise a ValueError unless `text` is the same in all processes. Every one has to call this."""
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.int32)
    found = everyone(digest.tolist())
    other = np.flatnonzero((found != found[0]).any(axis=1))
    if other.size:
        raise ValueError(
            f"{what} of process {other[0]} are not those of process 0; start all processes with "
            f"the same command, except for --distributed.process-id"
        )


def whole(tree: Tree) -> Tree:
    """Gather arrays that are sharded over processes onto one device of this process.

    Typed PRNG keys become raw key data. Every process has to call this; a single one gets `tree`
    back unchanged.
    """
    if jax.process_count() == 1:
        return tree
    everywhere = jax.tree.map(lambda x: NamedSharding(x.sharding.mesh, PartitionSpec()), tree)
    copied = jax.jit(_raw, out_shardings=everywhere)(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), copied)


def _raw(tree: Any) -> Any:
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Raise a PeerLostError in place of the errors that JAX raises when another process is gone."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        text = str(error)
        if jax.process_count() > 1 and any(word in text.lower() for word in _BROKEN):
            raise PeerLostError(
                f"process {jax.process_index()} of {jax.process_count()} lost another one, which "
                f"ended or cannot be reached; see the output of that process "
                f"({text.splitlines()[0][:160]})"
            ) from error
        raise


def leave(status: int) -> None:
    """Flush the output and, if this is one of several processes, exit at once with `status`."""
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.distributed.is_initialized():
        os._exit(status)
