"""Specs: what they describe, and what is said where they are wrong."""

import re
import textwrap

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders import MLP, NatureCNN, make_encoder, make_encoders
from encoders.chain import Chain
from encoders.specification import OTHERS, parse

LEAVES = {
    "left": jax.ShapeDtypeStruct((36, 40, 3), jnp.uint8),
    "right": jax.ShapeDtypeStruct((36, 40, 3), jnp.uint8),
    "proprio": jax.ShapeDtypeStruct((27,), jnp.float32),
}
EYES = """
import flax.linen as nn
import jax.numpy as jnp

class Retina(nn.Module):
    width: int = 4
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width)(x.astype(jnp.float32).mean((-3, -2)))
        self.sow("losses", "small", jnp.square(x).mean())
        return x

class Spatial(nn.Module):
    def __call__(self, x):
        return x / 255

class Flat(nn.Module):
    def __call__(self, x):
        return x.reshape(x.shape[0], -1) / 255

class Pair(nn.Module):
    def __call__(self, x):
        return x.mean((-3, -2)), x.mean((-3, -2))

class Whole(nn.Module):
    def __call__(self, x):
        return x.max((-3, -2))

class Batch(nn.Module):
    decided: bool = True
    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32).mean((-3, -2))
        return nn.BatchNorm(use_running_average=False if self.decided else None)(x)

class Whole32(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x.astype(jnp.float32).mean((-3, -2)) * self.param("n", lambda k: jnp.array(3))

class Wide(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32).mean((-3, -2))
        return x + self.param("b", nn.initializers.zeros, x.shape)

class Loose(nn.Module):
    def __call__(self, x):
        return nn.Dense(4)(x.astype(jnp.float32).mean((-3, -2)))

class Trains(nn.Module):
    def __call__(self, x, train):
        return x.astype(jnp.float32).mean((-3, -2))

class Mute(nn.Module):
    pass

class Deaf(nn.Module):
    def __call__(self):
        return jnp.zeros(3)

class Half(nn.Module):
    def __call__(self, x, *more, scale=1.0):
        return (scale * x.mean((-3, -2))).astype(jnp.float16)

class Uneven(nn.Module):
    def __call__(self, x, key=None):
        x = x.astype(jnp.float32).mean((-3, -2))
        return x if key is None else x[..., :1]

class Drop(nn.Module):
    decided: bool = True
    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32).mean((-3, -2))
        return nn.Dropout(0.5, deterministic=False if self.decided else None)(x)

class Broken(nn.Module):
    def __call__(self, x):
        raise ValueError("mine")
"""


@pytest.fixture
def eyes(tmp_path, monkeypatch):
    (tmp_path / "eyes_of_specs.py").write_text(textwrap.dedent(EYES))
    monkeypatch.syspath_prepend(tmp_path)


def written(text):
    return {k: [(s.name, s.settings) for s in v] for k, v in parse(text).items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nature_cnn", {OTHERS: [("nature_cnn", {})]}),
        (" a( ) ", {OTHERS: [("a", {})]}),
        ("a(n=64, x = -1.5e-3)", {OTHERS: [("a", {"n": 64, "x": -1.5e-3})]}),
        ("a(b=True, c=None, d=SAME)", {OTHERS: [("a", {"b": True, "c": None, "d": "SAME"})]}),
        ("a(s='x | (y, z=', t=\"'\")", {OTHERS: [("a", {"s": "x | (y, z=", "t": "'"})]}),
        ("a(t=(1, (2.5, b)))", {OTHERS: [("a", {"t": (1, (2.5, "b"))})]}),
        ("a(u=(3,), v=[])", {OTHERS: [("a", {"u": (3,), "v": ()})]}),
        ("a|b(n=1) | p.q:C(w=2)", {OTHERS: [("a", {}), ("b", {"n": 1}), ("p.q:C", {"w": 2})]}),
        ("l=a | b", {"l": [("a", {}), ("b", {})]}),
        ("e.r = c(n=1), d", {"e.r": [("c", {"n": 1})], OTHERS: [("d", {})]}),
        ("a(\n  n=1,\n)\n| b", {OTHERS: [("a", {"n": 1}), ("b", {})]}),
    ],
)  # fmt: skip
def test_what_a_spec_says(text, expected):
    assert written(text) == expected


def test_stages_know_their_place():
    text = "left= a(n=1) | bé(m='é'), c"
    places = [s.place for chain in parse(text).values() for s in chain]
    assert [text[place] for place in places] == ["a", "b", "c"]


