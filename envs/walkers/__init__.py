"""Walkers, the bodies that act, one file each."""
