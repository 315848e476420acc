"""Experiments: the only place that joins worlds, encoders and learning."""
