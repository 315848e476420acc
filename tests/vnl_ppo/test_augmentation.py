import jax
import jax.numpy as jnp
import numpy as np

from vnl_ppo.augmentation import random_shift


def drawn(shape):
    return jax.random.randint(jax.random.key(0), shape, 0, 256).astype(jnp.uint8)


def shifts_of(original, moved, limit):
    """All shifts by which `original` becomes `moved`, its edge repeated."""
    padded = np.pad(original, ((limit, limit), (limit, limit), (0, 0)), mode="edge")
    height, width = original.shape[:2]
    return {
        (i - limit, j - limit)
        for i in range(2 * limit + 1)
        for j in range(2 * limit + 1)
        if np.array_equal(padded[i : i + height, j : j + width], moved)
    }


def test_each_image_is_shifted_by_itself_and_its_edge_repeated():
    images = drawn((200, 6, 5, 3))
    moved = np.asarray(random_shift(jax.random.key(1), {"v": images}, 1, 2)["v"])
    found = [shifts_of(np.asarray(a), b, 2) for a, b in zip(images, moved, strict=True)]
    assert all(len(shifts) == 1 for shifts in found)
    # All 25 shifts within two pixels occur, none beyond.
    assert len(set.union(*found)) == 25


def test_the_images_of_an_unroll_move_together():
    unrolls = jnp.repeat(drawn((4, 1, 6, 5, 3)), 3, axis=1)
    moved = random_shift(jax.random.key(1), unrolls, 2, 2)
    assert (moved == moved[:, :1]).all()
    assert (moved != unrolls).any()


def test_what_is_no_image_stays():
    obs = {
        "proprio": jnp.ones((4, 5, 5, 3)),
        "touch": drawn((4, 7)),
        "depth": drawn((4, 1, 2, 3, 4)),
    }
    moved = random_shift(jax.random.key(1), obs, 1, 2)
    jax.tree.map(np.testing.assert_array_equal, moved, obs)
