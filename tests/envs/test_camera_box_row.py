"""The row of platforms against slabs in float64, box by box, from anywhere and to all sides."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envs.camera.box_row import row_hit
from envs.camera.primitives import FAR
from envs.camera.scene import Row

NEAR = 0.01
ROW = Row(y=(-2.5, 2.5), z=(-1.0, 0.0), surface=0, repeats=(0.5, 0.5))
PLATFORMS = np.array([[-3, -1], [7, 7], [0, 1.5], [2, 2.5], [9, 4], [2.7, 6]], np.float32)
"""Out of order; two of them are not drawn."""


def nearest(origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the depths at which rays enter the nearest box of those that they enter after NEAR."""
    depths = np.full(len(directions), np.inf)
    for start, end in PLATFORMS[PLATFORMS[:, 1] > PLATFORMS[:, 0]].astype(float):
        low, high = np.array([[start, end], ROW.y, ROW.z]).T
        crossings = np.sort(np.stack([low - origin, high - origin])[:, None] / directions, 0)
        enter, leave = crossings[0].max(1), crossings[1].min(1)
        hit = (enter < leave) & (enter > NEAR)
        depths = np.where(hit, np.minimum(depths, enter), depths)
    return depths


@settings(deadline=None, max_examples=40)
# So near to a box that its face is not drawn: what is behind it is.
@example(origin=(0.0, 0.0, 0.0039), seed=0)
@example(origin=(1.4, 0.0, 0.002), seed=1)
@given(
    origin=st.tuples(st.floats(-6, 10), st.floats(-5, 5), st.floats(-2, 3)),
    seed=st.integers(0, 2**31),
)
def test_a_ray_enters_the_nearest_box(origin, seed):
    directions = np.random.default_rng(seed).normal(size=(512, 3))
    # The lowest bits of a start are the texture's: rays that graze an edge may go either way.
    rays = [directions[:, i].astype(np.float32) for i in range(3)]
    at = np.array(origin, np.float32)
    ours = np.asarray(row_hit(ROW, PLATFORMS, rays, at, NEAR).depth)
    theirs = nearest(at.astype(float), np.stack(rays, 1).astype(float))
    missed = ours >= FAR
    assert (missed == np.isinf(theirs)).mean() > 0.99
    both = ~missed & np.isfinite(theirs)
    same = np.abs(ours[both] - theirs[both]) <= 1e-4 + 1e-3 * theirs[both]
    assert not both.any() or same.mean() > 0.99
