"""NumPy functions inside compiled programs, which are kept on disk."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.physics import host_call

ROOT = Path(__file__).parents[2]
RESULTS = (jax.ShapeDtypeStruct((3,), jnp.float32), jax.ShapeDtypeStruct((), jnp.bool_))
calls = []


def scaled(x, factor, nothing):
    calls.append(x.shape)
    if (factor == 13).any():
        raise ValueError("13 is unlucky")
    assert nothing.shape == (*factor.shape, 0)
    return x * factor[..., None], x.sum(-1) > 2


@pytest.fixture(scope="module")
def call():
    number = host_call.register(scaled, b"scaled")
    return lambda x, factor: host_call.call(number, RESULTS, x, factor, jnp.zeros(0))


def test_a_whole_batch_is_one_call(call):
    x = jax.random.normal(jax.random.key(0), (4, 5, 3))
    factor = jnp.arange(5, dtype=jnp.int32)
    batched = jax.jit(jax.vmap(jax.vmap(call), in_axes=(0, None)))
    calls.clear()
    found, positive = batched(x, factor)
    np.testing.assert_array_equal(found, x * factor[:, None])
    np.testing.assert_array_equal(positive, x.sum(-1) > 2)
    assert calls == [(4, 5, 3)]


def test_it_runs_inside_a_scan_under_pmap(call):
    def program(x):
        step = lambda x, _: (call(x, jnp.int32(2))[0], None)
        return jax.lax.scan(step, x, length=10)[0]

    x = jnp.array([[1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(jax.pmap(program)(x), 1024 * x)


def test_an_error_in_python_is_one_in_jax(call):
    with pytest.raises(Exception, match="ValueError: 13 is unlucky"):
        jax.block_until_ready(jax.jit(call)(jnp.ones(3), jnp.int32(13)))


def test_a_number_stands_for_a_function():
    first = host_call.register(lambda x: (x,), b"f", b"1")
    assert first == host_call.register(lambda x: (x,), b"f", b"1")
    assert first != host_call.register(lambda x: (x,), b"f", b"2")


SCRIPT = """
    import jax
    import envs
    from vnl_ppo.runtime import keep_compilations
    compilations = keep_compilations()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    physics = envs.make("gap_ant", seeing=False, physics="mujoco")._physics
    state = physics.init(physics.model.qpos0, physics.model.qpos0[1:] * 0)
    jax.block_until_ready(jax.jit(physics.step)(state, state.qvel[:8]))
    print(compilations.found, compilations.made, state.qpos.sum())
"""


def test_another_process_finds_the_compiled_program(tmp_path):
    """Keep a program with the C physics in it; JAX keeps none that has a `pure_callback`."""
    environment = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    run = lambda: subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    found, made, end = run()
    assert found == "0"
    assert int(made) > 0
    assert list(tmp_path.glob("jit_step-*"))
    assert run() == [made, "0", end]
