"""Curves that are known by hand, and a measurement from beginning to end."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from experiments import psychometrics
from experiments.analysis.psychometric import fit_logistic, wilson
from experiments.psychometrics import values_of, varied
from experiments.settings import defaults_for


def test_wilson_by_hand():
    # Wilson 1927 with z = 1.96: centre (p + z^2 / 2n) / (1 + z^2 / n), for 5 of 10.
    z, n = 1.959964, 10
    half = z * np.sqrt(0.25 / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    np.testing.assert_allclose(wilson(5, 10), (0.5 - half, 0.5 + half), rtol=1e-5)
    assert wilson(0, 10)[0] == 0 and wilson(0, 10)[1] > 0.2


@pytest.mark.parametrize("threshold, slope", [(0.4, -12.0), (0.7, 6.0)])
def test_a_logistic_curve_is_found_again(threshold, slope):
    x, trials = np.linspace(0.1, 1, 10), np.full(10, 100_000)
    share = 1 / (1 + np.exp(-slope * (x - threshold)))
    fit = fit_logistic(x, np.round(share * trials), trials)
    assert fit.threshold == pytest.approx(threshold, abs=1e-3)
    assert fit.slope == pytest.approx(slope, rel=1e-2)


def test_a_step_has_a_threshold_between_and_certainty_has_none():
    x, trials = np.array([0.1, 0.2, 0.3, 0.4]), np.full(4, 50)
    fit = fit_logistic(x, np.array([50, 50, 0, 0]), trials)
    assert 0.2 < fit.threshold < 0.3 and fit.slope < 0
    assert fit_logistic(x, trials, trials) is None
    assert fit_logistic(x, 0 * trials, trials) is None


def test_values_and_settings():
    assert values_of("0.1:0.5:0.2") == [0.1, 0.3, 0.5]
    assert values_of("1,2.5") == [1, 2.5]
    assert values_of("+-0:1:0.5") == [0, 0.5, 1] and values_of("+-0,2") == [0, 2]
    for text in ("", "1", "a:b:c", "1:2", "0:1:0", "1,inf", "+-", "+-1", "1,+-2"):
        with pytest.raises(ValueError, match="write FIRST:LAST:STEP"):
            values_of(text)
    world = defaults_for("gap_ant", seeing=False)
    assert varied(world, "arena.gap-length", 0.3).arena.gap_length == (0.3, 0.3)
    assert varied(world, "task.forward", 2).task.forward == 2.0
    around = varied(world, "arena.platform-shift", 0.5, around_zero=True)
    assert around.arena.platform_shift == (-0.5, 0.5)
    with pytest.raises(ValueError, match="no range"):
        varied(world, "task.forward", 2, around_zero=True)
    with pytest.raises(ValueError, match="did you mean arena.gap_length"):
        varied(world, "arena.gap-lenght", 1)
    assert varied(world, "arena.num-slots", 4.0).arena.num_slots == 4
    with pytest.raises(ValueError, match="4.5 for 'arena.num-slots', which takes whole numbers"):
        varied(world, "arena.num-slots", 4.5)
    with pytest.raises(ValueError, match="neither number nor range"):
        varied(world, "arena.aesthetic", 1)


def test_random_actions_in_a_world_that_is_made_harder(tmp_path, monkeypatch, capsys):
    # An animal that fails where its root is lower than this; at rest it is at 0.75 m.
    arguments = [
        "random", "--vary", "task.healthy-height", "0.0,0.1", "--episodes", "3",
        "--episode-length", "3", "--at-least", "episode_length", "2", "--output", str(tmp_path),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["psychometrics.py", *arguments])
    with pytest.raises(SystemExit, match="healthy_height"):
        psychometrics.main()
    arguments[2:4] = ["arena.gap-length", "0.1,0.2"]
    monkeypatch.setattr(sys, "argv", ["psychometrics.py", *arguments])
    psychometrics.main()
    assert "1.00 [0.44, 1.00]" in capsys.readouterr().out
    found = json.loads((tmp_path / "psychometrics.json").read_text())
    assert found["policies"]["random"]["successes"] == [3, 3]
    assert (tmp_path / "psychometrics.png").stat().st_size > 5000
    with pytest.raises(SystemExit, match="psychometrics.json exists already; name another"):
        psychometrics.main()
    arguments[-1] = str(tmp_path / "other")
    arguments[arguments.index("episode_length")] = "sucess"
    monkeypatch.setattr(sys, "argv", ["psychometrics.py", *arguments])
    with pytest.raises(SystemExit, match="'sucess'; this world has .*success"):
        psychometrics.main()


def test_curves_of_two_settings_have_files_of_their_own():
    options = psychometrics.PsychometricOptions(("random",), vary=("arena.gap-length", "1,2"))
    names = [psychometrics.output(options, x) for x in ("arena.gap-length", "arena.width")]
    files = {str(x.with_suffix(".json")) for x in names}
    assert files == {"psychometrics_arena_gap-length.json", "psychometrics_arena_width.json"}


def test_a_negative_episode_length_is_refused():
    options = psychometrics.PsychometricOptions(("random",), vary=("arena.gap-length", "1,2"))
    options.check()
    with pytest.raises(ValueError, match="--episode-length is -1"):
        dataclasses.replace(options, episode_length=-1).check()


def test_an_impossible_value_is_found_before_anything_runs(tmp_path, monkeypatch):
    arguments = ["random", "--vary", "arena.gap-length", "0.1,-1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["psychometrics.py", *arguments])
    monkeypatch.setattr(psychometrics, "evaluate", lambda *_: pytest.fail("it ran"))
    with pytest.raises(SystemExit, match="error: at arena.gap-length -1: arena.gap_length"):
        psychometrics.main()
