"""Time this project's Nature CNN against the same layers run by XLA's own convolutions.

Both have the same parameters. Each runs inside a jitted `lax.scan` over minibatches gathered by
index from a buffer of uint8 images, forward and gradient, as in training; `single` is one call
outside a loop. Rounds alternate between the two, and ratios are medians over rounds. With --torch,
the same layers are timed in PyTorch afterwards, in a virtual environment of its own made from
peers/sb3.txt. The last line is one JSON object.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping

os.environ.setdefault("PJRT_NPROC", str(max(8, os.cpu_count() or 1)))

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from peers.processes import finish, python_of, start

from encoders import NatureCNN

LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


class PlainNatureCNN(nn.Module):
    """The same network written with `nn.Conv` alone."""

    features: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """uint8[B, H, W, C] to float32[B, features]."""
        x = image.astype(jnp.float32) / 255
        for filters, size, stride in LAYERS:
            x = nn.relu(nn.Conv(filters, (size, size), (stride, stride), "VALID")(x))
        return nn.relu(nn.Dense(self.features)(x.reshape(x.shape[0], -1)))


def programs(network: nn.Module) -> dict[str, Callable]:
    """One minibatch of work: `(params, images) -> pytree`."""

    def gradient(params, images):
        return jax.grad(lambda p: jnp.mean(jnp.square(network.apply(p, images))))(params)

    return {"forward": network.apply, "gradient": gradient}


def over_minibatches(work: Callable) -> Callable:
    """Jits `work` in a scan over minibatches; returns its results, stacked.

    They are kept, as training keeps them: XLA runs a plain network whose output is summed to one
    number several times faster than one whose output is wanted.
    """

    def loop(params, images, indices):
        return lax.scan(lambda _, index: (None, work(params, images[index])), None, indices)[1]

    return jax.jit(loop)


def seconds(call: Callable, arguments: tuple) -> float:
    """Wall-clock seconds of one call, results waited for."""
    start = time.perf_counter()
    jax.block_until_ready(call(*arguments))
    return time.perf_counter() - start


def compare(calls: Mapping[str, Callable], arguments: tuple, samples: int, rounds: int) -> dict:
    """Samples per second of each call, and how many times the first is as fast as the second."""
    for call in calls.values():
        jax.block_until_ready(call(*arguments))
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call, arguments))
    ours, theirs = times.values()
    rates = {name: round(samples / float(np.median(ts))) for name, ts in times.items()}
    return {
        "samples_per_second": rates,
        "ratio": round(float(np.median(np.divide(theirs, ours))), 2),
    }


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--forward-batch", type=int, default=256)
    parser.add_argument("--gradient-batch", type=int, default=256)
    parser.add_argument("--minibatches", type=int, default=2, help="steps of the scan")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch", action="store_true", help="time PyTorch too")
    options = parser.parse_args()

    generator = np.random.default_rng(0)
    shape = (2 * max(options.forward_batch, options.gradient_batch), options.size, options.size, 3)
    images = jnp.asarray(generator.integers(0, 256, shape, dtype=np.uint8))
    networks = {
        "ours": NatureCNN(options.features),
        "plain": PlainNatureCNN(options.features),
    }
    params = networks["plain"].init(jax.random.key(0), images[:1])

    report: dict = {"ratio": {}, "samples_per_second": {}, "single": {}}
    batches = {"forward": options.forward_batch, "gradient": options.gradient_batch}
    for kind, batch in batches.items():
        work = {name: programs(network)[kind] for name, network in networks.items()}
        indices = jnp.asarray(generator.integers(0, shape[0], (options.minibatches, batch)))
        looped = compare(
            {name: over_minibatches(w) for name, w in work.items()},
            (params, images, indices),
            math.prod(indices.shape),
            options.rounds,
        )
        single = compare(
            {name: jax.jit(w) for name, w in work.items()},
            (params, images[:batch]),
            batch,
            options.rounds,
        )
        report["ratio"][kind] = looped["ratio"]
        report["samples_per_second"][kind] = looped["samples_per_second"]
        report["single"][kind] = single
    if options.torch:
        # A round of ours is several minibatches, one of PyTorch's is one.
        rounds = options.rounds * options.minibatches
        given = options.size, options.features, *batches.values(), rounds
        run = start(python_of("sb3"), "rate_torch_encoder.py", *given)
        report["torch"] = theirs = json.loads(finish(run).splitlines()[-1])
        theirs["ratio"] = {
            kind: round(report["samples_per_second"][kind]["ours"] / rate, 2)
            for kind, rate in theirs["samples_per_second"].items()
        }
    report["image"] = f"{options.size}x{options.size}x3"
    report["features"] = options.features
    report["batch"] = batches
    report["device"] = f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    print(json.dumps(report))


if __name__ == "__main__":
    main()
