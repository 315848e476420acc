"""Recordings made by hand, whose analyses are known."""

import json
import sys

import numpy as np
import pytest
import xarray

from experiments import analyse
from experiments.analyse import AnalyseOptions, open_recording
from experiments.recording_reader import default_variables
from experiments.recording_store import Store

EPISODES, STEPS = 12, 60
RANDOM = np.random.default_rng(0)
# Walls at 1, 2 and 3 m; the animal comes from before the first and goes on for 3 m.
POSITION = RANDOM.uniform(0, 0.9, (EPISODES, 1)) + 0.05 * np.arange(STEPS)
PASSED = np.floor(POSITION).clip(0, 3)
AHEAD = np.where(POSITION < 3, 1 - POSITION % 1, 5.0)
NEAR = (AHEAD < 0.5).astype(np.float32)
NOISE = RANDOM.normal(size=(EPISODES, STEPS, 6))
ROTATION = np.linalg.qr(RANDOM.normal(size=(7, 7)))[0]
CODE = np.concatenate([AHEAD[..., None], NOISE], axis=-1)
ARRAYS = {
    "truth.ahead": AHEAD[..., None],
    "truth.near": NEAR,
    "truth.constant": np.ones((EPISODES, STEPS)),
    "metric.obstacles_passed": PASSED,
    "reward": NOISE[..., 0],
    "observation.vision": np.zeros((EPISODES, STEPS, 9, 9, 3), np.uint8),
    "module.code": CODE,
    "module.code/rotated": 3 * CODE @ ROTATION,
    "module.noise": NOISE[..., 1:],
    "module.passing": (np.diff(PASSED, axis=1, prepend=0) > 0)[..., None],
    "alive": np.arange(STEPS) < np.where(np.arange(EPISODES) == 3, 30, STEPS)[:, None],
}


def save(path, arrays, episodes=EPISODES):
    store = Store(path, episodes, STEPS, False, {"policy": "mine", "step": 7})
    block = {k: np.swapaxes(x, 0, 1)[:, :episodes].astype(np.float32) for k, x in arrays.items()}
    block["alive"] = block["alive"].astype(bool)
    store.write(0, 0, block)
    store.close()
    return path


def without(*names):
    return {k: x for k, x in ARRAYS.items() if k not in names}


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["analyse", *map(str, arguments)])
    analyse.main()


def test_codes_that_are_known_are_found(tmp_path, monkeypatch, capsys):
    path = save(tmp_path / "x.zarr", ARRAYS)
    flags = ["--variables", "truth.ahead", "truth.near", "--around", 5, 4, "--samples", 300]
    run(monkeypatch, path, *flags)
    assert "code.rotated" in capsys.readouterr().out
    found = json.loads((tmp_path / "x.analysis.json").read_text())
    modules = found["recordings"][0]["modules"]
    assert found["variables"] == ["truth.ahead", "truth.near"] and found["episodes"] == EPISODES
    # A unit that is the distance, a rotated code, and none; near is a threshold of it.
    for name in ("code", "code.rotated"):
        assert modules[name]["r2"]["truth.ahead"]["mean"] > 0.999
        assert modules[name]["r2_mismatched"]["truth.ahead"]["mean"] < 0.2
        assert modules[name]["auc"]["truth.near"]["mean"] > 0.9
        assert abs(modules[name]["auc_mismatched"]["truth.near"]["mean"] - 0.5) < 0.3
    assert modules["noise"]["r2"]["truth.ahead"]["mean"] < 0.05
    assert abs(modules["noise"]["auc"]["truth.near"]["mean"] - 0.5) < 0.15
    # One unit of seven is; of those that are found, one in twenty may be none.
    assert 1 / 7 <= modules["code"]["selective"]["truth.ahead"] <= 2 / 7
    assert modules["noise"]["selective"]["truth.ahead"] <= 1 / 5
    pair = found["layers"].index("code"), found["layers"].index("code.rotated")
    for measure, same in (("cka", 1), ("rsa", 1), ("procrustes", 0)):
        assert found[measure][pair[0]][pair[1]] == pytest.approx(same, abs=1e-3)
    # The unit that fires as an obstacle is passed is far from its mean at that step only.
    around = found["triggered"]
    lags = np.array(around["lags"])
    assert around["events"] > 20 and lags.tolist() == list(range(-5, 5))
    assert lags[np.argmax(around["modulation"]["passing"])] == 0
    figures = {x.name for x in (tmp_path / "x.figures").iterdir()}
    assert figures == {
        f"{x}.png" for x in ("decoding", "similarity", "triggered", "tuning", "trajectories")
    }


