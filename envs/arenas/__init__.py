"""Arenas: places, one file each."""
