"""Runs of different environments and random actions in one world: that of the first run."""

import contextlib
import json
import sys
import types

import imageio.v2 as imageio
import jax
import mujoco
import numpy as np
import pytest

from experiments import evaluate, players, render, watch
from experiments.command_line import parse
from experiments.evaluate import EvaluateOptions
from experiments.render import RenderOptions
from experiments.settings import BUILDER, build, to_dict
from tests.probes import Probe
from vnl_ppo import checkpoint, run_folder
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights, init_params

SMALL = """
    --num-envs 2 --batch-size 2 --num-minibatches 1 --unroll-length 2 --episode-length 6
    --physics mujoco
"""
N = 3


def run(folder, options):
    """A run with a checkpoint of what it begins with, as far as loading reads it."""
    settings = parse([*options.split(), *SMALL.split()], None)
    env, network = build(settings)
    run_folder.create(folder, to_dict(settings), BUILDER)
    params = init_params(network, env.observation_spec, jax.random.key(0))
    weights = Weights(params, init_moments(env.observation_spec))
    # Of one agent.
    state = {"weights": jax.tree.map(lambda x: x[None], weights)}
    checkpoint.save(folder / run_folder.CHECKPOINTS, 0, state)
    return str(folder)


@pytest.mark.parametrize(
    "names, steps, shown",
    [
        (["runs/a", "runs/b@7", "random"], [5, 7, None], ["a@5", "b@7", "random"]),
        (["blind/seed_0", "told/seed_0"], [5, 5], ["blind/seed_0@5", "told/seed_0@5"]),
        (["a/x/1", "b/x/1", "b/y/1", "c"], [5] * 4, ["a/x/1@5", "b/x/1@5", "y/1@5", "c@5"]),
        (["a/x", "b/x@7", "a/x@7"], [5, 7, 7], ["x@5", "b/x@7", "a/x@7"]),
    ],
)
def test_runs_of_the_same_name_are_told_apart(names, steps, shown):
    assert players._shown(names, steps) == shown


@pytest.mark.parametrize(
    "names, steps", [(["a", "./a@5"], [5, 5]), (["random", "a", "random"], [None, 1, None])]
)
def test_a_policy_that_is_named_twice_is_refused(names, steps):
    with pytest.raises(ValueError, match=f"{names[-1]} is named twice; name each policy once"):
        players._shown(names, steps)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    blind = "--encoder none --env"
    return {
        "gaps": run(
            folder / "gaps", f"{blind} gap_ant --task.forward 2 --arena.gap-length 0.3 0.4"
        ),
        "stones": run(folder / "stones", f"{blind} stones_ant --network.memory 4"),
        "told": run(folder / "told", f"{blind} stones_ant --ahead"),
        "ball": run(folder / "ball", f"{blind} target_ball"),
        "seeing": run(
            folder / "seeing", "--env stones_ant --vision.height 36 --vision.width 36 --frames 2"
        ),
    }


def load(*names, flags=()):
    options, world = players.parse(EvaluateOptions, [*names, *flags], None)
    return players.load_players(options.policies, world), world


@pytest.fixture(scope="module")
def three(runs):
    return load(runs["gaps"], runs["stones"], "random")


def test_all_act_in_the_world_of_the_first_run(three):
    both, world = three
    assert world.env == "gap_ant" and world.task.forward == 2.0
    for player in both:
        assert player.env.arena == world.arena and player.env.arena.gap_length == (0.3, 0.4)
        assert player.env.task == world.task
        assert player.env.walker == world.walker
        assert player.env.simulation == world.simulation
        assert player.episode_length == world.ppo.episode_length == 6
    assert [player.name for player in both] == ["gaps@0", "stones@0", "random"]
    layouts = [jax.jit(p.env.reset)(jax.random.key(3)).data.layout for p in both]
    for layout in layouts[1:]:
        jax.tree.map(np.testing.assert_array_equal, layout, layouts[0])


