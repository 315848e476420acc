"""Compare the memory of a training step, from XLA's own analysis, with the notebook's buffers.

    python benchmarks/memory.py

The notebook that this project replaces flattened 240x320 pixels after 27 numbers and held three
buffers float32[2048, 5, 230427] of them. Here the same case, 2048 environments and unrolls of 5, is
compiled but not run; the sizes are read from the compiled program. The last line is one JSON
object.
"""

import argparse
import json
import math
import os
import re

import jax

import envs
from encoders import make_encoder
from envs.vision import VisionConfig
from vnl_ppo.config import PPOConfig
from vnl_ppo.footprint import compile_step, peak_bytes, size_of
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import make_ppo

GIB = 2**30
NOTEBOOK_BUFFERS = 3


def main() -> None:
    """Measure both image sizes and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-envs", type=int, default=2048)
    parser.add_argument("--unroll-length", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=64, help="environments rendered at once")
    parser.add_argument("--minibatch", type=int, default=160, help="transitions in a minibatch")
    arguments = parser.parse_args()

    cases = {}
    for height, width in ((240, 320), (64, 64)):
        cases[f"{height}x{width}"] = case = measure(height, width, arguments)
        print(f"{height}x{width}: {case}", flush=True)
    ratio = {
        f"notebook_vs_our_{what}{suffix}": case["notebook_gib"] / case[f"{what}_gib"]
        for what in ("observations", "peak")
        for suffix, case in (("", cases["240x320"]), ("_64x64", cases["64x64"]))
    }
    print(
        json.dumps(
            {
                "ratio": ratio,
                "cases": cases,
                "settings": vars(arguments),
                "versions": {"jax": jax.__version__},
                "device": jax.devices()[0].device_kind,
                "cores": os.cpu_count(),
            }
        )
    )


def measure(height: int, width: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Sizes in GiB for one image size."""
    batch_size = arguments.minibatch // arguments.unroll_length
    config = PPOConfig(
        num_envs=arguments.num_envs,
        unroll_length=arguments.unroll_length,
        batch_size=batch_size,
        num_minibatches=arguments.num_envs // batch_size,
        env_chunk_size=arguments.chunk,
    )
    env = envs.make("gap_ant", vision=VisionConfig(height=height, width=width))
    network = ActorCritic(env.action_size, {"vision": make_encoder("nature_cnn")})
    ppo = make_ppo(env, network, config, jax.local_devices()[:1])
    program = compile_step(ppo)
    memory = program.memory_analysis()

    one = size_of(env.observation_spec)
    transitions = config.num_envs * config.unroll_length
    # All that lives through a whole iteration: every transition's observation, and the current one
    # of each environment. Of a chunk at a time: the fresh one, and the last of one cut short.
    observations = one * (transitions + config.num_envs + 2 * config.env_chunk_size)
    flattened = 4 * (height * width * 3 + 27)
    return {
        "notebook_gib": NOTEBOOK_BUFFERS * transitions * flattened / GIB,
        "observations_gib": observations / GIB,
        "peak_gib": peak_bytes(program) / GIB,
        # In the program as XLA made it: all observations once as bytes, a minibatch as floats.
        "largest_uint8_gib": largest("u8", program.as_text()) / GIB,
        "largest_float32_gib": largest("f32", program.as_text()) / GIB,
        "temporary_gib": memory.temp_size_in_bytes / GIB,
        "arguments_gib": memory.argument_size_in_bytes / GIB,
        "aliased_gib": memory.alias_size_in_bytes / GIB,
    }


def largest(dtype: str, program: str) -> int:
    """Bytes of the largest array of a dtype in the text of a compiled program (HLO)."""
    shapes = set(re.findall(rf"\b{dtype}\[([\d,]+)\]", program))
    width = {"u8": 1, "f32": 4}[dtype]
    return width * max(math.prod(map(int, shape.split(","))) for shape in shapes)


if __name__ == "__main__":
    main()
