"""PPO in JAX and Flax for agents with structured observations."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vnl_ppo.loading import Builder, Policy

IMPORTED = time.monotonic()

# XLA's CPU thread pool deadlocks on hosts with few cores (jaxlib 0.10.2: a vmapped MJX step in a
# scan, 512 environments, 2 cores). More threads than cores avoid it. JAX reads this before it makes
# its first array.
os.environ.setdefault("PJRT_NPROC", str(max(8, os.cpu_count() or 1)))


def load(
    run_dir: str | Path, step: int | None = None, builder: "Builder | None" = None
) -> "Policy":
    """Load the trained policy of a run; see `vnl_ppo.loading.load`."""
    # Imported late: environments need only this package's protocol and should start fast.
    from vnl_ppo.loading import load

    return load(run_dir, step, builder)
