"""Several processes, on one host or on many, that train as one.

JAX joins them; CPUs then talk over gloo and GPUs over NCCL. All processes do the same things in the
same order, each with its share of the environments, and the first alone writes and prints. A
process that dies breaks the others' connections, which ends them too.
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
"""Seconds without a sign of life after which a process counts as dead. One that is killed is
noticed at once, by its broken connections; this is for hosts that vanish."""
_LONGEST = 7 * 24 * 3600
"""Seconds to wait for others at most, a week: a timer overflows at some number."""
_BROKEN = ("gloo", "nccl", "connection reset", "connection closed", "heartbeat", "coordination")


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """How to find the other processes."""

    coordinator: str = ""
    """host:port at which process 0 listens. Where SLURM or Open MPI started the processes, JAX
    finds this and the next two by itself."""
    num_processes: int | None = None
    """How many there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""
    timeout: int = 120
    """Seconds to wait for the others at the start."""


class PeerLostError(Exception):
    """Another process of the run ended, or cannot be reached."""


def join(config: DistributedConfig) -> None:
    """Join the other processes. Has to come before anything that uses a device.

    Where the others do not come in time, the process ends with a message and status 1: JAX would
    abort it with a trace of its stack.

    Raises:
        ValueError: a setting cannot be; the message says which.
    """
    _check(config)
    # A signal has to end the run after an iteration, as it does in one process.
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
            f"--distributed.process-id; where SLURM or Open MPI started them, --distributed is "
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
            f"{num_processes}; the first has to be from 0 to one below the second"
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
            f"distributed.coordinator is {config.coordinator!r}, which is no address here ({error})"
        ) from error


def _give_up(config: DistributedConfig) -> None:
    """From another thread, as the main one is in a call that nothing breaks into."""
    where = config.coordinator or "the address that was found"
    print(
        f"error: process {config.process_id} waited {config.timeout} s at {where} for the "
        f"{config.num_processes} processes; is that the host of process 0, is the port free and "
        f"open, and were all of them started? --distributed.timeout waits longer",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def is_first() -> bool:
    """Whether this process is the one that writes and prints; so is one alone."""
    return jax.process_index() == 0


def everyone(numbers: Sequence[int]) -> np.ndarray:
    """int32[processes, K]: what each process has for these K numbers. All have to ask."""
    own = np.asarray(numbers, np.int32)
    if jax.process_count() == 1:
        return own[None]
    return np.asarray(multihost_utils.process_allgather(own))


def wait_for_all() -> None:
    """Go on when all processes have come here: while the first writes, the others may not leave."""
    everyone([0])


def check_same(what: str, text: str) -> None:
    """Raise a ValueError unless all processes have the same `text`. All have to ask."""
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.int32)
    found = everyone(digest.tolist())
    other = np.flatnonzero((found != found[0]).any(axis=1))
    if other.size:
        raise ValueError(
            f"{what} of process {other[0]} are not those of process 0; start all processes with "
            f"the same command, up to --distributed.process-id"
        )


def whole(tree: Tree) -> Tree:
    """Arrays that lie on devices of several processes, as one device of this process has them.

    Typed PRNG keys become raw numbers. All processes have to ask; in one alone nothing changes.
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
    """Raise a PeerLostError for whatever JAX raises inside when another process is gone."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        text = str(error)
        if jax.process_count() > 1 and any(word in text.lower() for word in _BROKEN):
            raise PeerLostError(
                f"process {jax.process_index()} of {jax.process_count()} lost another one, which "
                f"ended or cannot be reached; its own output says why "
                f"({text.splitlines()[0][:160]})"
            ) from error
        raise


def leave(status: int) -> None:
    """End this process at once where others may wait for it; by itself JAX would wait for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.distributed.is_initialized():
        os._exit(status)
