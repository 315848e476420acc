"""Files of encoders: what is written is read again, and what is wrong is told in a sentence."""

import pickle

import jax
import numpy as np
import pytest
from safetensors.numpy import save, save_file

from vnl_ppo import encoder_file
from vnl_ppo.borrowing import check_finite, match_encoders, replaced

RNG = np.random.default_rng(0)
KERNEL, BIAS = (RNG.normal(size=shape).astype(np.float32) for shape in ((3, 4), (4,)))
WEIGHTS = {
    "params.params.encoders_left.stages_1.Dense_0.kernel": KERNEL,
    "params.params.encoders_left.stages_1.Dense_0.bias": BIAS,
    "params.params.encoders_right.Dense_0.kernel": 2 * KERNEL,
    "params.params.value_encoders_left.stages_1.Dense_0.kernel": 3 * KERNEL,
    "params.params.policy.Dense_0.kernel": KERNEL,
    "moments.count": np.float32(3),
}


class Trap:
    def __reduce__(self):
        raise AssertionError("it was unpickled")


def test_encoders_are_read_as_they_were_written(tmp_path):
    arrays = encoder_file.encoders_in(WEIGHTS)
    assert sorted(arrays) == [
        "left/stages_1/Dense_0/bias", "left/stages_1/Dense_0/kernel", "right/Dense_0/kernel",
    ]  # fmt: skip
    path = tmp_path / "new" / "eyes.safetensors"
    encoder_file.write(path, arrays, {"run": "mine@3"})
    found = encoder_file.read(path)
    assert set(found) == {k for k in WEIGHTS if k.startswith("params.params.encoders_")}
    for name, x in found.items():
        assert x.dtype == np.float32 and x.tobytes() == WEIGHTS[name].tobytes()
        assert encoder_file.specs_in(path)[name].shape == x.shape
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert list(encoder_file.encoders_in(WEIGHTS, ["right"])) == ["right/Dense_0/kernel"]


def test_a_file_is_never_overwritten(tmp_path):
    path = tmp_path / "eyes.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="exists and is never overwritten"):
        encoder_file.write(path, {"a/b": KERNEL}, {})
    with pytest.raises(ValueError, match="has to end in .safetensors"):
        encoder_file.write(tmp_path / "eyes.npz", {"a/b": KERNEL}, {})
    with pytest.raises(ValueError, match="a/b is float64; .* float32"):
        encoder_file.write(tmp_path / "new.safetensors", {"a/b": KERNEL.astype(float)}, {})
    assert path.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1


def test_a_file_is_written_where_there_are_no_links(tmp_path, monkeypatch):
    def no_links(*paths):
        raise OSError("no links")

    monkeypatch.setattr("os.link", no_links)
    path = tmp_path / "eyes.safetensors"
    encoder_file.write(path, {"a/b": KERNEL}, {})
    assert list(encoder_file.read(path)) == ["params.params.encoders_a.b"]
    assert len(list(tmp_path.iterdir())) == 1


