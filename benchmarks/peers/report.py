"""Report the rates and the memory of one side of a comparison. Runs on every side."""

import json
import resource
import statistics
from typing import Any

import jax


def resident_bytes() -> int:
    """The most that this process has had in memory so far (Linux counts in KiB)."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def planned_bytes(program: Any) -> int:
    """The peak of a compiled training iteration, a `jax.stages.Compiled`, as XLA plans it."""
    memory = program.memory_analysis()
    # What was donated comes out in its own place.
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return held - memory.alias_size_in_bytes + memory.temp_size_in_bytes


def report(rates: list[float], compile_seconds: float, program: Any, imported: int) -> None:
    """Print one JSON object as the last line.

    Args:
        rates: environment steps per second of each training iteration.
        compile_seconds: that it took to make `program` first.
        program: a training iteration as XLA made it.
        imported: `resident_bytes()` after the imports.
    """
    result = {
        "env_steps_per_second": statistics.median(rates),
        "iterations": len(rates),
        "compile_seconds": compile_seconds,
        "planned_bytes": planned_bytes(program),
        "peak_resident_bytes": resident_bytes(),
        "imported_bytes": imported,
        "jax": jax.__version__,
    }
    print(json.dumps(result), flush=True)
