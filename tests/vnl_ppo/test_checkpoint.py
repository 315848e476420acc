"""A checkpoint is what was saved, or is refused by name."""

import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vnl_ppo import checkpoint
from vnl_ppo.checkpoint import CheckpointConfig, TornCheckpointError


def state(seed=0):
    x = np.random.RandomState(seed)
    return {
        "params": {"kernel": jnp.asarray(x.normal(size=(1, 40, 30)), jnp.float32)},
        "key": jax.random.split(jax.random.key(seed), 1),
        "count": jnp.full(1, seed, jnp.int32),
        "empty": jnp.zeros((1, 0)),
        "seen": jnp.asarray(x.randint(0, 255, (1, 5, 4, 3)), jnp.uint8),
    }


def same(a, b):
    raw = lambda x: (
        jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    )
    return jax.tree.all(jax.tree.map(lambda x, y: bool((raw(x) == raw(y)).all()), a, b))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    for step in (10, 20):
        checkpoint.save(folder, step, state(step))
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files(path):
    return sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size)


def test_what_was_saved_comes_back(saved):
    step, leaves = checkpoint.read_last(saved, pytest.fail)
    assert step == 20
    like = jax.eval_shape(lambda: state(0))
    checkpoint.check(leaves, like, "20")
    assert same(
        checkpoint.restore(leaves, like, jax.sharding.SingleDeviceSharding(jax.devices()[0])),
        state(20),
    )
    part = checkpoint.fill(leaves, {"kernel": like["params"]["kernel"]}, "params.")
    np.testing.assert_array_equal(part["kernel"], state(20)["params"]["kernel"])


def episodes(data, metrics):
    """A training state of so many arrays, all of ones."""
    ones = lambda names: {name: jnp.ones((1, 2)) for name in names.split()}
    return {"weights": ones("w"), "episodes": {"state": {"data": data, "metrics": ones(metrics)}}}


def leaves_of(state):
    return {name: np.asarray(x) for name, x in checkpoint.named_leaves(state).items()}


def test_metrics_are_no_part_of_what_has_to_match():
    data = {"x": jnp.ones((1, 2))}
    like = jax.eval_shape(lambda: episodes(data, "speed height"))
    saved = leaves_of(episodes(data, "speed gaps"))
    with pytest.raises(ValueError, match=r"gaps is float32\[1, 2\] in the checkpoint and missing"):
        checkpoint.check(saved, like, "7")
    adapted = checkpoint.adapt(saved, like)
    checkpoint.check(adapted, like, "7")
    for name, value in {"speed": 1, "height": 0}.items():
        np.testing.assert_array_equal(adapted[f"episodes.state.metrics.{name}"], [[value] * 2])
    # What has the same name has to be the same still, and so has everything else.
    more = leaves_of(episodes(data | {"gaps": jnp.ones((1, 2))}, "speed height"))
    more["episodes.state.metrics.speed"] = np.ones((1, 3))
    for leaf in ("data.gaps", "metrics.speed"):
        with pytest.raises(ValueError, match=f"episodes.state.{leaf} is"):
            checkpoint.check(checkpoint.adapt(more, like), like, "7")
        more.pop("episodes.state.data.gaps", None)


def test_renamed_leaves_of_an_environment_are_read_by_their_new_names():
    x, y = np.full((1, 2), 3.0, np.float32), np.full((1, 2), 4.0, np.float32)
    renamed = {"torso": "root", "corridor": "layout"}
    like = jax.eval_shape(lambda: episodes({"root": x, "layout": {"starts": y}, "torsos": x}, "v"))
    saved = leaves_of(episodes({"torso": x, "corridor": {"starts": y}, "torsos": x}, "v"))
    adapted = checkpoint.adapt(saved, like, renamed)
    checkpoint.check(adapted, like, "7")
    np.testing.assert_array_equal(adapted["episodes.state.data.root"], x)
    np.testing.assert_array_equal(adapted["episodes.state.data.layout.starts"], y)
    # A checkpoint of this release stays as it is, even where both names are in use.
    both = jax.eval_shape(lambda: episodes({"root": x, "torso": y}, "v"))
    saved = leaves_of(episodes({"root": x, "torso": y}, "v"))
    adapted = checkpoint.adapt(saved, both, renamed)
    assert adapted.keys() == saved.keys() and all(adapted[k] is x for k, x in saved.items())


def test_a_checkpoint_is_never_overwritten(copied):
    with pytest.raises(FileExistsError, match="never overwritten"):
        checkpoint.save(copied, 20, state(1))
    assert checkpoint.read_last(copied, pytest.fail)[0] == 20