def test_a_plain_name_is_the_module_itself_and_a_chain_is_one_module():
    assert type(make_encoder("nature_cnn")) is NatureCNN
    assert make_encoder("mlp(hidden_layer_sizes=(3, 2))").hidden_layer_sizes == (3, 2)
    chain = make_encoder("mlp(hidden_layer_sizes=(5,)) | mlp(hidden_layer_sizes=(3, 2))")
    assert isinstance(chain, Chain) and isinstance(chain, nn.Module)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, 4, 1), dtype=np.uint8))
    y, variables = chain.init_with_output(jax.random.key(0), x)
    first, second = (variables["params"][f"stages_{i}"] for i in range(2))
    hidden = MLP((5,)).apply({"params": first}, x)
    np.testing.assert_array_equal(y, MLP((3, 2)).apply({"params": second}, hidden))


def test_each_leaf_has_its_own():
    text = "right = mlp, nature_cnn(features=5), proprio=mlp(hidden_layer_sizes=(2,))"
    encoders = make_encoders(text, LEAVES)
    assert {k: type(v) for k, v in encoders.items()} == {
        "left": NatureCNN, "right": MLP, "proprio": MLP,
    }  # fmt: skip
    # Vectors get an encoder only by their name; an image that nothing is said about has none.
    assert set(make_encoders("mlp", LEAVES)) == {"left", "right"}
    assert set(make_encoders("left=mlp", LEAVES)) == {"left"}
    assert make_encoders("none", {"proprio": LEAVES["proprio"]}) == {}


def test_further_settings_are_for_every_stage_that_has_them_and_is_not_given_them():
    encoders = make_encoders("left=nature_cnn(features=3), right=mlp | mlp", LEAVES, features=7)
    assert encoders["left"].features == 3
    encoders = make_encoders("left=nature_cnn, right=mlp", LEAVES, features=7)
    assert encoders["left"].features == 7
    with pytest.raises(ValueError, match="character 1: 'mlp' has no setting 'features'"):
        make_encoders("mlp", LEAVES, features=7)


def test_an_encoder_of_ones_own(eyes):
    encoders = make_encoders("eyes_of_specs:Retina(width=8), right=mlp", LEAVES)
    assert encoders["left"].width == 8
    assert set(make_encoders("left=eyes_of_specs:Half", LEAVES)) == {"left"}


WRONG = [
    ("", 1, "unknown encoder ''"),
    ("mlp | ", 7, "unknown encoder ''"),
    ("mlp | natur_cnn(features=3)", 7, "'natur_cnn'; did you mean 'nature_cnn'"),
    ("a b", 1, "unknown encoder 'a b'"),
    ("mlp, mlp", 5, "second spec for every image"),
    ("left=mlp, left=mlp", 10, "second spec for the leaf 'left'"),
    ("lefd=mlp", 1, "no leaf 'lefd'; did you mean 'left'? the observation has left, right"),
    ("a b=mlp", 1, "'a b' is no name of a leaf"),
    ("=mlp", 1, "'' is no name of a leaf"),
    (
        "nature_cnn(feature=3)",
        1,
        "no setting 'feature'; did you mean 'features'? it takes features",
    ),
    ("mlp | nature_cnn(features=abc)", 7, "features is 'abc'; it has to be a whole number"),
    ("nature_cnn(features=True)", 1, "features is True"),
    ("nature_cnn(features=2.0)", 1, "features is 2.0"),
    ("mlp(hidden_layer_sizes=(3, x))", 1, "hidden_layer_sizes is (3, 'x')"),
    ("nature_cnn(features=0)", 1, "features must be at least 1"),
    ("mlp(activation=rel)", 1, "unknown activation 'rel'; did you mean 'relu'"),
    ("nature_cnn(3)", 12, "write SETTING=VALUE"),
    ("nature_cnn(**a)", 12, "write settings as SETTING=VALUE"),
    ("nature_cnn(features=3, features=4)", 24, "twice"),
    ("nature_cnn(features=3 4)", 21, "write SETTING=VALUE"),
    ("nature_cnn(features=)", 21, "write SETTING=VALUE"),
    ("nature_cnn(features=3", 11, "'(' is opened and not closed"),
    ("nature_cnn(features=3]", 22, "']' closes nothing"),
    ("nature_cnn)", 11, "')' closes nothing"),
    ("mlp(activation='relu)", 16, "a quote (') is opened and not closed"),
    ("mlp(activation=1e999)", 16, "activation: a number has to be finite"),
    ("mlp(activation=f(1))", 16, "activation: a value has to be a number"),
    ("mlp(activation=b'x')", 16, "activation: a value has to be a number"),
    ("mlp(activation=1+2j)", 16, "activation: a value has to be a number"),
    ("mlp(a=1)(b=2)", 4, "write a stage as"),
    ("mlp[0]", 4, "write a stage as"),
    ("mlp(a=1)x", 4, "write a stage as"),
    ("nature_cnn | nature_cnn", 14, "three axes"),
    ("proprio=nature_cnn", 9, "three axes"),
    ("left = identity", 8, "identity: got an image"),
    ("no_such_module:Eye", 1, "cannot import the module 'no_such_module'"),
]


