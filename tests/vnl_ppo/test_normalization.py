import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vnl_ppo.normalization import init_moments, normalize, update_moments

SPEC = {
    "proprio": jax.ShapeDtypeStruct((3,), jnp.float32),
    "vision": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8),
}


def batch_of(x):
    return {"proprio": jnp.asarray(x), "vision": jnp.zeros((len(x), 4, 4, 3), jnp.uint8)}


def test_only_float_leaves_have_moments_and_images_pass_untouched():
    moments = init_moments(SPEC)
    assert set(moments.mean) == {"proprio"}
    obs = {"proprio": jnp.ones(3), "vision": jnp.full((4, 4, 3), 200, jnp.uint8)}
    out = normalize(moments, obs)
    assert out["vision"] is obs["vision"]
    np.testing.assert_array_equal(out["proprio"], obs["proprio"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_batches_join_to_the_moments_of_all(seed, sizes):
    rng = np.random.default_rng(seed)
    # A mean a thousand times the deviation: sums of squares in float32 would be lost.
    batches = [1000 + rng.normal(size=(n, 3)).astype(np.float32) * [0.1, 1, 10] for n in sizes]
    moments = init_moments(SPEC)
    for x in batches:
        moments = update_moments(moments, batch_of(x.astype(np.float32)))
    everything = np.concatenate(batches).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(moments.mean["proprio"], everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance["proprio"], everything.var(0), rtol=2e-2, atol=1e-4)
    assert moments.count == sum(sizes)


def test_normalized_data_have_mean_zero_and_variance_one():
    x = np.random.default_rng(0).normal([1, 2, 3], [0.1, 1, 100], (10_000, 3)).astype(np.float32)
    moments = update_moments(init_moments(SPEC), batch_of(x))
    z = normalize(moments, batch_of(x))["proprio"]
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-3)


def test_a_component_that_never_varied_stays_finite():
    moments = update_moments(init_moments(SPEC), batch_of(np.full((5, 3), 7, np.float32)))
    z = normalize(moments, batch_of(np.array([[7, 7.1, 1e9]], np.float32)))["proprio"]
    np.testing.assert_array_equal(z, [[0, 10, 10]])


def test_nested_leaves_of_any_float_type_count_along_all_leading_axes():
    spec = {"legs": {"force": jax.ShapeDtypeStruct((2,), jnp.float16)}, "touch": SPEC["vision"]}
    x = np.random.default_rng(0).normal(3, 2, (50, 40, 2)).astype(np.float16)
    batch = {"legs": {"force": jnp.asarray(x)}, "touch": jnp.zeros((50, 40, 4, 4, 3), jnp.uint8)}
    moments = update_moments(init_moments(spec), batch)
    rows = x.reshape(-1, 2).astype(np.float64)
    assert moments.count == 2000
    np.testing.assert_allclose(moments.mean["legs.force"], rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance["legs.force"], rows.var(0), rtol=1e-4)
    out = normalize(moments, batch)
    assert out["legs.force"].dtype == jnp.float32
    assert out["touch"] is batch["touch"]


def test_parts_on_devices_join_to_the_moments_of_all():
    x = np.random.default_rng(0).normal([1, 2, 3], [0.1, 1, 100], (2, 500, 3)).astype(np.float32)
    update = lambda x: update_moments(init_moments(SPEC), {"proprio": x}, "devices")
    apart = jax.vmap(update, axis_name="devices")(jnp.asarray(x))
    whole = update_moments(init_moments(SPEC), {"proprio": jnp.asarray(x.reshape(-1, 3))})
    for device in range(2):
        one = jax.tree.map(lambda leaf: leaf[device], apart)  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, whole)
