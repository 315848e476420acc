"""Lower the main job's training step for a GPU, without one: it calls no host and is in float32."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from experiments.settings import ACCELERATOR, build, defaults_for
from tests.extras import WARP
from vnl_ppo.ppo import make_ppo


@pytest.mark.parametrize(
    "physics, calls",
    [
        # NVIDIA's library factors the solver's matrices.
        ("mjx", {"cusolver_potrf_ffi"}),
        pytest.param("warp", {"func_wrapper"}, marks=WARP),
    ],
)
def test_a_seeing_training_step_lowers_for_a_gpu(physics, calls, monkeypatch):
    # Defaults ask for it, and encoders while they are traced.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    settings = dataclasses.replace(defaults_for("gap_ant"), physics=physics)
    assert settings.ppo == ACCELERATOR
    env, network = build(settings)
    programs = {}
    make_ppo(env, network, settings.ppo, keep=lambda name, f: programs.setdefault(name, f))
    state = jax.eval_shape(programs["init"], jax.ShapeDtypeStruct((1,), jnp.uint32))
    text = programs["step"].trace(state).lower(lowering_platforms=("cuda",)).as_text()
    called = set(re.findall(r"custom_call @([\w.$]+)", text))
    assert len(called) == len(calls)
    assert all(any(known in name for known in calls) for name in called)
    assert "callback" not in "".join(called)
    assert not re.search(r"[x<]f64>", text)
    # The images of a whole iteration are kept as bytes.
    transitions = settings.ppo.steps_per_iteration
    assert f"tensor<{transitions}x64x64x3xui8>" in text
    assert f"tensor<{transitions}x64x64x3xf32>" not in text
