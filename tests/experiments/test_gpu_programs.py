"""Without a GPU: the main job's training step, lowered for one, stays on it and in float32."""

import dataclasses
import re
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import pytest

from experiments.settings import build, defaults_for
from vnl_ppo.ppo import make_ppo

WARP = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("warp") is None, reason="needs the extra warp"),
]


@pytest.mark.parametrize(
    "physics, calls",
    [
        # NVIDIA's library factors the solver's matrices.
        ("mjx", {"cusolver_potrf_ffi"}),
        pytest.param("warp", {"func_wrapper"}, marks=WARP),
    ],
)
def test_a_seeing_training_step_lowers_for_a_gpu(physics, calls, monkeypatch):
    settings = dataclasses.replace(defaults_for("gap_ant"), physics=physics)
    env, network = build(settings)
    programs = {}
    make_ppo(env, network, settings.ppo, keep=lambda name, f: programs.setdefault(name, f))
    # Encoders and defaults ask for it while they are traced.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    state = jax.eval_shape(programs["init"], jax.ShapeDtypeStruct((1,), jnp.uint32))
    text = programs["step"].trace(state).lower(lowering_platforms=("cuda",)).as_text()
    called = set(re.findall(r"custom_call @([\w.$]+)", text))
    assert len(called) == len(calls)
    assert all(any(known in name for known in calls) for name in called)
    assert "callback" not in "".join(called)
    assert not re.search(r"[x<]f64>", text)
    # Pixels are bytes until a minibatch is encoded.
    assert "ui8" in text
