import jax.numpy as jnp
import pytest

from vnl_ppo.observations import flatten


def test_leaves_are_named_by_their_path():
    nested = {"eyes": {"left": 1, "right": 2}, "legs": (3, 4), "proprio": 5}
    assert flatten(nested) == {
        "eyes.left": 1, "eyes.right": 2, "legs.0": 3, "legs.1": 4, "proprio": 5
    }  # fmt: skip


def test_a_flat_dictionary_stays_as_it_is_and_an_array_gets_a_name():
    assert flatten({"proprio": 1, "vision": 2}) == {"proprio": 1, "vision": 2}
    assert list(flatten(jnp.ones(3))) == ["obs"]


def test_leaves_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="two leaves.*'a.b'"):
        flatten({"a": {"b": 1}, "a.b": 2})
