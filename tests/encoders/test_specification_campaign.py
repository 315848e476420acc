"""500 specs, each with one flaw: the message names what is wrong, and where."""

import string

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders import make_encoders, registered
from encoders.registry import find, settings_of

LEAVES = {
    "left": jax.ShapeDtypeStruct((36, 40, 3), jnp.uint8),
    "right": jax.ShapeDtypeStruct((36, 40, 3), jnp.uint8),
}
NUMBER = 500
WORDS = st.text(string.ascii_lowercase + "_0123456789", min_size=1, max_size=9).map("q".__add__)
"""Names that nothing has: none begins with q."""
BEGINNINGS = st.sampled_from(
    ["", "gray | ", "gray|edges | ", "blur(sigma=1.5) | ", "left=mlp, ", "left = mlp ,right=gray| "]
)
STAGES = st.sampled_from(["mlp", "nature_cnn", "impala", "vit(depth=1)", "noise | flatten"])
ENDS = st.sampled_from(["", " | mlp", "  ", " | nature_cnn(features=3)"])
TYPED = {
    "nature_cnn": ("features", ["'a'", "2.5", "True", "None", "(1, 2)"]),
    "blur": ("sigma", ["'a'", "True", "None", "(1.0,)"]),
    "crop": ("height", ["x", "1.5", "None"]),
    "gabor": ("cells", ["3", "all", "None"]),
    "mlp": ("hidden_layer_sizes", ["3", "(a, 2)", "(2.5,)", "None"]),
    "resnet": ("groups", ["(8,)", "y"]),
}


@st.composite
def flawed(draw):
    """A spec, the index where it is wrong, and a text that the message has to have."""
    begin, end, word = draw(BEGINNINGS), draw(ENDS), draw(WORDS)
    kind = draw(st.integers(0, 11))
    # What is before the flaw; what is wrong; where, after `begin`; what is said.
    if kind == 0:
        wrong, place, what = word, 0, repr(word)
    elif kind == 1:
        name = draw(st.sampled_from(registered()))
        wrong, place, what = f"{name}({word}=3)", 0, f"{name!r} has no setting {word!r}"
    elif kind == 2:
        name = draw(st.sampled_from(sorted(TYPED)))
        setting, values = TYPED[name]
        wrong, place = f"{name}({setting}={draw(st.sampled_from(values))})", 0
        what = f"{setting} is "
    elif kind == 3:
        wrong, place, what = f"mlp( {draw(st.integers(0, 99))})", 5, "a value has no name"
    elif kind == 4:
        wrong = f"mlp(activation=relu, {word}=1, activation=elu)"
        place, what = wrong.rindex("activation"), "'activation' is given twice"
    elif kind == 5:
        opened = draw(st.sampled_from("([{"))
        wrong, end = f"mlp{opened}activation=relu", ""
        place, what = 3, f"{opened!r} is opened and not closed"
    elif kind == 6:
        closed = draw(st.sampled_from(")]}"))
        wrong, place, what = f"mlp{closed}", 3, f"{closed!r} closes nothing"
    elif kind == 7:
        begin, wrong, place = draw(st.sampled_from(["", "left=mlp, "])), f"{word}=mlp", 0
        what = f"there is no leaf {word!r}"
    elif kind == 8:
        begin, wrong, place, end = "right=mlp, ", "right=gray | mlp", 0, ""
        what = "second spec for the leaf 'right'"
    elif kind == 9:
        wrong, place, what = f"{word}.{word}:Eye", 0, f"cannot import the module '{word}.{word}'"
    elif kind == 10:
        value = draw(
            st.sampled_from(["1e999", "-1e400", "2147483648", "f(1)", "1+2j", "{}", "a.b"])
        )
        wrong, place, what = f"mlp({word}={value})", len(f"mlp({word}="), f"{word}: a "
    else:
        after = draw(st.sampled_from([" x", "(b=1)", "y"]))
        wrong, place, what = f"mlp(activation=relu){after}", 3, "write a stage as NAME"
    return begin + wrong + end, len(begin) + place, what


@settings(max_examples=NUMBER, deadline=None, database=None)
@given(flawed())
def test_the_message_names_what_is_wrong_and_where(case):
    text, place, what = case
    with pytest.raises(ValueError) as raised:
        make_encoders(text, LEAVES)
    message = str(raised.value)
    # Leaves get a space or two before their names.
    places = {place + 1, place + 1 - (len(text[:place]) - len(text[:place].rstrip()))}
    begins = [f"encoder {text!r}, character {n}: " for n in places]
    assert any(message.startswith(begin) for begin in begins), (begins, message)
    assert what in message and "\n" not in message and "Traceback" not in message


def test_the_campaign_knows_the_settings():
    assert all(setting in settings_of(find(name)) for name, (setting, _) in TYPED.items())
    assert not any(name.startswith("q") for name in registered())
