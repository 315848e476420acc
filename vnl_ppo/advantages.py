"""Compute generalized advantage estimates (GAE), with termination and truncation kept apart."""

import chex
import jax
import jax.numpy as jnp


def generalized_advantages(
    r_t: jax.Array,
    v_tm1: jax.Array,
    v_t: jax.Array,
    termination_t: jax.Array,
    end_t: jax.Array,
    discounting: float,
    gae_lambda: float,
) -> jax.Array:
    """Compute the advantages of one unroll by backward recursion.

    With the temporal difference `delta_t = r_t + discounting (1 - termination_t) v_t - v_tm1`,

        A_tm1 = delta_t + discounting gae_lambda (1 - end_t) A_t,    A_T = 0.

    A terminated episode has value 0 after its last step. A truncated episode has the value of its
    own last observation. The next episode does not influence the advantages of the one before it.

    Source: Schulman et al. 2016, arXiv:1506.02438, equations 11 and 16; Pardo et al. 2018,
    arXiv:1712.00378, for the value at a time limit.

    Args:
        r_t: float[T, ...], the reward of each step.
        v_tm1: float[T, ...], the value of the observation acted on.
        v_t: float[T, ...], the value of the observation that the step led to, before any reset.
        termination_t: bool[T, ...], true if the step terminated its episode (failure).
        end_t: bool[T, ...], true if the step ended its episode, terminated or truncated.
        discounting: the discount factor per step, in [0, 1].
        gae_lambda: in [0, 1]; 0 for one-step differences, 1 for whole returns.

    Returns:
        float[T, ...], the advantages. `v_tm1` plus these are the targets of the value function.

    Raises:
        AssertionError: the arrays differ in shape.
    """
    chex.assert_equal_shape([r_t, v_tm1, v_t, termination_t, end_t])
    delta_t = r_t + discounting * jnp.where(termination_t, 0.0, v_t) - v_tm1
    decay_t = discounting * gae_lambda * jnp.where(end_t, 0.0, 1.0)

    def backward(advantage_t, step):
        delta, decay = step
        advantage_tm1 = delta + decay * advantage_t
        return advantage_tm1, advantage_tm1

    _, advantages = jax.lax.scan(
        backward, jnp.zeros_like(delta_t[0]), (delta_t, decay_t), reverse=True
    )
    return advantages
