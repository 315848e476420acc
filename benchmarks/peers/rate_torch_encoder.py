"""Time the Nature CNN in PyTorch, in memory format channels last, on all cores.

    python rate_torch_encoder.py SIZE FEATURES FORWARD_BATCH GRADIENT_BATCH ROUNDS

The last line is a JSON object with samples per second, medians over rounds. Pixels are given as
bytes, and turned into floats in the time that is measured, as in `benchmarks/encoder.py`.
"""

import json
import os
import statistics
import sys
import time

import torch
from torch import nn


def main() -> None:
    """Measure and print."""
    size, features, forward_batch, gradient_batch, rounds = map(int, sys.argv[1:])
    torch.set_num_threads(os.cpu_count() or 1)
    convolutions = [nn.Conv2d(3, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU()]
    convolutions += [nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()]
    network = nn.Sequential(*convolutions, nn.LazyLinear(features), nn.ReLU())
    network(torch.zeros(1, 3, size, size))  # gives the last layer its shape
    network = network.to(memory_format=torch.channels_last)

    def features_of(images: torch.Tensor) -> torch.Tensor:
        return network(images.permute(0, 3, 1, 2).float() / 255)

    def forward(images: torch.Tensor) -> None:
        with torch.no_grad():
            features_of(images)

    def gradient(images: torch.Tensor) -> None:
        network.zero_grad()
        features_of(images).square().mean().backward()

    rates = {}
    for work, batch in ((forward, forward_batch), (gradient, gradient_batch)):
        images = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
        times = []
        # The first calls choose kernels.
        for _ in range(3 + rounds):
            start = time.perf_counter()
            work(images)
            times.append(time.perf_counter() - start)
        rates[work.__name__] = round(batch / statistics.median(times[3:]))
    print(json.dumps({"samples_per_second": rates, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
