"""A Flax-first PPO for agents with structured observations."""

import os

# XLA's CPU thread pool deadlocks on hosts with few cores (jaxlib 0.10.2: a vmapped MJX step in a
# scan, 512 environments, 2 cores). More threads than cores avoid it; JAX reads this when it starts
# its back end, so it has to be set before the first array.
os.environ.setdefault("PJRT_NPROC", str(max(8, os.cpu_count() or 1)))