def flipped(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def test_torn_foreign_and_malicious_files_are_refused(tmp_path):
    good = tmp_path / "good.safetensors"
    encoder_file.write(good, encoder_file.encoders_in(WEIGHTS), {})
    content = good.read_bytes()
    lying = bytearray(save({"a/b": KERNEL}))
    lying[:8] = (2**40).to_bytes(8, "little")
    for wrong, why in [
        (content[: len(content) // 2], "no safetensors file, or torn"),
        (content[:5], "no safetensors file, or torn"),
        (b"", "no safetensors file, or torn"),
        (flipped(content), "torn: its arrays are not what was written"),
        (pickle.dumps({"a": KERNEL}), "a pickle or an archive.*never loaded"),
        (pickle.dumps([1]) + b"\0" * 5000, "a pickle or an archive"),
        (b"PK\x03\x04" + b"\0" * 100, "a pickle or an archive"),
        (bytes(lying), "no safetensors file, or torn"),
        (save({"a/b": KERNEL.astype(np.float16)}), "a/b is of dtype F16"),
        (save({"kernel": KERNEL}), "'kernel' is not named LEAF/PATH"),
    ]:
        path = tmp_path / "wrong.safetensors"
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=why) as raised:
            encoder_file.specs_in(path)
            encoder_file.read(path)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(ValueError, match="there is no file"):
            encoder_file.specs_in(path)


def test_a_foreign_file_needs_no_digest(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"eye/Dense_0/kernel": KERNEL}, path)
    (x,) = encoder_file.read(path).values()
    np.testing.assert_array_equal(x, KERNEL)


def network(**encoders):
    return {
        "params": {"params": {f"encoders_{k}": x for k, x in encoders.items()}},
        "moments": {"count": np.float32(0)},
    }


def weights_of(**encoders):
    return {
        f"params.params.encoders_{k}.{name}": x
        for k, named in encoders.items()
        for name, x in named.items()
    }


A, B = {"kernel": KERNEL, "bias": BIAS}, {"kernel": KERNEL}


def test_encoders_go_to_their_leaves():
    both = match_encoders(weights_of(left=A, right=B), network(left=A, right=B), (), "x")
    assert both.leaves == {"left": "left", "right": "right"} and len(both.names) == 3
    # One of two is borrowed alone; the only one goes to the only image.
    assert match_encoders(weights_of(left=A), network(left=A, right=B), (), "x").leaves == {
        "left": "left"
    }
    one = match_encoders(weights_of(eye=A), network(vision=A, proprio=B), ("vision",), "x")
    assert one.names == {
        f"params.params.encoders_vision.{k}": f"params.params.encoders_eye.{k}" for k in A
    }
    # A vector's encoder does not go to the image.
    named = match_encoders(weights_of(proprio=B), network(vision=A, proprio=B), ("vision",), "x")
    assert named.leaves == {"proprio": "proprio"}
    nested = match_encoders(
        weights_of(**{"eyes.left": A}), network(**{"eyes.left": A}), ("eyes.left",), "x"
    )
    assert nested.leaves == {"eyes.left": "eyes.left"}
    vector = match_encoders(
        weights_of(**{"body.arm": B}), network(**{"body.arm": B, "v": A}), ("v",), "x"
    )
    assert vector.leaves == {"body.arm": "body.arm"}


def test_the_value_function_has_its_own_or_the_policys():
    target = network(v=B)
    target["params"]["params"]["value_encoders_v"] = B
    own, values = ("params.params.encoders_v.kernel", "params.params.value_encoders_v.kernel")
    assert match_encoders(weights_of(v=B), target, ("v",), "x").names == {own: own, values: own}
    found = {**weights_of(v=B), values: KERNEL}
    assert match_encoders(found, target, ("v",), "x").names == {own: own, values: values}


@pytest.mark.parametrize(
    ("found", "target", "why"),
    [
        ({"v": B}, {"v": A}, "not fit.*encoders_v.bias \\(float32\\[4\\]\\) is missing there"),
        ({"v": A}, {"v": B}, "encoders_v.bias \\(float32\\[4\\]\\) is only there"),
        (
            {"v": {"kernel": KERNEL.T, "bias": BIAS[:2]}},
            {"v": A},
            "bias is float32\\[2\\] there and float32\\[4\\] here; .*is float32\\[4, 3\\] there",
        ),
        ({"v": {"kernel": KERNEL.astype(int)}}, {"v": B}, "int64\\[3, 4\\] there and float32"),
        ({"a": B, "b": B}, {"v": B}, "an encoder for a, b, and this network has them for v"),
        ({}, {"v": B}, "x has no encoder"),
        ({"v": B}, {}, "nothing to lend"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(found, target, why):
    with pytest.raises(ValueError, match=why):
        match_encoders(weights_of(**found), network(**target), tuple(target), "x")


def test_numbers_that_are_not_finite_are_named():
    wrong = {"params.params.a": np.array([1, np.nan]), "params.params.b": np.array([np.inf])}
    with pytest.raises(ValueError, match="x has numbers that are not finite in a, b;"):
        check_finite({**wrong, "c": KERNEL}, "x")
    check_finite({"c": jax.device_get(KERNEL)}, "x")


def test_every_agent_begins_with_what_is_borrowed():
    weights = {"params": {"a": np.zeros((2, 3, 4), np.float32), "b": np.ones((2, 4), np.float32)}}
    layout = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    new = replaced(weights, {"params.a": KERNEL}, layout)["params"]
    np.testing.assert_array_equal(new["a"], np.stack([KERNEL, KERNEL]))
    np.testing.assert_array_equal(new["b"], weights["params"]["b"])
    assert replaced(weights, {}, layout) is weights
    for wrong, why in [
        ({"params.c": KERNEL}, "params.c .* is only there"),
        ({"params.a": KERNEL[0]}, "float32.4. there and float32.3, 4. here"),
    ]:
        with pytest.raises(ValueError, match=why):
            replaced(weights, wrong, layout)
