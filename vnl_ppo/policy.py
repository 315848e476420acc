"""Build the policy and value function of a network, its parameters and observation moments."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from flax.core.scope import DenyList

from vnl_ppo import distributions, normalization
from vnl_ppo.env import Observation
from vnl_ppo.observations import Leaves, flatten
from vnl_ppo.randomness import fold_in
from vnl_ppo.recurrence import initial_memory, remembers
from vnl_ppo.rollout import Decision

SOWN = ("losses", "metrics")
"""Collections that modules may sow in training, see `apply_in_training`."""
_NOISE = 1
"""Number that is folded into the key of an action to draw the noise of encoders."""


@struct.dataclass
class Weights:
    """The learned part of a policy.

    Attributes:
        params: the network's parameters.
        moments: mean and variance by which float leaves are normalised.
    """

    params: Any
    moments: normalization.Moments


def init_params(network: nn.Module, observation_spec: Any, key: jax.Array) -> Any:
    """Draw the network's initial parameters."""
    zeros = {k: jnp.zeros((1, *s.shape), s.dtype) for k, s in flatten(observation_spec).items()}
    memory = initial_memory(network, 1)
    given = (memory,) if remembers(memory) else ()
    # What modules sow is no parameter.
    return network.init(key, zeros, *given, mutable=DenyList(("intermediates", *SOWN)))


def apply(
    network: nn.Module,
    weights: Weights,
    obs: Observation,
    memory: Any = (),
    end: jax.Array | None = None,
    keys: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, Any]:
    """Apply a network to raw observations of any nesting.

    Args:
        network: flat obs -> (logits, value); with memory, (flat obs, memory, end) -> (logits,
            value, memory).
        weights: the network's parameters and the moments of observations.
        obs: leaves [..., *leaf shape].
        memory: leaves [..., *memory shape]; `()` for a network without memory.
        end: bool[B, T], for unrolls of a network with memory (see `recurrence.GRU`).
        keys: PRNG keys [...] for a network that `draws`; None to draw no random numbers.

    Returns:
        logits float32[..., 2A], value float32[...], the memory afterwards.
    """
    output, _ = _applied(network, weights, obs, memory, end, keys, ())
    return output


def apply_in_training(
    network: nn.Module,
    weights: Weights,
    obs: Observation,
    memory: Any = (),
    end: jax.Array | None = None,
    keys: jax.Array | None = None,
    targets: Leaves | None = None,
) -> tuple[tuple[jax.Array, jax.Array, Any], jax.Array, dict[str, jax.Array]]:
    """Apply a network as `apply` does, and collect the losses and metrics that its modules sow.

    `targets` are raw leaves to predict, by name; None or none of them for those of `obs`.

    Any module, an encoder of one's own too, may add to the loss and to what is logged:

        self.sow("losses", "sparsity", 1e-3 * jnp.abs(x).mean())
        self.sow("metrics", "active", (x > 0).mean())

    Returns:
        what `apply` returns; the sum of all losses, float32[]; metrics, float32[] by the path of
        the module and the name.
    """
    output, sown = _applied(network, weights, obs, memory, end, keys, SOWN, targets=targets)
    loss = sum(jax.tree.leaves(sown.get("losses", {})), jnp.zeros(()))
    path = lambda keys: "/".join(key.key for key in keys if hasattr(key, "key"))
    metrics = jax.tree_util.tree_leaves_with_path(sown.get("metrics", {}))
    return output, loss, {path(keys): x for keys, x in metrics}


def apply_and_capture(
    network: nn.Module, weights: Weights, obs: Observation, memory: Any = ()
) -> tuple[tuple[jax.Array, jax.Array, Any], dict[str, jax.Array]]:
    """Apply a network as `apply` does, and capture the output of every module in it.

    Returns:
        what `apply` returns; outputs float[..., units] by the module's path, such as
        `encoders_vision/Conv_0`. Of a module that is applied several times, or returns several
        arrays, it is the first.
    """
    capture = lambda module, method: method == "__call__" and bool(module.path)
    output, sown = _applied(network, weights, obs, memory, None, None, ["intermediates"], capture)
    outputs = jax.tree_util.tree_leaves_with_path(sown.get("intermediates", {}))
    found: dict[str, jax.Array] = {}
    for path, x in outputs:
        keys: list[Any] = [getattr(key, "key", getattr(key, "idx", None)) for key in path]
        # A module may sow values of its own under other names.
        if "__call__" not in keys:
            continue
        names, which = keys[: keys.index("__call__")], keys[keys.index("__call__") + 1 :]
        if not any(which):
            found["/".join(names)] = x
    return output, found


