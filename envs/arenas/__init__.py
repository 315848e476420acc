"""Arenas, one file each."""
