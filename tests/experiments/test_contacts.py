"""Test which bodies of an animal touch something, in a model whose distances are known by hand."""

import mujoco
import numpy as np

from experiments.contacts import Contacts

# A ball of radius 0.1 that carries a smaller one inside it, above a floor, and a box to the right.
XML = """
<mujoco><worldbody>
  <geom type="plane" size="5 5 1"/>
  <geom type="box" size=".5 .5 .5" pos="1 0 .5"/>
  <body name="ball" pos="0 0 1"><freejoint/><geom size=".1"/>
    <body name="rider" pos="0 0 .15"><joint type="slide" axis="0 0 1"/><geom size=".1"/></body>
  </body>
</worldbody></mujoco>
"""


def test_touching_what_is_not_the_animal():
    contacts = Contacts(mujoco.MjModel.from_xml_string(XML), root=1)
    assert contacts.names == ["ball", "rider"]
    # Position, rotation, and how far the rider has risen.
    at = lambda x, z, up: [x, 0, z, 1, 0, 0, 0, up]
    qpos = np.array([
        [at(0, 0.2, 0), at(0, 0.099, 0), at(0, 0.101, 0)],
        [at(0.401, 1.0, 0), at(0.401, 0.5, 0), at(0.401, 0.95, 0)],
    ])  # fmt: skip
    expected = [
        [[False, False], [True, False], [False, False]],  # the balls touch each other throughout
        [[True, False], [True, True], [True, False]],
    ]
    np.testing.assert_array_equal(contacts(qpos), expected)