def test_earlier_numbers_are_not_replaced(tmp_path, monkeypatch):
    path = save(tmp_path / "x.zarr", ARRAYS)
    flags = [path, "--modules", "code", "--samples", 100, "--permutations", 20, "--variables"]
    run(monkeypatch, *flags, "truth.ahead")
    first = (tmp_path / "x.analysis.json").read_text()
    with pytest.raises(SystemExit, match="x.analysis.json exists already; name .* --output"):
        run(monkeypatch, *flags, "truth.near")
    run(monkeypatch, *flags, "truth.near", "--output", tmp_path / "near")
    assert (tmp_path / "x.analysis.json").read_text() == first
    other = json.loads((tmp_path / "near" / "analysis.json").read_text())
    assert other["variables"] == ["truth.near"]
    assert (tmp_path / "near" / "decoding.png").stat().st_size > 0


def test_only_the_steps_that_are_asked_for_are_used(tmp_path):
    # A code that is the distance where it is small, and noise elsewhere.
    near = np.where(NEAR > 0, AHEAD, NOISE[..., 0])[..., None]
    path = save(tmp_path / "x.zarr", ARRAYS | {"module.near": near})
    scores = {}
    for conditions in ((), ("truth.ahead < 0.5",), ("truth.near>=1", "truth.ahead<=1e9")):
        options = AnalyseOptions(
            (path,),
            variables=("truth.ahead",),
            modules=("near",),
            where=conditions,
            permutations=20,
        )
        found, _ = analyse.analyse(options, [open_recording(path)])
        scores[conditions] = found["recordings"][0]["modules"]["near"]["r2"]["truth.ahead"]["mean"]
        assert found["where"] == list(conditions)
    everywhere, *close = scores.values()
    assert everywhere < 0.3 and close[0] > 0.999 and close[1] == close[0]
    assert found["samples"] == int((NEAR * ARRAYS["alive"]).sum())


def test_a_world_that_tells_no_truth_is_analysed_by_its_metrics(tmp_path, capsys):
    path = save(tmp_path / "x.zarr", without("truth.ahead", "truth.near", "truth.constant"))
    options = AnalyseOptions((path,), permutations=20, around=(0, 0))
    found, _ = analyse.analyse(options, [open_recording(path)])
    assert found["variables"] == ["metric.obstacles_passed", "reward"]
    said = capsys.readouterr().out
    assert "there is none of truth.ahead" in said and "--variables takes any of metric.obst" in said


def test_variables_do_not_depend_on_the_order_of_files():
    names = ["reward", "metric.b", "metric.a", "alive"]
    found, _ = default_variables(xarray.Dataset({k: ("step", [0.0]) for k in names}))
    assert found == ["metric.a", "metric.b", "reward"]


def test_recordings_of_the_same_episodes_are_compared(tmp_path):
    paths = [
        save(tmp_path / "a.zarr", ARRAYS),
        save(tmp_path / "b.zarr", {**without("module.code", "module.passing"), "module.new": CODE}),
    ]
    options = AnalyseOptions(tuple(paths), variables=("truth.ahead",), permutations=20)
    found, _ = analyse.analyse(options, [open_recording(path) for path in paths])
    assert [len(x["modules"]) for x in found["recordings"]] == [4, 3]
    pair = found["layers"].index("0: code"), found["layers"].index("1: new")
    assert found["cka"][pair[0]][pair[1]] == pytest.approx(1)


