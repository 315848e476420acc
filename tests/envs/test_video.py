"""Films of episodes."""

import imageio.v2 as imageio
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import video
from envs.gap_ant import GapAnt, VisionConfig
from envs.video import FRAMES_PER_SECOND

SIZE = (64, 96)
STATES = 41  # one second of 25 ms steps, and the first state


@pytest.fixture(scope="module")
def episode():
    env = GapAnt(vision=VisionConfig(height=16, width=16))
    state = jax.jit(env.reset)(jax.random.key(0))

    def step(state, action):
        state = env.step(state, action)
        return state, state.data

    actions = jax.random.uniform(jax.random.key(1), (STATES - 1, 8), minval=-1.0)
    _, data = jax.jit(lambda s, a: jax.lax.scan(step, s, a))(state, actions)
    data = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), state.data, data)
    return env, data


def film(episode, path, alive=STATES, inset=0, **kwargs):
    env, data = episode
    alive = jnp.arange(STATES) < alive
    video.write(video.film(env, data, alive, "floating", SIZE, inset, **kwargs), path)
    return np.stack(list(imageio.get_reader(path).iter_data()))


def test_a_film_runs_in_real_time_and_moves(episode, tmp_path):
    path = tmp_path / "videos" / "0.mp4"
    frames = film(episode, path, inset=32)
    assert frames.shape == (FRAMES_PER_SECOND + 1, *SIZE, 3)
    assert imageio.get_reader(path).get_meta_data()["fps"] == FRAMES_PER_SECOND
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1
    assert [p.name for p in path.parent.iterdir()] == ["0.mp4"]


def test_the_animals_own_view_is_in_the_corner(episode, tmp_path):
    frame = film(episode, tmp_path / "with.mp4", inset=32)[0].astype(int)
    bare = film(episode, tmp_path / "without.mp4", inset=0)[0].astype(int)
    corner = (slice(16, 48), slice(SIZE[1] - 48, SIZE[1] - 16))
    assert np.abs(frame[corner] - bare[corner]).mean() > 10
    left = (slice(None), slice(0, 32))
    assert np.abs(frame[left] - bare[left]).mean() < 5


def test_a_film_ends_with_its_episode(episode, tmp_path):
    assert len(film(episode, tmp_path / "short.mp4", alive=21, inset=0)) == 11


def test_a_film_that_exists_is_not_touched(episode, tmp_path):
    path = tmp_path / "0.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="never overwritten"):
        film(episode, path)
    assert path.read_bytes() == b"precious"


def test_a_slow_film_has_more_frames(episode, tmp_path):
    assert len(film(episode, tmp_path / "slow.mp4", alive=21, speed=0.5)) == 21


def test_two_films_run_beside_each_other_and_the_shorter_waits():
    short = [np.full((4, 4, 3), i, np.uint8) for i in (1, 2)]
    long = [np.full((4, 6, 3), i, np.uint8) for i in (5, 6, 7)]
    frames = list(video.side_by_side(short, long))
    assert [f.shape for f in frames] == [(4, 10, 3)] * 3
    assert [(f[0, 0, 0], f[0, 9, 0]) for f in frames] == [(1, 5), (2, 6), (2, 7)]


def test_only_films_are_written_as_films(tmp_path):
    with pytest.raises(ValueError, match=r"film.avi is no film's name; .* .mp4 or .gif"):
        video.write([], tmp_path / "film.avi")