def test_each_keeps_its_own_senses_and_network(runs, three):
    both, _ = three
    assert [set(p.env.observation_spec) for p in both] == [{"proprio"}] * 3
    sizes = [[x.shape for x in jax.tree.leaves(p.actor.memory(5))] for p in both]
    assert sizes == [[], [(5, 4)], []]
    (_, seeing), _ = load(runs["gaps"], runs["seeing"])
    assert seeing.env.observation_spec["vision"].shape == (36, 36, 6)
    assert seeing.env.arena.gap_length == (0.3, 0.4)
    # Its critic is told what lies ahead, in a world that tells as much.
    (_, told), _ = load(runs["stones"], runs["told"], flags=["--arena.length", "20"])
    assert told.env.observation_spec["ahead"].shape == (7,)
    # Blind or seeing, random acts by nothing, and sees nothing.
    (_, random), world = load(runs["seeing"], "random")
    assert set(random.env.observation_spec) == {"proprio"} and world.frames == 2


def test_random_is_scored_with_the_runs_task(three):
    both, _ = three
    random = both[-1]
    found = evaluate.evaluate(random, N, 6, seed=1)
    np.testing.assert_allclose(
        found["forward_reward"], 2.0 * found["x_velocity"], rtol=1e-5, atol=1e-6
    )
    assert (np.abs(found["forward_reward"]) > 1e-3).all()
    (other,), _ = load("random", flags=["--task.forward", "5"])
    same = evaluate.evaluate(other, N, 6, seed=1)
    np.testing.assert_allclose(same["forward_reward"], 5.0 * same["x_velocity"], rtol=1e-5)


def test_flags_change_the_world_of_all(runs):
    flags = "--arena.gap-length 0.5 0.6 --task.healthy 7 --walker.reset-noise 0.1"
    both, world = load("random", runs["gaps"], runs["stones"], flags=flags.split())
    assert world.env == "gap_ant", "random says nothing of a world: the first run does"
    for player in both:
        assert player.env.arena.gap_length == (0.5, 0.6)
        assert (player.env.task.healthy, player.env.task.forward) == (7.0, 2.0)
        assert player.env.walker.reset_noise == 0.1


def test_the_first_runs_arena_is_everybodys(runs):
    both, world = load(runs["stones"], runs["gaps"])
    assert world.env == "stones_ant" and world.arena.stones
    assert all(player.env.arena.stones for player in both)
    # It reads no more than it learned from.
    assert set(both[1].env.observation_spec) == {"proprio"}


def test_random_alone_acts_where_it_is_told(runs):
    (player,), world = load("random", flags=["--env=target_ball"])
    assert world.env == "target_ball" and player.env.action_size == 3
    assert load("random")[1].env == "gap_ant"


def test_a_walker_of_another_kind_is_refused_in_one_sentence(runs):
    with pytest.raises(
        ValueError, match="ball was trained with the walker JumpingBall and the fir"
    ):
        load(runs["gaps"], runs["ball"])
    with pytest.raises(
        ValueError, match="gaps was .* the walker Ant and the first run with Jumpin"
    ):
        load("random", runs["ball"], runs["gaps"])


def test_a_run_that_was_told_something_else_is_refused_in_one_sentence(runs):
    with pytest.raises(ValueError, match="stones_ant, whose leaf ahead has 7 numbers; .* has 4"):
        load(runs["gaps"], runs["told"])


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A run of an environment of the user's own, that is not made of parts."""
    module = types.ModuleType("lab_of_players")
    module.PROBE = Probe(lambda x, action: x * action, steps=4)
    sys.modules["lab_of_players"] = module
    folder = tmp_path_factory.mktemp("own") / "probe"
    yield run(folder, "--env lab_of_players:PROBE")
    del sys.modules["lab_of_players"]


def test_a_world_of_ones_own_has_its_own_metrics_and_a_random_player(foreign):
    both, world = load(foreign, "random")
    assert world.env == "lab_of_players:PROBE" and not hasattr(world, "arena")
    found = [evaluate.evaluate(player, N, 6, seed=0) for player in both]
    for player, metrics in zip(both, found, strict=True):
        assert set(player.shown) == {"episode_reward", "episode_length", "x", "action"}
        assert (metrics["episode_length"] == 4).all()
    assert (found[0]["action"] != found[1]["action"]).any()
    shown = evaluate.as_json(both, found, world, 0)
    assert shown["world"] == {"env": "lab_of_players:PROBE", "physics": "mujoco"}
    with pytest.raises(ValueError, match="Probe cannot be filmed: it has no MuJoCo model"):
        _ = both[0].filmed


