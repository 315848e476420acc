"""Define a chain of modules, each of which gets what the one before it returns."""

import flax.linen as nn
import jax


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
