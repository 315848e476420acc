import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vnl_ppo.augmentation import augment, random_colours, random_cutout, random_shift
from vnl_ppo.config import PPOConfig, check


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


def colours(images, *limits, key=1):
    change = jax.jit(lambda key, images: random_colours(key, images, 1, *limits))
    return np.asarray(change(jax.random.key(key), images))


def test_brightness_adds_a_number_that_is_drawn_for_each_image():
    images = jnp.full((400, 2, 2, 3), 128, jnp.uint8)
    bright = colours(images, 0.2, 0.0, 0.0).astype(int) - 128
    assert (bright == bright[:, :1, :1, :1]).all()
    assert abs(bright.mean()) < 4 and -51 <= bright.min() < -48 and 48 < bright.max() <= 51
    # White stays white.
    assert colours(jnp.full((100, 2, 2, 1), 255, jnp.uint8), 1.0, 0.0, 0.0).max() == 255


def test_contrast_stretches_around_the_mean():
    images = jnp.tile(jnp.array([[[[100]], [[150]]]], jnp.uint8), (400, 1, 1, 1))
    low, high = colours(images, 0.0, 0.5, 0.0).astype(int)[:, :, 0, 0].T
    np.testing.assert_allclose(low + high, 250, atol=1)
    factors = (high - low) / 50
    assert 0.48 < factors.min() < 0.55 and 1.45 < factors.max() < 1.52


def test_hues_turn_while_gray_and_brightness_stay():
    images = jnp.tile(jnp.array([[[[120, 130, 125], [90, 90, 90]]]], jnp.uint8), (300, 1, 1, 1))
    turned = colours(images, 0.0, 0.0, 0.5).astype(float)[:, 0]
    np.testing.assert_allclose(turned[:, 1], 90, atol=1)
    luma = turned[:, 0] @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(luma, [120, 130, 125] @ np.array([0.299, 0.587, 0.114]), atol=1)
    assert len(np.unique(turned[:, 0], axis=0)) > 20
    # Other modalities have no hue.
    gray = drawn((5, 4, 4, 2))
    np.testing.assert_array_equal(colours(gray, 0.0, 0.0, 0.5), gray)


def test_cutout_covers_a_square_around_each_pixel_alike():
    images = jnp.zeros((3000, 6, 5, 2), jnp.uint8)
    cut = np.asarray(random_cutout(jax.random.key(1), {"v": images}, 1, 3)["v"])
    covered = (cut == 128).all(-1)
    assert (covered | (cut == 0).all(-1)).all()
    shapes = {(int(c.any(1).sum()), int(c.any(0).sum())) for c in covered}
    assert shapes == {(h, w) for h in (2, 3) for w in (2, 3)}  # some lie across an edge
    assert (covered.sum((1, 2)) == covered.any(2).sum(1) * covered.any(1).sum(1)).all()
    # A pixel in the middle is covered by 9 of 30 places of the square's middle.
    assert abs(covered[:, 2, 2].mean() - 9 / 30) < 0.03


ALL = PPOConfig(
    image_shift=1, image_brightness=0.1, image_contrast=0.1, image_hue=0.1, image_cutout=2
)


def test_unrolls_change_together_and_each_group_by_its_own_key():
    obs = {"eye": jnp.repeat(drawn((4, 1, 6, 5, 3)), 3, axis=1), "touch": jnp.ones((4, 3, 2))}
    keys = jax.random.split(jax.random.key(0), 2)
    change = jax.jit(lambda keys, obs: augment(keys, obs, 2, ALL))
    changed = change(keys, obs)
    assert changed["eye"].dtype == jnp.uint8
    assert (changed["eye"] == changed["eye"][:, :1]).all() and (changed["eye"] != obs["eye"]).any()
    np.testing.assert_array_equal(changed["touch"], obs["touch"])
    alone = change(keys[1:], jax.tree.map(lambda x: x[2:], obs))
    np.testing.assert_array_equal(alone["eye"], changed["eye"][2:])


def test_without_settings_nothing_changes_and_a_shift_is_what_it_was():
    obs = {"eye": drawn((4, 6, 5, 3))}
    assert augment(jax.random.key(0), obs, 1, PPOConfig()) is obs
    moved = augment(jax.random.key(0), obs, 1, PPOConfig(image_shift=2))
    as_ever = random_shift(jax.random.fold_in(jax.random.key(0), 1), obs, 1, 2)
    np.testing.assert_array_equal(moved["eye"], as_ever["eye"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_brightness": 1.1}, {"image_contrast": -0.1}, {"image_hue": 0.6},
        {"image_hue": float("nan")}, {"image_cutout": -1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        check(PPOConfig(**wrong))
