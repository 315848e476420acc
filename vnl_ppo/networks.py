"""The actor-critic: an encoder per sense, their features side by side, two heads."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from vnl_ppo.env import Observation


class Head(nn.Module):
    """A multilayer perceptron with a linear output.

    Attributes:
        hidden: the widths of the hidden layers.
        outputs: the width of the output.
        output_scale: gain of the output layer's orthogonal kernel. A policy starts close to its
            prior with 0.01 (Andrychowicz et al. 2021, arXiv:2006.05990, section 3.2).
    """

    hidden: Sequence[int]
    outputs: int
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float32[..., F] -> float32[..., outputs]."""
        for width in self.hidden:
            x = nn.swish(nn.Dense(width, kernel_init=nn.initializers.lecun_uniform())(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.orthogonal(self.output_scale))(x)


class ActorCritic(nn.Module):
    """Maps an observation to the policy's logits and a value.

    Attributes:
        action_size: entries of an action.
        encoders: a module for each leaf that needs one; a float leaf without one goes to the heads
            as it is.
        policy_hidden, value_hidden: the widths of the heads' hidden layers.
        share_encoders: whether policy and value see the same features, or each its own.
    """

    action_size: int
    encoders: Mapping[str, nn.Module]
    policy_hidden: Sequence[int] = (256, 256)
    value_hidden: Sequence[int] = (256, 256)
    share_encoders: bool = True

    def setup(self) -> None:
        """Name the parts."""
        self.shared = dict(self.encoders)
        if not self.share_encoders:
            self.value_encoders = {k: e.clone() for k, e in self.encoders.items()}
        self.policy = Head(self.policy_hidden, 2 * self.action_size, output_scale=0.01)
        self.value = Head(self.value_hidden, 1)

    def __call__(self, obs: Observation) -> tuple[jax.Array, jax.Array]:
        """Act and judge.

        Args:
            obs: leaves [..., *leaf shape], any leading batch axes.

        Returns:
            float32[..., 2 * action_size], the logits of `vnl_ppo.distributions`; float32[...], the
            value.
        """
        seen = _features(self.shared, obs)
        judged = seen if self.share_encoders else _features(self.value_encoders, obs)
        return self.policy(seen), self.value(judged)[..., 0]


def _features(encoders: Mapping[str, nn.Module], obs: Observation) -> jax.Array:
    parts = [encoders[k](x) if k in encoders else x for k, x in sorted(obs.items())]
    return jnp.concatenate(parts, axis=-1)


def check_encoders(
    observation_spec: Mapping[str, jax.ShapeDtypeStruct], encoders: Mapping[str, nn.Module]
) -> None:
    """Raise a ValueError unless every leaf can reach the heads."""
    for key, spec in observation_spec.items():
        if key in encoders:
            continue
        if not jnp.issubdtype(spec.dtype, jnp.floating):
            raise ValueError(
                f"the observation's leaf {key!r} ({spec.dtype}{list(spec.shape)}) has no encoder; "
                f"give it one (for instance nature_cnn) or leave it out of the observation"
            )
        if len(spec.shape) != 1:
            raise ValueError(
                f"the observation's leaf {key!r} has shape {list(spec.shape)}; without an encoder "
                f"it has to be a vector"
            )
    if unknown := sorted(set(encoders) - set(observation_spec)):
        raise ValueError(
            f"encoders are given for {unknown}, which the observation does not have; its leaves "
            f"are {sorted(observation_spec)}"
        )
