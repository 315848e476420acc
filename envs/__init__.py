"""Worlds: an arena, a walker and a task behind reset and step."""

import warnings

# dm_control looks for a display as it is imported; nothing here needs one.
warnings.filterwarnings("ignore", message=".*DISPLAY environment variable is missing")
