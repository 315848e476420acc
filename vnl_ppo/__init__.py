"""A Flax-first PPO for agents with structured observations."""

import os
import time
from typing import Any

IMPORTED = time.monotonic()

# XLA's CPU thread pool deadlocks on hosts with few cores (jaxlib 0.10.2: a vmapped MJX step in a
# scan, 512 environments, 2 cores). More threads than cores avoid it; JAX reads this when it starts
# its back end, so it has to be set before the first array.
os.environ.setdefault("PJRT_NPROC", str(max(8, os.cpu_count() or 1)))


def load(run_dir: Any, step: int | None = None) -> Any:
    """The trained policy of a run: see `vnl_ppo.loading.load`."""
    # Environments import this package for its protocol alone; they need not wait for the rest.
    from vnl_ppo.loading import load

    return load(run_dir, step)
