"""Find activation functions by name, so that a spec can choose one."""

from collections.abc import Callable

import flax.linen as nn
import jax

from encoders.registry import nearest

Activation = Callable[[jax.Array], jax.Array]
ACTIVATIONS: dict[str, Activation] = {
    "elu": nn.elu,
    "gelu": nn.gelu,
    "leaky_relu": nn.leaky_relu,
    "relu": nn.relu,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "tanh": nn.tanh,
}


def activation(chosen: str | Activation) -> Activation:
    """Return the activation function of a name; a function is returned as it is.

    Raises:
        ValueError: the name is unknown.
    """
    if not isinstance(chosen, str):
        return chosen
    if chosen not in ACTIVATIONS:
        raise ValueError(
            f"unknown activation {chosen!r};{nearest(chosen, ACTIVATIONS)} there are "
            f"{', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[chosen]