@pytest.mark.parametrize(("text", "place", "why"), WRONG)
def test_what_is_wrong_is_told_with_its_place(text, place, why):
    with pytest.raises(ValueError) as raised:
        make_encoders(text, LEAVES)
    message = str(raised.value)
    assert message.startswith(f"encoder {text!r}, character {place}: ") and why in message


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "Spatial",
            "returns float32[1, 36, 40, 3] for the leaf 'left' (uint8[1, 36, 40, 3]).*reshape",
        ),
        ("Flat", "returns .*have to be [..., F].*reshape"),
        ("Pair", "returns 'tuple'.*one array"),
        ("Whole", "returns uint8[1, 3].*float"),
        ("Batch", "batch_stats, as nn.BatchNorm.*nn.LayerNorm"),
        ("Batch(decided=False)", "has nn.BatchNorm.*nn.LayerNorm"),
        ("Drop", "random key from flax, as nn.Dropout.*key=None, as encoders.Dropout"),
        ("Drop(decided=False)", "has nn.Dropout.*encoders.Dropout"),
        ("Whole32", "has the parameter n of int32"),
        ("Wide", "{'b': 'float32[1, 3]'} and {'b': 'float32[2, 3, 3]'}"),
        ("Loose", "without @nn.compact"),
        ("Trains", "takes 'train' besides its input.*such as train=None"),
        ("Mute", "has no method __call__"),
        ("Deaf", "takes no input"),
        ("Uneven", "returns float32[1, 1] with keys and float32[1, 3] without"),
    ],
)
def test_what_cannot_be_trained_is_told(eyes, name, why):
    pattern = re.escape(why).replace(r"\.\*", ".*")
    with pytest.raises(ValueError, match=f"^encoder 'eyes_of_specs:.*, character 1: .*{pattern}"):
        make_encoders(f"eyes_of_specs:{name}", LEAVES)


def test_an_exception_of_ones_own_is_passed_on(eyes):
    with pytest.raises(ValueError, match="^mine"):
        make_encoders("eyes_of_specs:Broken", LEAVES)


def test_a_spec_of_leaves_is_no_encoder():
    with pytest.raises(ValueError, match="without LEAF="):
        make_encoder("left=mlp")


VALID = (
    "mlp",
    "nature_cnn(features=64, padding=SAME)",
    "gray | edges | vit(depth=1, width=8)",
    "crop(height=20, top=3) | fovea(inner=1.5) | gabor(cells=simple) | flatten",
    "left=mlp(hidden_layer_sizes=(3, 2), activation=tanh) | mlp, nature_cnn",
    "right = encoders.mlp:MLP(activation='relu') | identity, proprio=identity",
)
MARKS = "|(),=:'\"[]{}\\ .-*#\n\0é0123456789abTN_"


@st.composite
def broken_specs(draw):
    """A valid spec with a few characters removed, replaced or inserted."""
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text)))
        removed = draw(st.integers(0, 3))
        text = text[:place] + draw(st.text(MARKS, max_size=3)) + text[place + removed :]
    return text


@settings(max_examples=200, deadline=None)
@given(broken_specs() | st.text(max_size=30) | st.text(MARKS, max_size=60))
def test_a_spec_is_understood_or_refused_in_one_sentence(text):
    try:
        parse(text)
        encoders = make_encoders(text, LEAVES)
    except ValueError as error:
        message = str(error)
        begin = f"encoder {text!r}, character "
        assert message.startswith(begin) and "\n" not in message
        place, _, why = message.removeprefix(begin).partition(": ")
        assert 1 <= int(place) <= len(text) + 1 and why
    else:
        assert set(encoders) <= set(LEAVES)


@pytest.mark.parametrize(
    "text", ["mlp(a=" + "(" * 5000 + ")" * 5000 + ")", "mlp(a=" + "-" * 9000 + "1)"]
)
def test_deep_nesting_is_refused(text):
    with pytest.raises(ValueError, match="^encoder"):
        parse(text)
