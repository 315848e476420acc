"""Provide the builder that runs of release 0.1 name in their config.json."""

from experiments.settings import build_from

__all__ = ["build_from"]