def _applied(
    network: nn.Module,
    weights: Weights,
    obs: Observation,
    memory: Any,
    end: jax.Array | None,
    keys: jax.Array | None,
    collections: Sequence[str],
    capture: Callable[[nn.Module, str], bool] | bool = False,
    targets: Leaves | None = None,
) -> tuple[tuple[jax.Array, jax.Array, Any], Any]:
    obs = normalization.normalize(weights.moments, obs)
    given = (memory, end) if remembers(memory) else ()
    named: dict[str, Any] = {} if keys is None else {"keys": keys}
    if targets:
        named["targets"] = normalization.normalize(weights.moments, targets)
    # What modules sow into other collections is not computed.
    found: Any = network.apply(
        weights.params,
        obs,
        *given,
        **named,
        mutable=list(collections) or False,
        capture_intermediates=capture,
    )
    output, sown = found if collections else (found, {})
    logits, value, *after = output
    return (logits, value, *(after or [memory])), sown


def make_policy(
    network: nn.Module, weights: Weights, deterministic: bool = False
) -> tuple[Callable[..., tuple[jax.Array, Decision]], Callable[..., jax.Array]]:
    """Build the policy and the value function, for observations of any leading axes [...].

    Returns:
        act: (obs, key, memory) -> action float32[..., A] in [-1, 1], `Decision`. There is one PRNG
            key, or one for each entry of the first axis. `deterministic` takes the mode, and no
            encoder draws random numbers; else those that draw have keys in `Decision.noise`.
        value_fn: (obs, memory) -> value float32[...].
            No encoder draws random numbers.
        `memory` may be left out for a network without memory.
    """

    def act(obs: Observation, key: jax.Array, memory: Any = ()) -> tuple[jax.Array, Decision]:
        if deterministic or not draws(network):
            return decide(network, *apply(network, weights, obs, memory), key, deterministic)
        value = jax.eval_shape(partial(apply, network), weights, obs, memory)[1]
        keys = _keys_for(fold_in(key, _NOISE), value.shape)
        output = apply(network, weights, obs, memory, keys=keys)
        action, decision = decide(network, *output, key, deterministic)
        return action, dataclasses.replace(decision, noise=jax.random.key_data(keys))

    def value_fn(obs: Observation, memory: Any = ()) -> jax.Array:
        return apply(network, weights, obs, memory)[1]

    return act, value_fn


def draws(network: nn.Module) -> bool:
    """Return whether encoders of a network draw random numbers, so that it takes `keys`."""
    return getattr(network, "draws", False)


def predicted_later(network: nn.Module) -> dict[str, int]:
    """Return how many steps later the leaves are that a network predicts, by name; without those of
    the same step."""
    horizon = getattr(network, "predict_horizon", 0)
    return dict.fromkeys(network.predict_leaves, horizon) if horizon else {}


def noise_keys(decision: Decision) -> jax.Array | None:
    """Return the keys from which encoders drew when a decision was made; None for none."""
    noise = decision.noise
    return None if isinstance(noise, tuple) else jax.random.wrap_key_data(noise)


def _keys_for(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return keys of a shape, made of one key or of one for each entry of the first axis."""
    if not key.ndim:
        return jax.random.split(key, shape)
    return jax.vmap(lambda k: _keys_for(k, shape[1:]))(key) if shape[1:] else key


def decide(
    network: nn.Module,
    logits: jax.Array,
    value: jax.Array,
    memory: Any,
    key: jax.Array,
    deterministic: bool,
) -> tuple[jax.Array, Decision]:
    """Choose the actions for what a network returned, see `apply` and `make_policy`."""
    distribution = distributions.of(network)
    if deterministic:
        raw_action = distributions.normal(logits).mode()
    else:
        raw_action = distributions.sample(logits, key)
    log_prob = distribution.log_prob(logits, raw_action)
    return distribution.squash(raw_action), Decision(raw_action, log_prob, value, memory)
