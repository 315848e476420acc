"""Wrong settings by the hundred: each is refused in a sentence, and nothing is left behind.

One process tries them one after the other, as fast as it can refuse them.
"""

import dataclasses
import json
import re
import typing

import jax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import command_line
from experiments.settings import defaults_for, to_dict, type_for
from vnl_ppo import run_folder

LEAST = 500
_ALIASES = ("ppo.",)
"""Groups whose names the command line leaves out."""
_OF_THE_COMMAND = ("run_dir", "resume", "config", "dump_config", "dry_run", "quiet", "wandb")


def leaves(kind, prefix=""):
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{name}.")
        elif name not in _OF_THE_COMMAND:
            yield prefix + name, hint


LEAVES = dict(leaves(type_for("stones_ant")))
TEXTS = st.text("abcxyz_-.:/ 0", min_size=1, max_size=8).filter(lambda t: not t.startswith("-"))
WHOLE = st.one_of(st.integers(-(10**12), 0), st.integers(2**31, 10**40))
REAL = st.one_of(
    st.sampled_from([float("nan"), float("inf"), -float("inf")]), st.floats(-1e9, -1e-9)
)
NOTHING_ELSE = st.one_of(TEXTS, st.none(), st.booleans(), st.just([]), st.just({}))


def wrong(hint):
    """Values, most of which cannot be, of the right type or of none."""
    if hint is int:
        return st.one_of(WHOLE, NOTHING_ELSE, st.floats(0.1, 0.9))
    if hint is float:
        return st.one_of(REAL, NOTHING_ELSE)
    if hint is bool:
        return st.one_of(TEXTS, st.integers(2, 9))
    if hint is str:
        return st.one_of(TEXTS, st.integers())
    if not typing.get_args(hint):
        return NOTHING_ELSE
    inner = typing.get_args(hint)[0]
    if typing.get_origin(hint) is not tuple:
        # What may be absent: `int | None`.
        return wrong(inner).filter(lambda value: value is not None)
    return st.one_of(st.lists(wrong(inner), min_size=1, max_size=3), NOTHING_ELSE)


@st.composite
def mistakes(draw):
    """Draw where, what, and whether on the command line or in a file."""
    name = draw(st.sampled_from(sorted(LEAVES)))
    value = draw(wrong(LEAVES[name]))
    how = draw(st.sampled_from(["line", "file", "name in line", "name in file"]))
    if how.startswith("name"):
        position = draw(st.integers(0, len(name)))
        name = name[:position] + draw(st.sampled_from("qz")) + name[position:]
    return name, value, how


def flag(name):
    name = re.sub("^processes[.]", "distributed.", name)
    for group in _ALIASES:
        name = name.removeprefix(group)
    return "--" + name.replace("_", "-")


def attempt(name, value, how, folder, path):
    """Parse and prepare; returns the refusal, or None where the input can be."""
    arguments = ["--run-dir", str(folder)]
    if "line" in how:
        values = value if isinstance(value, list) else [value]
        arguments += [flag(name), *map(str, values)]
    else:
        data = to_dict(defaults_for("stones_ant"))
        *groups, last = name.split(".")
        place = data
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
        path.write_text(json.dumps({"settings": data}))
        arguments += ["--config", str(path)]
    command_line.prepare(command_line.parse(arguments, None, "stones_ant"))


@pytest.mark.slow
def test_nothing_wrong_gets_through_and_no_traceback_out(tmp_path, capsys, monkeypatch):
    refused, possible = {}, set()
    folder, path = tmp_path / "run", tmp_path / "config.json"
    # A run that may be is prepared and goes no further.
    monkeypatch.setattr(run_folder, "create", lambda *_: None)
    # Nor are processes joined that may be.
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: None)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    assert {"ppo.num_seeds", "processes.coordinator", "processes.timeout"} <= LEAVES.keys()

    @settings(
        max_examples=900,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mistakes())
    def campaign(mistake):
        name, value, how = mistake
        try:
            attempt(name, value, how, folder, path)
        except SystemExit as error:
            # tyro's: usage and what is wrong, on the error stream.
            told = capsys.readouterr().err
            assert error.code == 2, (mistake, error)
        except (ValueError, OSError) as error:
            told = str(error)
            assert "\n" not in told.strip(), (mistake, told)
        else:
            capsys.readouterr()
            possible.add(repr(mistake))
            return
        assert "Traceback" not in told
        parts = [part for n in name.split(".") for part in (n, n.replace("_", "-"))]
        named = any(part in told for part in parts)
        values = value if isinstance(value, list) else [value]
        assert named or any(str(v) in told for v in values), (mistake, told)
        assert not folder.exists(), mistake
        refused[repr(mistake)] = told

    campaign()
    of_processes = sum("processes." in mistake for mistake in refused)
    print(
        f"{len(refused)} distinct inputs were refused, {of_processes} of them about processes; "
        f"{len(possible)} can be: {possible}"
    )
    assert len(refused) >= LEAST
