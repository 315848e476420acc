import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests import reference
from vnl_ppo.advantages import generalized_advantages


def test_values_worked_by_hand():
    # discounting 0.5, lambda 0.5; the second step fails, the third runs out of the unroll.
    advantages = generalized_advantages(
        r_t=jnp.array([1.0, 2.0, 3.0]),
        v_tm1=jnp.array([10.0, 20.0, 30.0]),
        v_t=jnp.array([20.0, 30.0, 40.0]),
        termination_t=jnp.array([False, True, False]),
        end_t=jnp.array([False, True, False]),
        discounting=0.5,
        gae_lambda=0.5,
    )
    # delta = 1 + 10 - 10 = 1,  2 + 0 - 20 = -18,  3 + 20 - 30 = -7;  A = 1 - 18 / 4, -18, -7.
    np.testing.assert_allclose(advantages, [-3.5, -18.0, -7.0])


def test_a_time_out_keeps_its_value_and_a_failure_does_not():
    arguments = dict(
        r_t=jnp.zeros(2),
        v_tm1=jnp.zeros(2),
        v_t=jnp.array([8.0, 100.0]),
        end_t=jnp.array([True, False]),
        discounting=0.5,
        gae_lambda=1.0,
    )
    no, yes = jnp.array([False, False]), jnp.array([True, False])
    np.testing.assert_allclose(generalized_advantages(termination_t=no, **arguments)[0], 4.0)
    np.testing.assert_allclose(generalized_advantages(termination_t=yes, **arguments)[0], 0.0)


ours = jax.jit(generalized_advantages)


def next_values(v, last, end):
    """The value after each step: that of the next observation, or of the episode's last one."""
    return np.where(end, last, np.append(v[1:], last[-1:], axis=0))


@pytest.mark.parametrize("discounting, gae_lambda", [(0.97, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_ends_of_both_kinds_at_every_position(discounting, gae_lambda):
    # Each of 6 steps goes on, fails or times out: 729 unrolls, one in each column.
    kinds = np.array(list(itertools.product(range(3), repeat=6))).T
    termination, end = kinds == 1, kinds > 0
    r, v, last = np.random.default_rng(0).normal(size=(3, *kinds.shape))
    v_next = next_values(v, last, end)
    expected = reference.advantages(r, v, v_next, termination, end, discounting, gae_lambda)
    given_ = (jnp.asarray(x) for x in (r, v, v_next, termination, end))
    np.testing.assert_allclose(
        ours(*given_, discounting, gae_lambda), expected, rtol=1e-4, atol=1e-5
    )


floats = hnp.arrays(np.float32, 6, elements=st.floats(-10, 10, width=32))
flags = hnp.arrays(bool, 6)


@settings(max_examples=200, deadline=None)
@given(floats, floats, floats, flags, flags, st.floats(0, 1), st.floats(0, 1))
def test_equals_the_definition(r, v, last, termination, cut, discounting, gae_lambda):
    end = termination | cut
    v_next = next_values(v, last, end)
    expected = reference.advantages(r, v, v_next, termination, end, discounting, gae_lambda)
    found = ours(*map(jnp.asarray, (r, v, v_next, termination, end)), discounting, gae_lambda)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
