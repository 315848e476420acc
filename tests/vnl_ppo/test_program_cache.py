"""A kept program is the same program, and one that might not be is compiled anew."""

import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from vnl_ppo import program_cache
from vnl_ppo.program_cache import ProgramCache
from vnl_ppo.runtime import Compilations

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


class Function:
    """Counts how often it is traced."""

    def __init__(self):
        self.traced = 0

    def __call__(self, x, key):
        self.traced += 1
        q, _ = jnp.linalg.qr(x.T)
        return {"y": jnp.tanh(q) + jax.random.normal(key, q.shape), "key": jax.random.split(key)[0]}


@pytest.fixture
def jax_cache():
    """A function that has JAX keep compiled programs in a folder, or nowhere; undone afterwards.

    JAX looks at the setting once, unless it is told to look again.
    """
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}

    def use(folder):
        for name, value in zip(names, (folder and str(folder), 0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    yield use
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def compilations(tmp_path, jax_cache):
    # Other tests may have turned it on.
    jax_cache(None)
    # JAX imports some modules as it compiles for the first time; from then on they are code too.
    run(Compilations(tmp_path / "first"))
    return Compilations(tmp_path / "cache")


def run(compilations, *identity):
    function = Function()
    kept = ProgramCache(compilations, *identity).keep("f", jax.jit(function))
    results = [kept(X, jax.random.key(seed)) for seed in (0, 1)]
    return function.traced, [
        (np.asarray(r["y"]), np.asarray(jax.random.key_data(r["key"]))) for r in results
    ]


def test_a_second_start_traces_nothing_and_computes_the_same(compilations):
    traced, first = run(compilations, b"settings")
    assert traced == 1
    assert ProgramCache(compilations, b"settings").has("f")
    traced, second = run(compilations, b"settings")
    assert (traced, compilations.found) == (0, 1)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert (first[0][0] != first[1][0]).any()


def test_other_settings_or_flags_are_another_program(compilations, monkeypatch):
    run(compilations, b"settings")
    assert run(compilations, b"others")[0] == 1
    monkeypatch.setenv("XLA_FLAGS", "--xla_nothing")
    assert not ProgramCache(compilations, b"settings").has("f")


def test_code_that_was_edited_is_another_program(compilations, tmp_path, monkeypatch):
    path = tmp_path / "eyes.py"
    path.write_text("size = 1")
    module = types.ModuleType("eyes")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "eyes", module)
    run(compilations)
    assert ProgramCache(compilations).has("f")
    path.write_text("size = 2")
    os.utime(path, ns=(1, 1))
    assert not ProgramCache(compilations).has("f")
    assert run(compilations)[0] == 1


@pytest.mark.parametrize(
    "harm", [lambda b: b[:-9], lambda b: b[:50] + b"\0" + b[51:], lambda b: b""]
)
def test_a_torn_file_is_written_anew(compilations, harm):
    _, first = run(compilations)
    path = ProgramCache(compilations).path("f")
    content = path.read_bytes()
    path.write_bytes(harm(content))
    traced, second = run(compilations)
    assert traced == 1
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert run(compilations)[0] == 0


def test_only_the_programs_used_last_stay(compilations, monkeypatch):
    monkeypatch.setattr(program_cache, "MOST", 2)
    has = lambda name: ProgramCache(compilations, name).has("f")
    for i, name in enumerate((b"first", b"second")):
        run(compilations, name)
        os.utime(ProgramCache(compilations, name).path("f"), ns=(i + 1, i + 1))
    # Used again, so that the second is the one that nobody asked for longest.
    assert run(compilations, b"first")[0] == 0
    run(compilations, b"third")
    assert (has(b"first"), has(b"second"), has(b"third")) == (True, False, True)


def test_what_jax_had_in_its_cache_is_not_kept_again(compilations, tmp_path, jax_cache):
    jax_cache(tmp_path / "of_jax")
    run(compilations)
    path = ProgramCache(compilations).path("f")
    path.unlink()
    # Another start whose kept program is lost finds it in JAX's own cache: XLA cannot write down
    # again what it read from there, and what it wrote would fail when it is called.
    traced, (one, other) = run(compilations)
    assert traced == 1 and compilations.found > 0 and not path.exists()
    assert (one[0] != other[0]).any()


def test_what_cannot_be_kept_still_runs(compilations, tmp_path):
    calls_python = jax.jit(
        lambda x: jax.pure_callback(lambda x: x + 1, jax.ShapeDtypeStruct((2, 3), "float32"), x)
    )
    programs = ProgramCache(compilations)
    np.testing.assert_array_equal(programs.keep("g", calls_python)(X), X + 1)
    assert not programs.has("g")
    (tmp_path / "file").write_text("")
    nowhere = ProgramCache(Compilations(tmp_path / "file"))
    np.testing.assert_array_equal(nowhere.keep("h", jax.jit(lambda x: x + 2))(X), X + 2)


ON_TWO_DEVICES = """
import sys, jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from vnl_ppo.program_cache import ProgramCache
from vnl_ppo.runtime import keep_compilations

compilations = keep_compilations()
programs = ProgramCache(compilations, b"two")
shared = NamedSharding(Mesh(jax.devices(), "d"), PartitionSpec("d"))
for name, x in {"one": jnp.ones(4), "both": jax.device_put(jnp.ones(4), shared)}.items():
    assert float(programs.keep(name, jax.jit(lambda x: 2 * x))(x).sum()) == 8
print("found", compilations.found)
"""


def test_a_program_comes_back_on_the_devices_that_it_was_made_for(tmp_path):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
    }
    for found in (0, 2):
        done = subprocess.run(
            [sys.executable, "-c", ON_TWO_DEVICES], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert f"found {found}" in done.stdout


def test_a_program_that_others_could_have_written_is_not_run(compilations):
    key = jax.random.key(0)
    first = ProgramCache(compilations, b"x").keep("f", jax.jit(Function()))
    first(X, key)
    path = first._programs.path("f")
    path.chmod(0o666)
    again = Function()
    ProgramCache(compilations, b"x").keep("f", jax.jit(again))(X, key)
    assert again.traced == 1
    path.chmod(0o600)
    third = Function()
    ProgramCache(compilations, b"x").keep("f", jax.jit(third))(X, key)
    assert third.traced == 0