# Orbax may leave a coroutine unfinished when it meets a torn file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("harm", ["cut", "empty", "lost", "flipped"])
def test_a_torn_checkpoint_is_named_and_the_one_before_it_taken(copied, harm):
    """Whichever file it is: what comes back is what was saved then, or the checkpoint before."""
    luck = random.Random(0)
    whole = checkpoint.read(copied, 20)
    refused = 0
    for path in files(copied / "20"):
        content = path.read_bytes()
        place = luck.randrange(len(content))
        if harm == "lost":
            path.unlink()
        elif harm == "flipped":
            flipped = bytes([content[place] ^ (1 << luck.randrange(8))])
            path.write_bytes(content[:place] + flipped + content[place + 1 :])
        else:
            path.write_bytes(content[: place if harm == "cut" else 0])
        warnings = []
        step, leaves = checkpoint.read_last(copied, warnings.append)
        if step == 10:
            refused += 1
            # Orbax does not count a checkpoint as complete without its own marks.
            assert not warnings or str(copied / "20") in warnings[0]
            np.testing.assert_array_equal(leaves["params.kernel"], state(10)["params"]["kernel"])
        else:
            assert leaves.keys() == whole.keys()
            for name, x in whole.items():
                np.testing.assert_array_equal(leaves[name], x, err_msg=f"{path}")
        path.write_bytes(content)
    assert refused


def test_where_all_are_torn_it_is_said(copied):
    for step in ("10", "20"):
        for path in files(copied / step):
            if "METADATA" not in path.name:
                path.write_bytes(b"")
    warnings = []
    with pytest.raises(TornCheckpointError, match="all 2 checkpoints in .* are torn"):
        checkpoint.read_last(copied, warnings.append)
    assert len(warnings) == 2
    for left in ("30.orbax-checkpoint-tmp-7", ".5.deleted", "notes"):
        (copied / left).mkdir()
    checkpoint.tidy(copied, after=10)
    # What is torn is kept under another name, and what a killed process left is gone.
    assert sorted(p.name for p in copied.iterdir()) == ["10", "20.torn-0", "notes"]


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_lost(copied, monkeypatch):
    blocked = copied / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OSError, match="checkpoint .*file/30 could not be written"):
        checkpoint.save(blocked, 30, state())

    # What a disk does that takes the bytes and loses them.
    def lose(*_):
        raise TornCheckpointError("bytes are gone")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "read", lose)
        with pytest.raises(OSError, match="30 could not be written: bytes are gone"):
            checkpoint.save(copied, 30, state())
    assert sorted(p.name for p in copied.iterdir()) == ["10", "20", "file"]
    assert checkpoint.read_last(copied, pytest.fail)[0] == 20


def test_the_first_the_newest_and_the_best_are_kept(tmp_path):
    scores = {0: 0.0, 10: 1.0, 20: 5.0, 30: None, 40: 2.0, 50: float("nan"), 60: 3.0}
    for step, score in scores.items():
        checkpoint.save(tmp_path, step, {"x": jnp.zeros((1, 1))}, score)
    assert [step for step in (*scores, 70) if not checkpoint.is_scored(tmp_path, step)] == [30, 70]
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "15").mkdir()
    assert checkpoint.prune(tmp_path, CheckpointConfig(keep_last=0)) == []
    assert checkpoint.prune(tmp_path, CheckpointConfig(keep_last=3, keep_best=1)) == [10, 30]
    assert checkpoint.steps(tmp_path) == [0, 15, 20, 40, 50, 60]
    assert checkpoint.prune(tmp_path, CheckpointConfig(keep_last=1, keep_best=0)) == [20, 40, 50]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "15", "60", "notes.txt"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"minutes": -1.0}, "minutes is -1.0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"keep_last": -1}, "keep_last is -1"),
    ],
)
def test_a_setting_that_cannot_be_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        CheckpointConfig(**change)


@pytest.mark.parametrize("name", ["x[1]", "back\\slash", "star*", "what?", "a b", "ü", "~", "a:b"])
def test_a_path_may_have_any_characters(tmp_path, name):
    folder = tmp_path / name / "checkpoints"
    for step in (10, 20):
        checkpoint.save(folder, step, {"a": np.arange(3.0) + step}, score=1.0)
    assert checkpoint.steps(folder) == [10, 20]
    np.testing.assert_array_equal(checkpoint.read(folder, 20)["a"], [20, 21, 22])
    assert checkpoint.prune(folder, CheckpointConfig(keep_last=1, keep_best=0)) == [10]
    assert [path.name for path in folder.iterdir()] == ["20"]
    # What an interrupted write left is found there too.
    left = folder / "30.orbax-checkpoint-tmp-7"
    left.mkdir()
    checkpoint.save(folder, 30, {"a": np.arange(3.0)})
    assert not left.exists()
