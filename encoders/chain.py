"""Define a chain of modules, each of which gets what the one before it returns."""

import flax.linen as nn
import jax

from encoders.randomness import fold_in, takes_key


class Chain(nn.Module):
    """Applies stages in order, such as `gray | edges | nature_cnn`.

    Attributes:
        stages: the modules, from the image up; their parameters are in `stages_0`, `stages_1`, ...
    """

    stages: tuple[nn.Module, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return what the last stage makes of [..., *leaf shape], with the same leading axes."""
        for stage in self.stages:
            x = stage(x)
        return x


class RandomChain(Chain):
    """A chain with stages that draw random numbers, see `encoders.randomness`."""

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return what the last stage makes of [..., *leaf shape]; `key` is [...], None for none."""
        for number, stage in enumerate(self.stages):
            given = () if key is None or not takes_key(stage) else (fold_in(key, number),)
            x = stage(x, *given)
        return x
