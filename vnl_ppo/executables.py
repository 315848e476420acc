"""Turn compiled programs into bytes and back, for `vnl_ppo.program_cache`.

Only this module uses two undocumented parts of JAX: `serialize_executable`, and the names of its
settings. With another version of JAX any function here may raise any exception.
"""

import functools
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

try:
    from jax.experimental import serialize_executable
except ImportError:  # programs are not kept then, and tests/test_private_surfaces.py fails
    serialize_executable: Any = None  # type: ignore[no-redef]


def to_bytes(compiled: Any) -> bytes:
    """Return a `jax.stages.Compiled` as bytes; raises if it calls back into Python."""
    # By itself JAX would load it for all devices.
    shardings: Any = jax.tree.leaves((compiled.input_shardings, compiled.output_shardings))
    devices = sorted({device.id for sharding in shardings for device in sharding.device_set})
    return pickle.dumps((devices, serialize_executable.serialize(compiled)))


def from_bytes(content: bytes) -> Callable[..., Any]:
    """Load a program that `to_bytes` saved onto the devices that it was compiled for."""
    _prepare_linear_algebra()
    devices, (program, inputs, outputs) = pickle.loads(content)
    by_number = {device.id: device for device in jax.devices()}
    return serialize_executable.deserialize_and_load(
        program, inputs, outputs, execution_devices=[by_number[n] for n in devices]
    )


def settings() -> dict[str, Any]:
    """Return all of JAX's settings by name."""
    return dict(jax.config.values)


@functools.cache
def _prepare_linear_algebra() -> None:
    """Register LAPACK's routines, which JAX does as it lowers the first program that uses them.

    A loaded program that called one of them before would end the process.
    """
    jax.jit(jnp.linalg.qr).lower(jnp.ones((1, 1)))
