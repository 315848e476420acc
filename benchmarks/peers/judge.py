"""Evaluate saved policies: the mean return of each over whole episodes, acting by its mode.

    python judge.py brax:ant EPISODES FOLDER...

One judge for both sides. The last line is one JSON object: for each folder, returns by step.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from envs import foreign

EPISODE_LENGTH = 1000


def main(name: str, episodes: int, folders: list[Path]) -> None:
    """Play every policy in the same first states."""
    env = foreign.make(name)

    def act(policy: dict[str, jax.Array], obs: jax.Array) -> jax.Array:
        x = (obs - policy["mean"]) / policy["deviation"]
        layers = sum(k.startswith("kernel") for k in policy)
        for i in range(layers):
            x = x @ policy[f"kernel_{i}"] + policy[f"bias_{i}"]
            if i < layers - 1:
                x = jax.nn.swish(x)
        # The rest are the scales of the noise.
        return jnp.tanh(x[: env.action_size])

    @jax.jit
    def returns(policy: dict[str, jax.Array]) -> jax.Array:
        def step(carry, _):
            state, alive, total = carry
            state = jax.vmap(env.step)(state, jax.vmap(act, (None, 0))(policy, state.obs["state"]))
            # An episode that has ended may simulate on to what is no number.
            total += jnp.where(alive, state.reward, 0)
            return (state, alive & (state.done == 0), total), None

        first = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), episodes))
        begin = first, jnp.ones(episodes, bool), jnp.zeros(episodes)
        return jax.lax.scan(step, begin, length=EPISODE_LENGTH)[0][2]

    results: dict[str, dict[int, float]] = {}
    for folder in folders:
        results[str(folder)] = {}
        for path in sorted(folder.glob("*.npz"), key=lambda path: int(path.stem)):
            mean = float(returns(dict(np.load(path))).mean())
            results[str(folder)][int(path.stem)] = mean
            print(folder, path.stem, round(mean), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [Path(folder) for folder in sys.argv[3:]])
