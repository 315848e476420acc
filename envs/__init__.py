"""Worlds: an arena, a walker and a task behind reset and step."""
