"""Walkers: bodies, one file each."""