def test_worlds_that_have_nothing_in_common_are_refused_in_one_sentence(runs, foreign):
    for names in ((runs["gaps"], foreign), (foreign, runs["gaps"])):
        with pytest.raises(ValueError, match="has nothing in common with .*; run the policies"):
            load(*names)


def run_main(monkeypatch, module, arguments):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    module.main()


def test_an_evaluation_says_in_what_world_it_was(runs, monkeypatch, capsys):
    names = [runs["gaps"], runs["stones"], "random"]
    flags = ["--episodes", N, "--json", "--arena.length", "20"]
    run_main(monkeypatch, evaluate, [*names, *flags])
    told = json.loads(capsys.readouterr().out)
    assert told["world"]["env"] == "gap_ant"
    assert told["world"]["arena"]["length"] == 20.0
    assert told["world"]["task"]["forward"] == 2.0
    assert [p["policy"] for p in told["policies"]] == ["gaps@0", "stones@0", "random"]
    for policy in told["policies"]:
        assert len(policy["episode_reward"]["episodes"]) == N
        assert {"distance_along_x", "x_velocity", "obstacles_passed", "success"} < policy.keys()


def test_a_run_of_another_preset_is_filmed_beside_random(runs, tmp_path, monkeypatch, capsys):
    path = tmp_path / "both.gif"
    small = ["--size", 32, 48, "--inset", 0, "--seconds", 0.1, "--output", path]
    run_main(monkeypatch, render, [runs["stones"], "random", *small])
    assert f"stones@0, random: {path}" in capsys.readouterr().out
    first, *_, last = (np.asarray(f)[..., :3].astype(int) for f in imageio.mimread(path))
    assert first.shape == (32, 96, 3)
    assert np.abs(first[:, :48] - first[:, 48:]).mean() < 3
    assert (first != last).any()


class Window:
    """A viewer without a window: open for a number of frames."""

    def __init__(self, model, data, frames=9):
        self.model, self.data, self.frames, self.seen = model, data, frames, []
        self.cam = mujoco.MjvCamera()

    def is_running(self):
        return len(self.seen) < self.frames

    def sync(self):
        self.seen.append(self.data.qpos.copy())


@pytest.mark.parametrize("name", ["stones", "ball"])
def test_a_viewer_begins_the_same_episode_again_when_it_ends(runs, name):
    (player,), _ = load(runs[name])
    windows = []

    @contextlib.contextmanager
    def opener(model, data):
        windows.append(Window(model, data))
        yield windows[0]

    watch.show(player, seed=3, speed=100.0, opener=opener)
    seen = windows[0].seen
    # Six steps, then from the start, memory and all.
    np.testing.assert_array_equal(seen[7], seen[0])
    assert (seen[6] != seen[0]).any()
    np.testing.assert_array_equal(seen[8], seen[1])
    followed = windows[0].model.body(windows[0].cam.trackbodyid).name
    assert followed == f"walker/{player.env.walker.root}"


def test_an_environment_beside_a_run_of_another_is_refused(runs):
    arguments = [runs["gaps"], "random", "--env", "walls_ant"]
    with pytest.raises(ValueError, match="--env is walls_ant, but the first run.*gap_ant"):
        players.parse(EvaluateOptions, arguments, None)
    for flag in ("--resume", "--config"):
        with pytest.raises(ValueError, match=r"--env is walls_ant, but .* is of gap_ant"):
            parse([flag, runs["gaps"], "--env", "walls_ant"], None)
    assert parse(["--resume", runs["gaps"], "--env", "gap_ant"], None).env == "gap_ant"


def test_a_leaf_that_is_not_asked_for_names_the_flag():
    settings = parse(
        ["--env", "walls_ant", "--encoder", "none", "--network.value-leaves", "ahead"], None
    )
    with pytest.raises(ValueError, match="add --ahead"):
        build(settings)


def test_a_home_folder_is_written_as_in_a_shell(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    run(tmp_path / "mine", "--env gap_ant --encoder none")
    options, _ = players.parse(RenderOptions, ["~/mine", "--output=~/look.mp4"], None)
    assert options.output == tmp_path / "look.mp4"
    assert players.settings_of("~/mine").env == "gap_ant"
