"""Mark tests that need an extra."""

from importlib.util import find_spec

import pytest

WARP = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("warp") is None, reason="needs the extra warp"),
]
"""Marks tests of the back end `warp`, whose kernels take minutes to compile."""
