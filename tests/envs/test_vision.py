"""Test what does not take a picture: the gray levels of labels."""

import numpy as np
import pytest

from envs.vision import _grays


def test_each_thing_has_a_gray_level_of_its_own():
    grays = _grays(np.arange(254), 300)
    assert len(set(grays[:255].tolist())) == 255 and grays[-1] == 255
    with pytest.raises(ValueError, match="gray levels for 254 things, but this world has 255"):
        _grays(np.arange(255), 300)
