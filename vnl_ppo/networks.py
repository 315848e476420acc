"""Define the actor-critic network: encoders by leaf, an optional recurrent core, and two heads."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vnl_ppo import distributions
from vnl_ppo.observations import Leaves, flatten
from vnl_ppo.randomness import fold_in


class Head(nn.Module):
    """A multilayer perceptron with swish activations and a linear output.

    Attributes:
        hidden: the widths of the hidden layers.
        outputs: the width of the output.
        output_scale: gain of the output layer's orthogonal kernel. With 0.01 a policy hardly
            depends on the observation at first (Andrychowicz et al. 2021, arXiv:2006.05990).
    """

    hidden: Sequence[int]
    outputs: int
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map float32[..., F] to float32[..., outputs]."""
        for width in self.hidden:
            x = nn.swish(nn.Dense(width, kernel_init=nn.initializers.lecun_uniform())(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.orthogonal(self.output_scale))(x)


class Predictor(nn.Module):
    """Predicts what the policy does not see from the features that it uses.

    It adds its error to the loss (`vnl_ppo.policy.apply_in_training`), so that gradients teach the
    features what they have to tell: an auxiliary task (Jaderberg et al. 2017, arXiv:1611.05397).
    With targets y, normalised as observations are, and predictions p from the features,

        L = weight * E[(p - y)^2].

    A target that is NaN is not known: its error counts as 0 in L. The error and the R^2 that are
    logged are of those that are known, of each device's part of a minibatch by itself.

    Attributes:
        weight: of the error in the loss.
        hidden: the widths of the hidden layers.
    """

    weight: float
    hidden: Sequence[int] = (64,)

    @nn.compact
    def __call__(self, features: jax.Array, targets: Mapping[str, jax.Array]) -> None:
        """Predict from float32[..., F] each of the targets, float32[..., n] by name."""
        for name, target in targets.items():
            predicted = Head(self.hidden, target.shape[-1], name=name)(features)
            known = jnp.isfinite(target)
            target = jnp.where(known, target, 0)
            known_mean = partial(jnp.mean, where=known)
            error = jnp.where(known, jnp.square(predicted - target), 0)
            # Over all, not over those that are known: of these each device may have another number,
            # and the mean of the devices' losses would not be the loss of one.
            self.sow("losses", f"{name}_loss", self.weight * error.mean())
            self.sow("metrics", f"{name}_error", known_mean(error))
            centred = target - known_mean(target, axis=range(target.ndim - 1))
            variance = jnp.maximum(known_mean(jnp.square(centred)), 1e-6)
            self.sow("metrics", f"{name}_r2", 1 - known_mean(error) / variance)


class ActorCritic(nn.Module):
    """Maps an observation to the policy's logits and a value.

    Attributes:
        action_size: number of entries of an action.
        encoders: modules by the name of their leaf (see `vnl_ppo.observations`); a float leaf
            without an encoder goes to the heads unchanged.
        policy_hidden, value_hidden: the widths of the heads' hidden layers.
        share_encoders: whether policy and value share their encoders; else each has its own.
        policy_leaves, value_leaves: the leaves that each of them uses; None for all. A critic may
            use leaves that the actor does not (Pinto et al. 2018, arXiv:1710.06542).
        predict_leaves: vectors that the policy's features have to predict, see `Predictor`; the
            policy does not get them, unless they are those of a later step.
        predict_weight: weight of the prediction's error in the loss.
        predict_horizon: how many steps later the predicted leaves are; 0 for those of the same
            step.
        frozen_leaves: leaves whose encoders are not trained.
        core: a recurrent module between encoders and heads, such as `vnl_ppo.recurrence.GRU`; None
            for none. If policy and value have different features, each has its own core.
        state_dependent_std: whether the scales of actions are outputs of the policy head; else
            they are parameters that do not depend on the observation.
        distribution: the logits' distribution, a name in `vnl_ppo.distributions.DISTRIBUTIONS`.
        encoder_dtype: dtype in which encoders compute, such as bfloat16. Their parameters, and
            everything else, stay float32.
    """

    action_size: int
    encoders: Mapping[str, nn.Module]
    policy_hidden: Sequence[int] = (256, 256)
    value_hidden: Sequence[int] = (256, 256)
    share_encoders: bool = True
    policy_leaves: Sequence[str] | None = None
    value_leaves: Sequence[str] | None = None
    core: nn.Module | None = None
    state_dependent_std: bool = True
    distribution: str = "tanh_normal"
    encoder_dtype: Any = jnp.float32
    predict_leaves: Sequence[str] = ()
    predict_weight: float = 0.5
    predict_horizon: int = 0
    frozen_leaves: Sequence[str] = ()

    @property
    def draws(self) -> bool:
        """Whether an encoder draws random numbers, see `takes_key`."""
        return any(map(takes_key, self.encoders.values()))

    @property
    def one_stream(self) -> bool:
        """Whether policy and value are heads on the same features."""
        return self.share_encoders and self.policy_leaves == self.value_leaves

    def setup(self) -> None:
        """Create the submodules; their parameters are named after these attributes."""
        self.shared = dict(self.encoders)
        if not self.share_encoders:
            self.value_encoders = {k: e.clone() for k, e in self.encoders.items()}
        if self.core is not None and not self.one_stream:
            self.value_core = self.core.clone()
        if self.state_dependent_std:
            self.policy = Head(self.policy_hidden, 2 * self.action_size, output_scale=0.01)
        else:
            self.policy = Head(self.policy_hidden, self.action_size, output_scale=0.01)
            self.raw_scale = self.param("raw_scale", nn.initializers.zeros, (self.action_size,))
        self.value = Head(self.value_hidden, 1)
        if self.predict_leaves:
            self.predictor = Predictor(self.predict_weight)

    @nn.nowrap
    def initial_memory(self, num_envs: int) -> Any:
        """Return the memory at the start of episodes, leaves [num_envs, ...] or `()`."""
        if self.core is None:
            return ()
        streams = ("policy",) if self.one_stream else ("policy", "value")
        return {k: self.core.initial_memory(num_envs) for k in streams}

    def __call__(
        self,
        obs: Leaves,
        memory: Any = (),
        end: jax.Array | None = None,
        keys: jax.Array | None = None,
        targets: Leaves | None = None,
    ):
        """Compute the policy's logits and the value.

        Args:
            obs: leaves [..., *leaf shape] by name, any leading batch axes; [B, T, ...] for unrolls.
            memory: the memory before the step, for a network with a core (see `initial_memory`).
            end: bool[B, T], for unrolls of a network with a core (see `recurrence.GRU`).
            keys: PRNG keys [...], one for each observation, for encoders that draw random numbers;
                None to draw none. Policy and value function get the same numbers.
            targets: the leaves to predict, float32[..., n] by name; None for those of `obs`.

        Returns:
            logits of `vnl_ppo.distributions`, float32[..., 2 * action_size]; value, float32[...];
            with a core also the memory afterwards.

        Raises:
            ValueError: the network has a core, but no memory is given.
        """
        acting = sorted(obs if self.policy_leaves is None else self.policy_leaves)
        valuing = sorted(obs if self.value_leaves is None else self.value_leaves)
        if self.share_encoders:
            # Each leaf once: running an encoder again for the value function would double its cost
            # and its own losses.
            encoded = valued = self._encoded(self.shared, obs, {*acting, *valuing}, keys)
        else:
            encoded = self._encoded(self.shared, obs, acting, keys)
            valued = self._encoded(self.value_encoders, obs, valuing, keys)
        actor = _side_by_side(encoded, acting)
        critic = actor if self.one_stream else _side_by_side(valued, valuing)
        if self.core is None:
            self._predict(actor, targets or obs)
            return self._logits(actor), self.value(critic)[..., 0]

        if not memory:
            raise ValueError("this network has a core; pass it a memory, see `initial_memory`")
        before, memory = memory, {}
        actor, memory["policy"] = self.core(actor, before["policy"], end)
        if self.one_stream:
            critic = actor
        else:
            critic, memory["value"] = self.value_core(critic, before["value"], end)
        self._predict(actor, targets or obs)
        return self._logits(actor), self.value(critic)[..., 0], memory

    def _predict(self, features: jax.Array, targets: Leaves) -> None:
        if self.predict_leaves:
            self.predictor(features, {k: targets[k] for k in self.predict_leaves})

    def _encoded(
        self,
        encoders: Mapping[str, nn.Module],
        obs: Leaves,
        leaves: Collection[str],
        keys: jax.Array | None,
    ) -> Leaves:
        """Return the features of leaves by name; those without an encoder stay as they are."""

        def encoded(k: str) -> jax.Array:
            if k not in encoders:
                return obs[k]
            given = [obs[k]]
            if keys is not None and takes_key(encoders[k]):
                given.append(fold_in(keys, sorted(encoders).index(k)))
            if self.encoder_dtype == jnp.float32 or self.is_initializing():
                x = encoders[k](*given)
            else:
                x = in_lower_precision(encoders[k], self.encoder_dtype, *given)
            return jax.lax.stop_gradient(x) if k in self.frozen_leaves else x

        return {k: encoded(k) for k in sorted(leaves)}

    def _logits(self, features: jax.Array) -> jax.Array:
        output = self.policy(features)
        if self.state_dependent_std:
            return output
        return jnp.concatenate([output, jnp.broadcast_to(self.raw_scale, output.shape)], axis=-1)


def _side_by_side(encoded: Leaves, leaves: Sequence[str]) -> jax.Array:
    return jnp.concatenate([encoded[k].astype(jnp.float32) for k in leaves], axis=-1)


def takes_key(module: nn.Module) -> bool:
    """Return whether a module draws random numbers: its `__call__` takes an argument `key`.

    It is then called as (x [...], keys [...]) in training, with a PRNG key for each sample, and as
    (x) by a policy that acts deterministically.
    """
    return "key" in inspect.signature(type(module).__call__).parameters


def in_lower_precision(module: nn.Module, dtype: Any, *given: jax.Array) -> jax.Array:
    """Apply a bound module to what is given so that its layers compute in `dtype`.

    Parameters stay float32; they and the inputs of each layer are cast when it is called. A layer
    with a dtype of its own keeps it.
    """
    lower = lambda tree: jax.tree.map(
        lambda x: x.astype(dtype) if hasattr(x, "dtype") and x.dtype == jnp.float32 else x, tree
    )

    def on_lower_inputs(layer, args, kwargs, context):
        return layer(*lower(args), **lower(kwargs))

    with nn.intercept_methods(on_lower_inputs):
        return nn.map_variables(lambda module, *x: module(*x), "params", lower)(module, *given)


def check_network(observation_spec: Any, network: ActorCritic) -> None:
    """Raise a ValueError unless the network can be applied to observations of this spec."""
    names = sorted(flatten(observation_spec))
    for field in ("policy_leaves", "value_leaves"):
        wanted = getattr(network, field)
        if wanted is None:
            continue
        if unknown := sorted(set(wanted) - set(names)):
            raise ValueError(f"{field} has {unknown}; the observation's leaves are {names}")
        if not wanted:
            raise ValueError(
                f"{field} is empty; name at least one leaf of {names}, or leave it out for all"
            )
    leaves = flatten(observation_spec)
    seen = names if network.policy_leaves is None else network.policy_leaves
    for name in network.predict_leaves:
        if name not in leaves:
            raise ValueError(f"predict_leaves has {name!r}; the observation's leaves are {names}")
        if name in seen and not network.predict_horizon:
            raise ValueError(
                f"predict_leaves has {name!r}, which the policy sees; leave it out of "
                f"predict_leaves or of policy_leaves, or predict it in advance with predict_horizon"
            )
        if len(leaves[name].shape) != 1 or not jnp.issubdtype(leaves[name].dtype, jnp.floating):
            raise ValueError(
                f"predict_leaves has {name!r} ({leaves[name].dtype}{list(leaves[name].shape)}); "
                f"what is predicted has to be a vector of floats"
            )
    if network.predict_horizon < 0 or (network.predict_horizon and not network.predict_leaves):
        raise ValueError(
            f"predict_horizon is {network.predict_horizon}; it has to be 0 or more, and 0 unless "
            f"predict_leaves names what to predict"
        )
    if unknown := sorted(set(network.frozen_leaves) - set(network.encoders)):
        raise ValueError(
            f"{unknown[0]!r} has no encoder to freeze; those with one are "
            f"{', '.join(sorted(network.encoders)) or 'none'}"
        )
    check_encoders(observation_spec, network.encoders, _used_leaves(names, network))
    distributions.of(network)


def check_encoders(
    observation_spec: Any,
    encoders: Mapping[str, nn.Module],
    used: Collection[str] | None = None,
) -> None:
    """Raise a ValueError unless every leaf in use has an encoder or is a vector of floats.

    Args:
        observation_spec: shape and dtype of every leaf of the environment's observation.
        encoders: modules by the name of their leaf.
        used: names of the leaves in use; None for all.
    """
    leaves = flatten(observation_spec)
    for key, spec in leaves.items():
        if key in encoders or (used is not None and key not in used):
            continue
        if not (jnp.issubdtype(spec.dtype, jnp.floating) or spec.dtype == bool):
            raise ValueError(
                f"the observation's leaf {key!r} ({spec.dtype}{list(spec.shape)}) has no encoder; "
                f"give it one (for instance nature_cnn) or leave it out of the observation"
            )
        if len(spec.shape) != 1:
            raise ValueError(
                f"the observation's leaf {key!r} has shape {list(spec.shape)}; without an encoder "
                f"it has to be a vector"
            )
    if unknown := sorted(set(encoders) - set(leaves)):
        raise ValueError(
            f"encoders are given for {unknown}, which the observation does not have; its leaves "
            f"are {sorted(leaves)}"
        )


def _used_leaves(names: Sequence[str], network: ActorCritic) -> set[str]:
    both = (network.policy_leaves, network.value_leaves)
    return {k for leaves in both for k in (names if leaves is None else leaves)}
