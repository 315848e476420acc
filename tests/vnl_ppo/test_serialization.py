"""Settings as plain data: what is not a setting is named, with the nearest one that is."""

import dataclasses
import json
from pathlib import Path

import pytest

from vnl_ppo.serialization import from_plain, to_plain


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 3
    range: tuple[float, float] = (0.0, 1.0)
    hidden: tuple[int, ...] = (4, 5)

    def __post_init__(self):
        if self.width < 0:
            raise ValueError(f"width is {self.width}; it has to be 0 or more")


@dataclasses.dataclass(frozen=True)
class Outer:
    rate: float
    inner: Inner = Inner()
    name: str = "x"
    shout: bool = False
    place: Path | None = None


def test_there_and_back():
    outer = Outer(2.0, Inner(7, (0.5, 2.0), ()), "y", True)
    assert from_plain(Outer, json.loads(json.dumps(to_plain(outer))), "file") == outer
    # A file of an older version may lack a field, and a person may write 1 for 1.0.
    assert from_plain(Outer, {"rate": 1}, "file") == Outer(1.0)


@pytest.mark.parametrize(
    "data, message",
    [
        ({"rate": 1.0, "shoot": True}, "file: there is no setting shoot; the nearest is shout"),
        ({"rate": 1.0, "widht": 1}, "no setting widht; the nearest is inner.width"),
        ({"rate": 1.0, "inner": {"withd": 1}}, "no setting inner.withd; .* is inner.width"),
        ({"rate": "fast"}, "rate: 'fast' is not a number"),
        ({"rate": True}, "rate: True is not a number"),
        ({"rate": 1.0, "inner": {"width": 1.5}}, "inner.width: 1.5 is not a whole number"),
        ({"rate": 1.0, "inner": {"width": None}}, "inner.width: None is not a whole number"),
        ({"rate": 1.0, "inner": {"width": -1}}, "inner: .*width is -1; it has to be 0 or more"),
        ({"rate": 1.0, "inner": {"hidden": ["a"]}}, "inner.hidden.*'a' is not a whole number"),
        ({"rate": 1.0, "inner": {"range": [1.0]}}, "inner.range"),
        ({"rate": 1.0, "inner": {"hidden": 3}}, "inner.hidden: 3 is not a list"),
        ({"rate": 1.0, "inner": {"hidden": "45"}}, "inner.hidden: '45' is not a list"),
        ({"rate": 1.0, "shout": "no"}, "shout: 'no' is not true or false"),
        ({"rate": 1.0, "inner": 3}, "inner is 3; it has to be an object"),
        ({}, "rate"),
        ([1], r"settings is \[1\]"),
    ],
)
def test_what_is_wrong_is_one_sentence(data, message):
    with pytest.raises(ValueError, match=f"file: .*{message.removeprefix('file: ')}") as info:
        from_plain(Outer, data, "file")
    assert "\n" not in str(info.value)
