"""Test what is used of JAX and MJX beyond their documented interfaces: a failure names the version
and the one file that has to be adapted."""

import re
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from envs import jaxpr
from envs.physics import host_call
from envs.physics.mjx import MjxPhysics
from vnl_ppo import executables
from vnl_ppo.runtime import Compilations

JAX = f"jax {jax.__version__}"
FFI = f"jaxlib {metadata.version('jaxlib')}: envs/physics/host_call.py has to be adapted"
STRUCTURES = {
    "XLA_FFI_Api_Version": host_call._Version,
    "XLA_FFI_Metadata": host_call._Metadata,
    "XLA_FFI_Metadata_Extension": host_call._MetadataExtension,
    "XLA_FFI_Buffer": host_call._Buffer,
    "XLA_FFI_Scalar": host_call._Scalar,
    "XLA_FFI_Attrs": host_call._Attributes,
    "XLA_FFI_Error_Create_Args": host_call._ErrorArguments,
    "XLA_FFI_CallFrame": host_call._CallFrame,
    "XLA_FFI_Api": host_call._Api,
}


@pytest.fixture(scope="module")
def header():
    path = Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h"
    assert path.is_file(), f"{path} is gone; {FFI}"
    return re.sub(r"//.*", "", path.read_text())


def test_the_version_of_the_ffi_is_one_that_is_known(header):
    version = tuple(
        int(re.search(rf"#define XLA_FFI_API_{part} (\d+)", header)[1])
        for part in ("MAJOR", "MINOR")
    )
    assert host_call._VERSION <= version <= host_call.NEWEST_KNOWN, (
        f"XLA's FFI has version {version}, and {host_call.NEWEST_KNOWN} is the newest that is "
        f"known; {FFI}"
    )


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_structures_of_the_ffi_are_those_written_down(header, name):
    found = re.search(rf"struct {name} {{(.*?)\n}}", header, re.DOTALL)
    assert found, f"{name} is gone; {FFI}"
    names = re.findall(r"(\w+)\)?;", found[1])
    ours = [field for cls in STRUCTURES[name].__mro__ for field in vars(cls).get("_fields_", [])]
    ours = [
        field for field, _ in sorted(ours, key=lambda f: getattr(STRUCTURES[name], f[0]).offset)
    ]
    # Of the table of functions only the first is read.
    names = names[: len(ours)] if name == "XLA_FFI_Api" else names
    assert ours == names, f"{name} has the fields {names}; {FFI}"


def test_the_types_of_the_ffi_are_those_written_down(header):
    for number, dtype in host_call._DTYPES.items():
        short = {"bool": "PRED", "int": "S", "uint": "U", "float": "F"}
        kind, bits = re.fullmatch(r"([a-z]+)(\d*)", np.dtype(dtype).name).groups()
        assert re.search(rf"XLA_FFI_DataType_{short[kind]}{bits} = {number},", header), FFI


def test_a_compiled_program_goes_through_bytes():
    x = np.arange(4, dtype=np.float32)
    compiled = jax.jit(lambda x: jnp.sin(x).sum()).lower(x).compile()
    try:
        again = executables.from_bytes(executables.to_bytes(compiled))
        assert again(x) == compiled(x)
        assert executables.settings()["jax_enable_x64"] is False
    except Exception as error:
        pytest.fail(
            f"{JAX} cannot keep programs: vnl_ppo/executables.py has to be adapted: {error}"
        )


def test_jax_tells_what_it_found_in_its_cache(tmp_path):
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    try:
        for name, value in zip(names, (str(tmp_path), 0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        compilations = Compilations(tmp_path)
        for _ in range(2):
            jax.jit(lambda x: jnp.cos(x).sum()).lower(1.0).compile()
        counts = compilations.found, compilations.made
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    assert counts == (1, 1), f"{JAX} no longer tells: vnl_ppo/runtime.py has to be adapted"


def test_what_a_program_reads_is_found():
    def function(x, y, z):
        loop = lambda _, carry: (carry[0] + y, carry[1] * 2)
        return jax.lax.fori_loop(0, 3, loop, (x, z))

    program = jaxpr.program_of(function, 1.0, 2.0, 3.0)
    message = f"{JAX}: envs/jaxpr.py has to be adapted"
    assert jaxpr.inputs_read(program, [True, False]) == [True, True, False], message
    assert jaxpr.inputs_read(program, [False, True]) == [False, False, True], message


def test_what_jax_no_longer_has_is_told(monkeypatch):
    monkeypatch.delattr("jax.interpreters.partial_eval.dce_jaxpr")
    with pytest.raises(RuntimeError, match=rf"{JAX} no longer has .*: envs/jaxpr.py has to be"):
        jaxpr.inputs_read(jaxpr.program_of(jnp.sin, 1.0), [True])


def test_the_contacts_of_mjx_are_counted():
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><geom type='plane' size='1 1 1'/><body pos='0 0 1'><freejoint/>"
        "<geom size='.1'/></body></worldbody></mujoco>"
    )
    physics = MjxPhysics(model, 1)
    assert physics.num_contacts == 1
    physics._data = object()
    with pytest.raises(RuntimeError, match=r"mujoco-mjx .* no longer has .*: envs/physics/mjx.py"):
        _ = physics.num_contacts


def test_mjx_computes_each_body_once():
    chain = "<body pos='0 0 1'><joint/><geom size='.1'/>" * 5 + "</body>" * 5
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{chain}</worldbody></mujoco>")
    physics = MjxPhysics(model, 1)
    start = physics.init(
        *(jnp.zeros(n) for n in (model.nq, model.nv)), jnp.zeros((0, 3)), jnp.zeros((0, 3))
    )
    program = jax.jit(physics.step).lower(start, jnp.zeros(0)).as_text()
    message = (
        f"mujoco-mjx {mujoco.__version__} no longer goes through body_tree: envs/physics/mjx.py "
        "has to be adapted"
    )
    assert program.count("optimization_barrier") >= 5, message
