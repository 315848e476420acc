"""Time every encoder of images, and chains, against the same layers by XLA's own convolutions.

Both have the same parameters and run as in `benchmarks/encoder.py`: forward and gradient inside a
jitted `lax.scan` over minibatches, alternately. Padding stays apart from the convolutions in both.
`mflop_forward` are millions of floating-point operations for an image, as XLA counts them in the
plain layers, and `mib_gradient` the memory in MiB for the values in between of one minibatch's
gradient. With --rounds 0 nothing is timed. The last line is one JSON object.
"""

import argparse
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("PJRT_NPROC", str(max(8, os.cpu_count() or 1)))
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from encoder import compare, over_minibatches, programs
from jax import lax

from encoders import layers, make_encoder, nature_cnn, vit

SPECS = ("nature_cnn", "impala", "alexnet", "resnet", "vit", "mlp", "gray | edges | nature_cnn",
         "gray | gabor | impala")  # fmt: skip


@contextmanager
def convolutions_of_xla() -> Iterator[None]:
    """Let encoders that are traced meanwhile use XLA's convolutions."""
    ours = layers.convolve

    def theirs(image, kernel, strides, padding, **options):
        image = image.astype(kernel.dtype)
        return lax.conv_general_dilated(image, kernel, strides, padding, **options)

    try:
        for module in (layers, nature_cnn, vit):
            module.convolve = theirs
        yield
    finally:
        for module in (layers, nature_cnn, vit):
            module.convolve = ours


def operations(network: nn.Module, params: Any, image: jax.Array) -> float:
    """Return floating-point operations, forward, by the plain layers, of one image [1, ...]: XLA
    counts the body of a loop over images once."""
    with convolutions_of_xla():
        lowered = jax.jit(network.apply).lower(params, image)
        return lowered.cost_analysis()["flops"]


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specs", nargs="+", default=SPECS)
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--minibatches", type=int, default=2, help="steps of the scan")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    generator = np.random.default_rng(0)
    shape = (2 * options.batch, options.size, options.size, 3)
    images = jnp.asarray(generator.integers(0, 256, shape, dtype=np.uint8))
    indices = jnp.asarray(generator.integers(0, len(images), (options.minibatches, options.batch)))
    report: dict = {}
    for spec in options.specs:
        network = make_encoder(spec)
        params = jax.jit(network.init)(jax.random.key(0), images[:1])
        given = (params, images, indices)
        row = {"parameters": sum(x.size for x in jax.tree.leaves(params))}
        for kind, work in programs(network).items():
            calls = {"ours": over_minibatches(work).lower(*given).compile()}
            with convolutions_of_xla():
                # Another function, or JAX would return the trace of the first.
                again = over_minibatches(lambda p, x, work=work: work(p, x))
                calls["plain"] = again.lower(*given).compile()
            if options.rounds:
                row[kind] = compare(calls, given, math.prod(indices.shape), options.rounds)
            if kind == "gradient":
                used = calls["ours"].memory_analysis().temp_size_in_bytes
                row["mib_gradient"] = round(used / 2**20, 1)
        row["mflop_forward"] = round(operations(network, params, images[:1]) / 1e6, 2)
        report[spec] = row
        print(spec, row, flush=True)
    about = {"image": f"{options.size}x{options.size}x3", "batch": options.batch}
    about["device"] = f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    print(json.dumps({**about, "encoders": report}))


if __name__ == "__main__":
    main()
