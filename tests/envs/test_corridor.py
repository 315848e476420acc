import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import corridor
from envs.corridor import PARKED, CorridorConfig, Layout

CONFIG = CorridorConfig()


@st.composite
def configs(draw):
    number = lambda low, high: st.floats(low, high, width=32)
    shortest = draw(number(0.75, 3.0))
    gap = draw(number(0.0, 1.0))
    return CorridorConfig(
        width=draw(number(1.0, 8.0)),
        length=draw(number(1.0, 60.0)),
        platform_length=(shortest, shortest + draw(number(0.0, 2.0))),
        gap_length=(gap, gap + draw(number(0.0, 1.0))),
        reach=draw(st.floats(0.3, 1.0)) * (shortest + gap),
    )


def drawn(seed, config):
    layout = corridor.draw_layout(jax.random.key(seed), config)
    used = np.asarray(layout.starts) < PARKED
    return np.asarray(layout.starts)[used], np.asarray(layout.ends)[used], layout


@settings(max_examples=15, deadline=None)
@given(configs(), st.integers(0, 2**31 - 1))
def test_a_corridor_is_what_dm_control_builds(config, seed):
    corridor.validate(config)
    starts, ends, layout = drawn(seed, config)
    assert layout.starts.shape == layout.ends.shape == (corridor.max_platforms(config),)
    assert (starts[0], ends[0]) == (0.0, 6.0)
    assert corridor.num_platforms(layout) == len(starts)
    if config.length <= 6:
        assert len(starts) == 1
        return
    lengths, gaps = (ends - starts)[1:], (starts[1:] - ends[:-1])[1:]
    slack = 1e-5 * 2 * config.length
    low, high = config.platform_length
    assert np.all((lengths >= low - slack) & (lengths <= high + slack))
    low, high = config.gap_length
    assert np.all((gaps >= low - slack) & (gaps <= high + slack))
    # Platforms start until one starts beyond the length, which is not built.
    assert starts[1] == 6.0
    assert np.all(starts[1:] < config.length)
    longest = config.platform_length[1] + config.gap_length[1]
    assert starts[-1] >= config.length - longest - slack


@settings(max_examples=15, deadline=None)
@given(configs(), st.integers(0, 2**31 - 1), st.floats(-3.0, 70.0, width=32))
def test_the_window_holds_every_platform_within_reach(config, seed, x):
    starts, ends, layout = drawn(seed, config)
    near = corridor.window(layout, jnp.float32(x), config.reach)
    seen = {(float(s), float(e)) for s, e in zip(near.starts, near.ends, strict=True)}
    # float32 rounds x - reach: a platform that ends within that of it may be left out.
    margin = 1e-4
    touchable = (ends > x - config.reach + margin) & (starts < x + config.reach - margin)
    for s, e in zip(starts[touchable], ends[touchable], strict=True):
        assert (float(s), float(e)) in seen
    real = [s for s, _ in seen if s < PARKED]
    assert len(real) == np.sum(np.asarray(near.starts) < PARKED), "a platform appears twice"


def test_a_window_by_hand():
    layout = Layout(
        starts=jnp.array([0.0, 6.0, 8.0, 10.0, PARKED]),
        ends=jnp.array([6.0, 7.5, 9.5, 11.0, PARKED]),
    )
    starts = lambda x: corridor.window(layout, jnp.float32(x), 1.0).starts.tolist()
    assert starts(5.0) == [0.0, 6.0, 8.0]
    assert starts(7.0) == [0.0, 6.0, 8.0]
    assert starts(7.25) == [6.0, 8.0, 10.0]
    assert starts(10.75) == [10.0, PARKED, PARKED]
    assert starts(50.0) == [PARKED, PARKED, PARKED]
    crossed = lambda x: int(corridor.gaps_crossed(layout, jnp.float32(x)))
    # The seam at 6 m is no gap; a gap counts once its far edge is behind.
    assert [crossed(x) for x in (0.0, 6.5, 7.9, 8.1, 9.7, 10.5, 99.0)] == [0, 0, 0, 1, 1, 2, 2]


def test_boxes_by_hand():
    layout = Layout(starts=jnp.array([0.0, 6.0, PARKED]), ends=jnp.array([6.0, 8.0, PARKED]))
    position, half = corridor.platform_boxes(layout, CONFIG)
    np.testing.assert_allclose(position[:2], [[3, 0, -0.16], [7, 0, -0.16]], rtol=1e-6)
    np.testing.assert_allclose(half, [[3, 2.5, 0.16], [1, 2.5, 0.16], [0, 0, 0]], rtol=1e-6)
    position, half = corridor.slab_boxes(layout, jnp.float32(5.0), CONFIG)
    np.testing.assert_allclose(position[:, 0], [3, 7, PARKED])
    assert np.all(np.asarray(half) > 0), "an empty box divides by zero in MJX"


def test_without_gaps_no_gap_is_crossed():
    config = dataclasses.replace(CONFIG, gap_length=(0.0, 0.0))
    for seed in range(5):
        starts, ends, layout = drawn(seed, config)
        np.testing.assert_array_equal(starts[1:], ends[:-1])
        assert corridor.gaps_crossed(layout, 1000.0) == 0


def test_every_key_has_its_own_corridor_and_one_compilation_serves_all():
    draw = jax.jit(jax.vmap(lambda key: corridor.draw_layout(key, CONFIG)))
    slabs = jax.jit(jax.vmap(lambda layout, x: corridor.slab_boxes(layout, x, CONFIG)))
    seen = []
    for seed in range(3):
        layouts = draw(jax.random.split(jax.random.key(seed), 4))
        seen.append(np.asarray(layouts.starts))
        position, _ = slabs(layouts, jnp.full(4, 10.0))
        assert len(np.unique(np.asarray(position)[:, 0, 0])) == 4
    assert draw._cache_size() == slabs._cache_size() == 1
    assert len(np.unique(np.concatenate(seen)[:, 2])) == 12


def test_lengths_are_uniform():
    draws = jax.vmap(lambda key: corridor.draw_layout(key, CONFIG))(
        jax.random.split(jax.random.key(0), 2000)
    )
    lengths = np.asarray(draws.ends - draws.starts)[:, 1]
    gaps = np.asarray(draws.starts[:, 2] - draws.ends[:, 1])
    # Mean and deviation of a uniform distribution, within 4 standard errors.
    for values, (low, high) in ((lengths, CONFIG.platform_length), (gaps, CONFIG.gap_length)):
        spread = (high - low) / np.sqrt(12)
        assert abs(values.mean() - (low + high) / 2) < 4 * spread / np.sqrt(len(values))
        assert abs(values.std() - spread) < 0.05 * spread


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0.0}, "corridor width is 0.0"),
        ({"length": float("nan")}, "corridor length is nan"),
        ({"platform_length": (0.0, 2.0)}, "platform_length is"),
        ({"platform_length": (2.0, 1.5)}, "not above the highest"),
        ({"gap_length": (-0.1, 0.2)}, "gap_length is"),
        ({"reach": 1.6}, "corridor reach is 1.6 m"),
    ],
)
def test_a_corridor_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        corridor.validate(dataclasses.replace(CONFIG, **change))
