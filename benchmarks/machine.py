"""Describe the machine that a benchmark ran on, for its report."""

import os
import platform
from importlib import metadata

import jax

PACKAGES = ("jax", "jaxlib", "mujoco")


def machine() -> dict[str, object]:
    """Device, cores, architecture and versions."""
    return {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