@pytest.mark.parametrize(
    "change, flags, message",
    [
        ({}, ["--modules", "nose"], "has no module 'nose'; did you mean noise"),
        ({}, ["--variables", "truth.haed"], "'truth.haed', which is no array.*mean truth.ahead"),
        ({}, ["--variables", "observation.vision"], "no array of .* with at most 64 entries"),
        ({}, ["--variables", "truth.constant"], "truth.constant are constant in .*there are metr"),
        ({}, ["--folds", "13"], "has 12 episodes; .* in --folds 13 parts: record more"),
        ({}, ["--where", "truth.ahead"], "--where has 'truth.ahead'; write ARRAY>NUMBER or"),
        ({}, ["--where", "truth.ahead>x"], "--where has 'truth.ahead>x'; write ARRAY>NUMBER or"),
        ({}, ["--where", "truth.haed>1"], "--where has 'truth.haed', .* did you mean truth.ahead"),
        ({}, ["--where", "truth.ahead[x]>1"], r"name an entry of truth.ahead, as truth.ahead\[0\]"),
        ({}, ["--where", "truth.ahead>9"], "--where truth.ahead>9 holds at no step of"),
        ({}, ["--where", "reward>2.6"], r"has \d+ episodes? with such steps \(--where\); dec"),
        ({}, ["--samples", "3"], "--samples is 3; it has to be 10 or more"),
        ({"alive": np.zeros((EPISODES, STEPS))}, [], "has no steps; record it again"),
        ({"alive": np.arange(EPISODES)[:, None] < np.ones(STEPS)}, [], "has 1 episode; decoders"),
        ({"module.code": CODE * np.nan}, [], "code has numbers that are not finite in 480 of the"),
        (
            {"truth.ahead": ARRAYS["truth.ahead"] * np.inf},
            [],
            "truth.ahead has numbers that are not",
        ),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, change, flags, message):
    path = save(tmp_path / "x.zarr", ARRAYS | change)
    with pytest.raises(SystemExit, match=f"error: .*{message}") as stopped:
        run(monkeypatch, path, *flags, *([] if "--samples" in flags else ["--samples", 480]))
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "x.analysis.json").exists()


def test_recordings_that_do_not_belong_together_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "x.zarr", ARRAYS)
    other = save(tmp_path / "y.zarr", ARRAYS | {"truth.ahead": ARRAYS["truth.ahead"] + 1})
    with pytest.raises(SystemExit, match="y.zarr is of other episodes than .*record it with --rep"):
        run(monkeypatch, path, other)
    short = save(tmp_path / "z.zarr", ARRAYS, episodes=6)
    with pytest.raises(SystemExit, match="z.zarr is of other episodes"):
        run(monkeypatch, path, short)
    with pytest.raises(SystemExit, match="there is no recording .*nothing.zarr"):
        run(monkeypatch, tmp_path / "nothing.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit, match="folder is no recording of record.py, or is damaged"):
        run(monkeypatch, tmp_path / "folder")
    bare = save(tmp_path / "bare.zarr", {k: x for k, x in ARRAYS.items() if k[:6] != "module"})
    with pytest.raises(SystemExit, match=r"bare.zarr has no modules; record it with --modules"):
        run(monkeypatch, bare)


def test_without_events_there_is_no_average_around_them(tmp_path, capsys):
    path = save(tmp_path / "x.zarr", ARRAYS | {"metric.obstacles_passed": 0 * PASSED})
    options = AnalyseOptions((path,), variables=("truth.ahead",), permutations=20)
    found, drawn = analyse.analyse(options, [open_recording(path)])
    assert found["triggered"]["events"] == 0 and "triggered" not in drawn
    assert "metric.obstacles_passed never rises" in capsys.readouterr().out
